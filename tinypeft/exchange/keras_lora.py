"""What Keras' `layer.enable_lora` trained, in PEFT's form: a saved model and its base in, a PeftAdapter out.

Keras adds A B to the kernel when it saves, so that a .keras or .weights.h5 holds neither A nor B. They are found again
from the difference to the base, exactly but for the rounding of float32; which of the many A and B that give the same
product was trained is lost. KerasHub's .lora.h5 holds them.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.errors import AdapterError
from tinypeft.exchange.keras_rewrite import run_keras
from tinypeft.exchange.layouts import filters_from_kernel, filters_to_torch
from tinypeft.exchange.peft_config import PeftConfig
from tinypeft.exchange.peft_files import PeftAdapter

#: residual beyond the rank, relative to the kernel's norm: two roundings to float32 an element
_TOLERANCE = 4 * float(np.finfo(np.float32).eps)

_ADAPTED = ("Dense", "Conv1D", "Conv2D")
_BASE_HINT = "give the base model that it was trained from"


def read_keras_lora(path: Path | str, base: Path | str) -> PeftAdapter:
    """The adapter that turns the Keras model `base` into `path`: a .keras or .h5, .weights.h5, or KerasHub's .lora.h5.

    A .keras says rank and lora_alpha of its layers; of a .weights.h5 the rank is that of the difference, lora_alpha is
    the same. Biases of adapted layers are trained with them (bias "lora_only"), other layers that have changed go to
    modules_to_save. AdapterError: another base, a difference of a higher rank, weights such as moving averages that no
    adapter of PEFT holds; ModelError: a damaged file; ToolError: no TensorFlow.
    """
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as folder:
        request = {"job": "lora", "model": str(Path(path).absolute()), "base": str(Path(base).absolute())}
        answer = run_keras(request, {}, Path(folder))
        with np.load(Path(folder, "result.npz")) as result:
            arrays = dict(result)
    tensors: dict[str, dict[str, np.ndarray]] = {}
    ranks, alphas, saved = {}, {}, []
    for index, layer in enumerate(answer["layers"]):
        name = layer["name"]
        if f"a:{index}" in arrays:
            changed = factors_to_peft(arrays[f"a:{index}"], arrays[f"b:{index}"])
        else:
            before, after = ({n: arrays[f"{side}:{index}:{n}"] for n in layer["weights"]} for side in ("base", "model"))
            changed = _changed(layer, before, after, of_weights=str(path).endswith(".weights.h5"))
        if not changed:
            continue
        tensors[name] = changed
        if "lora_A" in changed:
            ranks[name] = changed["lora_A"].shape[0]
            alphas[name] = float(layer["lora_alpha"] or ranks[name])
        else:
            saved.append(name)
    if not ranks:
        raise AdapterError(f"{path} has no layer with a LoRA", "call layer.enable_lora(r) before training")
    return PeftAdapter(_config(tensors, ranks, alphas, saved), tensors)


def factors_to_peft(lora_kernel_a: np.ndarray, lora_kernel_b: np.ndarray) -> dict[str, np.ndarray]:
    """Keras' A (in,r) or (kh,kw,in,r) and B (r,out) as lora_A (r,in) or (r,in,kh,kw), lora_B (out,r) or (out,r,1,1)."""
    if lora_kernel_a.ndim not in (2, 3, 4) or lora_kernel_b.ndim != 2 or lora_kernel_a.shape[-1] != len(lora_kernel_b):
        raise AdapterError(f"a LoRA of Keras has A {lora_kernel_a.shape} and B {lora_kernel_b.shape}, which do not fit")
    lora_A = np.moveaxis(lora_kernel_a, (-1, -2), (0, 1))
    lora_B = lora_kernel_b.T.reshape(*lora_kernel_b.T.shape, *[1] * (lora_A.ndim - 2))
    return {"lora_A": np.ascontiguousarray(lora_A, np.float32), "lora_B": np.ascontiguousarray(lora_B, np.float32)}


def _config(
    tensors: dict[str, dict[str, np.ndarray]], ranks: dict[str, int], alphas: dict[str, float], saved: list[str]
) -> PeftConfig:
    r, lora_alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
    return PeftConfig(
        peft_type="LORA",
        target_modules=tuple(ranks),
        r=r,
        lora_alpha=lora_alpha,
        rank_pattern={re.escape(name): rank for name, rank in ranks.items() if rank != r},
        alpha_pattern={re.escape(name): alpha for name, alpha in alphas.items() if alpha != lora_alpha},
        bias="lora_only" if any("bias" in tensors[name] for name in ranks) else "none",
        modules_to_save=tuple(saved),
    )


def _changed(
    layer: dict[str, Any], before: dict[str, np.ndarray], after: dict[str, np.ndarray], *, of_weights: bool
) -> dict[str, np.ndarray]:
    """The tensors of one layer's adapter by PEFT's names; none where nothing has changed."""
    where = f"layer {layer['name']} ({layer['class']})"
    for name, array in after.items():
        if array.shape != before[name].shape:
            raise AdapterError(f"{where}: its {name} is {array.shape}, the base's {before[name].shape}", _BASE_HINT)
    different = {name for name, array in after.items() if not np.array_equal(array, before[name])}
    if layer["r"] is None and not different:
        return {}
    if other := sorted(different - {"kernel", "bias"}):
        raise AdapterError(
            f"{where}: its {', '.join(other)} differ from the base's, which no adapter of PEFT holds",
            "set layer.trainable = False before training, or give the base model that it was trained from",
        )
    bias = {"bias": after["bias"]} if "bias" in different else {}
    rank = layer["r"]
    if rank is None and of_weights and "kernel" in different and layer["class"] in _ADAPTED:
        rank = _smaller_rank(before["kernel"], after["kernel"])
    if rank is None:
        weight = filters_to_torch(filters_from_kernel(after["kernel"], layer["class"]))
        return {"weight": weight, **({"bias": after["bias"]} if "bias" in after else {})}
    if layer["class"] not in _ADAPTED:
        raise AdapterError(f"{where} has a LoRA; those of {', '.join(_ADAPTED)} are read", "leave it out")
    scaling = (layer["lora_alpha"] or rank) / rank
    return factors_to_peft(*_factorise(where, before["kernel"], after["kernel"], rank, scaling)) | bias


def _factorise(
    where: str, before: np.ndarray, after: np.ndarray, rank: int, scaling: float
) -> tuple[np.ndarray, np.ndarray]:
    """Keras' A and B of `rank` with after = before + scaling A B; AdapterError where there are none."""
    left, values, right = _singular(before, after)
    beyond, allowed = float(np.linalg.norm(values[rank:])), _TOLERANCE * float(np.linalg.norm(after))
    if beyond > allowed:
        raise AdapterError(
            f"{where}: its kernel differs from the base's by more than a LoRA of rank {rank}: {beyond:.3g} lie beyond "
            f"that, rounding explains {allowed:.3g}",
            _BASE_HINT,
        )
    kept = min(rank, values.size)
    root = np.sqrt(values[:kept] / scaling)
    sign = np.sign(left[np.abs(left[:, :kept]).argmax(axis=0), np.arange(kept)])  # else as the solver has it
    a, b = np.zeros((len(left), rank)), np.zeros((rank, right.shape[1]))
    a[:, :kept], b[:kept] = left[:, :kept] * root * sign, right[:kept] * (root * sign)[:, None]
    return a.reshape(*before.shape[:-1], rank), b


def _smaller_rank(before: np.ndarray, after: np.ndarray) -> int | None:
    """The rank of the difference, None where its A and B would be no smaller than the kernel."""
    left, values, right = _singular(before, after)
    rank = max(int(np.sum(values > _TOLERANCE * np.linalg.norm(after))), 1)
    return rank if rank * (len(left) + right.shape[1]) < after.size else None


def _singular(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    difference = after.astype(np.float64) - before.astype(np.float64)
    left, values, right = np.linalg.svd(difference.reshape(-1, difference.shape[-1]), full_matrices=False)
    return left, values, right
