"""Random operations, with values, of adapters and of layers' gradients: LoRA, retrained dense, convolutions back."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import random_int8
from kernel_harness import block_float
from weighted_cases import WEIGHTED_CASES, constants

from tinypeft.arithmetic import accumulator_shift
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import BlockFloat, Value
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.output_logits import exponent_for, logits_tensor
from tinypeft.ops.weighted import accumulator_bound, filter_scales, input_range, input_scale, multipliers
from tinypeft.ops.window import Window

Case = tuple[Operation, dict[str, Value]]
PEAKS = (0, 1, 2, 3, 100, 16384, 32766, 32767)
MASTER_STYLES = ("normal", "rows apart", "zero", "tiny", "huge", "not finite", "one element")


#: learning rates, of which some overflow
RATES = (0.0, 1e-4, 0.02, 1e3, 1e30, np.inf)


def tensor(
    name: str, shape: tuple[int, ...], dtype: str, purpose: Purpose = Purpose.ACTIVATION, **fields: Any
) -> Tensor:
    """A tensor without quantisation unless told."""
    return Tensor(name, shape, dtype, purpose, **fields)


def gradient(rng: np.random.Generator, shape: tuple[int, ...]) -> BlockFloat:
    """A random gradient, zero and the extreme peaks more often; one in four has few elements that are not zero."""
    result = block_float(rng, shape, int(rng.choice(PEAKS)), int(rng.integers(-60, 10)))
    if rng.random() < 0.25:
        return BlockFloat((result.mantissa * (rng.random(shape) < 0.2)).astype(np.int16), result.exponent)
    if rng.random() < 0.15:  # every product adds up
        return BlockFloat(np.full(shape, result.peak * rng.choice([-1, 1]), np.int16), result.exponent)
    return result


def masters(rng: np.random.Generator, shape: tuple[int, ...], style: str, scale: float = 0.1) -> np.ndarray:
    """float32 masters, (channels, ...)."""
    values = rng.normal(0, scale, shape)
    if style == "rows apart":
        values *= np.exp(rng.uniform(-14, 4, (shape[0], *[1] * (len(shape) - 1))))
    elif style == "zero":
        values *= 0
    elif style == "tiny":
        values *= 10.0 ** rng.integers(-44, -5)
    elif style == "huge":
        values *= 10.0 ** rng.integers(3, 38)
    elif style == "one element":
        values *= np.arange(values.size).reshape(shape) == rng.integers(values.size)
    values = np.clip(values, -3e38, 3e38).astype(np.float32)
    if style == "not finite":
        specials = np.array([np.nan, -np.nan, np.inf, -np.inf, 3e38, 1e-45], np.float32)
        values = np.where(rng.random(shape) < 0.3, rng.choice(specials, shape), values)
    return values


def lora_operations(base: Operation, rank: int, alpha: float = 8.0, bits: int = 8) -> dict[str, Operation]:
    """LORA_QUANTIZE, LORA_RESTORE, LORA_DOWN and the layer `base` with the addend; they share their tensors.

    With 4 `bits` the former two are those of packed A and B, and two UNPACK_INT4 come between.
    """
    window: Window = base.attributes.get("window") or dense_window(base)
    down = Window(**{**window.fields(), "output_c": rank})
    a_shape = (rank, *base.inputs["filter"].shape[1:-1], window.input_c)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "master_A": (a_shape, "float32"), "master_B": ((window.output_c, rank), "float32"), "lora_A": (a_shape, "int8"),
        "hidden_shift": ((1,), "int8"), "lora_B": ((window.output_c, rank), "int8"), "l1": ((2,), "int32"),
        "lora_shift": ((window.output_c,), "int8"), "a_scale": ((1,), "float32"), "gradient_unit": ((2,), "float32"),
    }  # fmt: skip
    t = {name: tensor(f"{base.name}_{name}", *shape) for name, shape in shapes.items()}
    t["hidden"] = tensor(f"{base.name}_hidden", down.output_shape, "int16")
    suffix, unpacked = "", dict(t)
    if bits == 4:
        suffix = "_INT4"
        for name, short in (("lora_A", "a_multiplier"), ("lora_B", "b_multiplier")):
            t[name] = tensor(f"{base.name}_{name}_packed", t[name].shape, "int4")
            t[short] = tensor(f"{base.name}_{short}", t[name].shape[:1], "int8")
    attributes = {
        "input_range": input_range(base.inputs["input"]),
        "acc_bound": accumulator_bound(base),
        "b_unit": (np.float32(alpha / rank) / filter_scales(base)).astype(np.float32),
    }
    made = {}
    for kind in (f"LORA_QUANTIZE{suffix}", f"LORA_RESTORE{suffix}"):
        op = OPS[kind]
        inputs, outputs = {n: t[n] for n in op.operands}, {n: t[n] for n in op.results}
        made[kind] = Operation(op, f"{base.name}_{kind.lower()}", inputs, outputs, attributes)
    for name, short in (("lora_A", "a_multiplier"), ("lora_B", "b_multiplier")) if bits == 4 else ():
        operands = {"packed": t[name], "multiplier": t[short]}
        made[f"UNPACK_INT4 {name}"] = Operation(
            OPS["UNPACK_INT4"], f"{base.name}_{name}_unpack", operands, {"output": unpacked[name]}
        )
    t = unpacked
    operands = {"input": base.inputs["input"], "lora_A": t["lora_A"], "hidden_shift": t["hidden_shift"]}
    made["LORA_DOWN"] = Operation(
        OPS["LORA_DOWN"], f"{base.name}_down", operands, {"hidden": t["hidden"]}, {"window": down}
    )
    inputs = base.inputs | {"hidden": t["hidden"], "lora_B": t["lora_B"], "lora_shift": t["lora_shift"]}
    made["layer"] = Operation(base.op, f"{base.name}_layer", inputs, dict(base.outputs), dict(base.attributes))
    return made


def lora_case(rng: np.random.Generator, name: str, kind: str) -> dict[str, Case]:
    """The operations of a LoRA on a random layer of `kind`, each with the values that the one before it gives."""
    node = WEIGHTED_CASES[kind](rng)
    base = node.operation(name)
    alpha = float(rng.choice([8.0, 1e-3, 1e6]))
    made = lora_operations(base, int(rng.integers(1, 7)), alpha)
    quantize = made["LORA_QUANTIZE"]
    styles = rng.choice(MASTER_STYLES, 2, p=[0.4, 0.2, 0.08, 0.08, 0.08, 0.08, 0.08])
    values = {
        n: masters(rng, quantize.inputs[n].shape, s) for n, s in zip(("master_A", "master_B"), styles, strict=True)
    }
    values |= quantize.op.evaluate(quantize, values)
    values |= {"input": random_int8(rng, base.inputs["input"].shape), **constants(node)}
    if rng.random() < 0.3:  # the largest hidden values that A allows, at one position
        values["input"] = np.full_like(values["input"], rng.choice([-128, 127]))
    down = made["LORA_DOWN"]
    values |= down.op.evaluate(down, values)
    return {kind: (op, {n: values[n] for n in op.inputs}) for kind, op in made.items()}


def lora_int4_case(rng: np.random.Generator, name: str, kind: str) -> dict[str, Case]:
    """The same of a LoRA in 4 bits, up to the int8 of A."""
    base = WEIGHTED_CASES[kind](rng).operation(name)
    made = lora_operations(base, int(rng.integers(1, 7)), float(rng.choice([8.0, 1e-3, 1e6])), bits=4)
    values: dict[str, Value] = {
        n: masters(rng, t.shape, str(rng.choice(MASTER_STYLES))) for n, t in made["LORA_QUANTIZE_INT4"].inputs.items()
    }
    cases: dict[str, Case] = {}
    for step in ("LORA_QUANTIZE_INT4", "LORA_RESTORE_INT4", "UNPACK_INT4 lora_A"):
        op = made[step]
        if step.startswith("UNPACK"):
            values |= {"packed": values["lora_A"], "multiplier": values["a_multiplier"]}
        cases[step] = op, {n: values[n] for n in op.inputs}
        with np.errstate(over="ignore", invalid="ignore"):
            values = op.op.evaluate(op, values) | values  # what is restored does not replace where it came from
    return cases


def lora_merge_case(rng: np.random.Generator, name: str) -> Case:
    """LORA_MERGE: shifts of all that quantisers give, and beyond: now and then all is clamped, or nothing is left."""
    rank, channels, fan_in, reach = (int(rng.integers(1, most)) for most in (7, 9, 30, 120))
    shifts = rng.integers(-24, 25, channels) if rng.random() < 0.5 else rng.integers(2, 9, channels)
    every: dict[str, tuple[Tensor, Value]] = {
        "filter": (tensor("f", (channels, fan_in), "int8"), random_int8(rng, (channels, fan_in))),
        "lora_A": (tensor("a", (rank, fan_in), "int8"), random_int8(rng, (rank, fan_in))),
        "hidden_shift": (tensor("h", (1,), "int8"), rng.integers(-2, reach, 1).astype(np.int8)),
        "lora_B": (tensor("b", (channels, rank), "int8"), random_int8(rng, (channels, rank))),
        "lora_shift": (tensor("s", (channels,), "int8"), shifts.astype(np.int8)),
    }
    outputs = {"merged_filter": tensor(f"{name}_filter", (channels, fan_in), "int8")}
    attributes: dict[str, Any] = {"zero_point": int(rng.integers(-128, 128))}
    bias = rng.integers(-(1 << 30), 1 << 30, channels).astype(np.int32)
    if direct := rng.random() < 0.6:
        outputs["merged_bias"] = tensor(f"{name}_bias", (channels,), "int32")
    if direct and rng.random() < 0.5:
        every["bias"] = tensor("bias", (channels,), "int32"), bias
    elif direct:
        attributes["bias"] = bias
    inputs, values = ({n: pair[i] for n, pair in every.items()} for i in (0, 1))
    return Operation(OPS["LORA_MERGE"], name, inputs, outputs, attributes), values


def lora_backward(rng: np.random.Generator, name: str) -> Case:
    """LORA_BACKWARD_HIDDEN; now and then wide, so that mantissas are narrowed."""
    rank, positions = int(rng.integers(1, 7)), int(rng.integers(1, 12))
    channels = int(rng.choice([1, 3, 10, 2000]))
    lora_b = random_int8(rng, (channels, rank)).clip(-127, 127)
    shifts = rng.integers(-24, 25, channels) if rng.random() < 0.5 else rng.integers(5, 8, channels)
    d_acc = tensor(f"{name}_d", (1, positions, 1, channels), "bfp16")
    every: dict[str, tuple[Tensor, Value]] = {
        "d_acc": (d_acc, gradient(rng, d_acc.shape)),
        "lora_B": (tensor("b", lora_b.shape, "int8"), lora_b),
        "lora_shift": (tensor("k", (channels,), "int8"), shifts.astype(np.int8)),
        "hidden_shift": (tensor("h", (1,), "int8"), rng.integers(0, 18, 1).astype(np.int8)),
        "l1": (tensor("n", (2,), "int32"), np.array([1, np.abs(lora_b.astype(int)).sum(0).max()], np.int32)),
    }
    result = {"d_hidden": tensor("d", (1, positions, 1, rank), "bfp16")}
    op = Operation(OPS["LORA_BACKWARD_HIDDEN"], name, {n: t for n, (t, _) in every.items()}, result)
    return op, {n: value for n, (_, value) in every.items()}


def retrained_operations(base: Operation) -> dict[str, Operation]:
    """DENSE_QUANTIZE, DENSE_RESTORE, the layer and its logits with the operands that they give."""
    channels, shape = base.inputs["bias"].shape, base.inputs["filter"].shape
    dtypes = {
        "master_filter": "float32", "master_bias": "float32", "logit_range": "int32",
        "filter": "int8", "bias": "int32",
        "multiplier": "int32", "shift": "int8", "output_shift": "int8", "logit_scale": "float32",
        "fold_multiplier": "int16", "fold_exponent": "int32", "row_changed": "int8", "growth": "int8",
    }  # fmt: skip
    extents = dict.fromkeys(dtypes, channels) | {"master_filter": shape, "filter": shape, "logit_range": (2,)}
    extents |= dict.fromkeys(("output_shift", "fold_exponent"), (1,))
    t = {n: tensor(f"{base.name}_{n}", extents[n], dtype) for n, dtype in dtypes.items()}
    t["filter"].scale = filter_scales(base)
    multiplier, shift = multipliers(base)
    attributes = {
        "input_scale": input_scale(base), "output_scale": np.float32(base.output.scale[0]),  # type: ignore[index]
        "output_zero_point": base.output.zero_point, "logit_exponent": exponent_for(base.output),
        "filter_scale": filter_scales(base),
        "base_multiplier": np.broadcast_to(multiplier, channels).copy(),
        "base_shift": np.broadcast_to(shift, channels).copy(),
    }  # fmt: skip
    made = {}
    for kind in ("DENSE_QUANTIZE", "DENSE_RESTORE"):
        op = OPS[kind]
        inputs = {n: t[n] for n in (*op.operands, *op.optional) if n != "source"}
        outputs = {n: t[n] for n in op.results}
        made[kind] = Operation(op, f"{base.name}_{kind.lower()}", inputs, outputs, attributes)
    inputs = {"input": base.inputs["input"], **{n: t[n] for n in ("filter", "bias", "multiplier", "shift")}}
    made["layer"] = Operation(base.op, f"{base.name}_layer", inputs, dict(base.outputs), dict(base.attributes))
    inputs = {"input": base.inputs["input"], "filter": t["filter"], "bias": t["bias"], "scale": t["logit_scale"]}
    logits = logits_tensor((1, channels[0]), exponent_for(base.output))
    made["logits"] = Operation(OPS["DENSE_LOGITS"], f"{base.name}_logits", inputs, {"logits": logits})
    return made


def classifier(rng: np.random.Generator, name: str) -> tuple[Operation, dict[str, Value]]:
    """A linear FULLY_CONNECTED of one row with a bias, as it can be retrained."""
    while True:
        node = WEIGHTED_CASES["FULLY_CONNECTED"](rng)
        node.options.fusedActivationFunction = 0
        rows = int(np.prod(node.inputs[0].shape[:-1]))  # type: ignore[union-attr]
        if node.inputs[2] is not None and rows == 1:
            return node.operation(name), constants(node)


def retrained_case(rng: np.random.Generator, name: str) -> dict[str, Case]:
    """The operations of a random retrained layer, each with the values that the one before it gives."""
    base, _ = classifier(rng, name)
    made = retrained_operations(base)
    quantize = made["DENSE_QUANTIZE"]
    styles = rng.choice(MASTER_STYLES, 2)
    reach = float(base.output.scale[0]) * 300 * 2.0 ** rng.integers(-2, 9)  # type: ignore[index]
    values: dict[str, Value] = {
        n: masters(rng, quantize.inputs[n].shape, s)
        for n, s in zip(("master_filter", "master_bias"), styles, strict=True)
    }
    steps = np.array([-rng.random() * reach, rng.random() * reach]) * 2.0 ** -exponent_for(base.output)
    values["logit_range"] = np.clip(steps, -(1 << 31), (1 << 31) - 1).astype(np.int32)
    values |= _as_before(rng, quantize, values)
    quantized = values | quantize.op.evaluate(quantize, values)
    quantized |= {"input": random_int8(rng, base.inputs["input"].shape), "scale": quantized["logit_scale"]}
    cases = {kind: (op, {n: quantized[n] for n in op.inputs}) for kind, op in made.items()}
    # the outputs are operands of this case too: memory that holds what there was
    inputs = {**quantize.inputs, **quantize.outputs}
    op = Operation(quantize.op, quantize.name, inputs, quantize.outputs, quantize.attributes)
    return cases | {"DENSE_QUANTIZE": (op, {n: values[n] for n in inputs})}


def _as_before(rng: np.random.Generator, quantize: Operation, now: dict[str, Value]) -> dict[str, Value]:
    """What a layer holds that was quantised once and whose masters are `now`: row_changed, and all that it gives."""
    rows = len(now["master_filter"])
    row_changed = rng.integers(0, 3, rows).astype(np.int8)
    scale = np.where(row_changed == 0, 1.0, rng.choice([0.25, 0.9, 1.0, 4.0], rows)).astype(np.float32)
    before = {
        "master_filter": now["master_filter"] * scale.reshape(-1, *[1] * (now["master_filter"].ndim - 1)),
        "master_bias": now["master_bias"] * scale,
        "logit_range": now["logit_range"] if rng.random() < 0.5 else np.zeros(2, np.int32),
        "row_changed": np.ones(rows, np.int8),
        "growth": rng.integers(0, 9, rows).astype(np.int8),
    }
    return quantize.op.evaluate(quantize, before) | {"row_changed": row_changed}


def retrain_case(rng: np.random.Generator, name: str) -> Case:
    """DENSE_RETRAIN of a layer as it was quantised before: what it leaves out must be there; now and then WRITTEN."""
    case = retrained_case(rng, name)
    quantize, before = case["DENSE_QUANTIZE"]
    rows, size = before["master_filter"].shape
    before = before | {"row_changed": np.full(rows, 2, np.int8)}
    before["master_filter"] = np.nan_to_num(before["master_filter"]).clip(-(2.0**20), 2.0**20).astype(np.float32)
    values: dict[str, Value] = before | quantize.op.evaluate(quantize, before)
    x = tensor(f"{name}_x", (1, size), "int8", zero_point=int(rng.integers(-128, 128)))
    source = random_int8(rng, x.shape)
    source[rng.random(x.shape) < rng.choice([0.0, 0.5, 1.0])] = x.zero_point
    values |= {"source": source, "d_output": gradient(rng, (1, rows)), "learning_rate": np.float32(rng.choice(RATES))}
    values["row_changed"] = rng.choice([0, 0, 1, 2], rows).astype(np.int8)
    given = {
        "d_output": tensor(f"{name}_d", (1, rows), "bfp16"), "source": x,
        "learning_rate": Tensor("learning_rate", (), "float32", Purpose.ARGUMENT),
    }  # fmt: skip
    masters = quantize.inputs["master_filter"]
    # the outputs are operands of this case too: memory that holds what there was
    inputs = {**given, **quantize.inputs, **quantize.outputs}
    outputs = {"master_filter": masters, **quantize.outputs}
    attributes = {**quantize.attributes, "scale": np.float32(np.exp(rng.normal(-3, 2)))}
    op = Operation(OPS["DENSE_RETRAIN"], name, inputs, outputs, attributes)
    return op, {n: values[n] for n in inputs}


def logits_case(rng: np.random.Generator, name: str) -> Case:
    """DENSE_LOGITS of a frozen layer, with a LoRA now and then, or of a retrained one."""
    style = rng.integers(3)
    if style == 0:
        return retrained_case(rng, name)["logits"]
    while True:
        layer, values = lora_case(rng, name, "FULLY_CONNECTED")["layer"]
        if layer.inputs["input"].size == layer.inputs["filter"].shape[1]:
            break
    kept = [n for n in layer.inputs if style == 1 or n not in ("hidden", "lora_B", "lora_shift")]
    logits = logits_tensor((1, layer.inputs["filter"].shape[0]), exponent_for(layer.output))
    op = Operation(OPS["DENSE_LOGITS"], name, {n: layer.inputs[n] for n in kept}, {"logits": logits})
    return op, {n: values[n] for n in kept}


def _backward_window(rng: np.random.Generator, kind: str) -> tuple[Window, np.ndarray]:
    """A random layer's window and filter; one in four wide, so that sums need narrowed mantissas."""
    op = WEIGHTED_CASES[kind](rng).operation()
    window: Window = op.attributes["window"]
    if rng.random() > 0.25:
        return window, op.inputs["filter"].data  # type: ignore[return-value]
    if kind == "CONV_2D":
        window = Window(**{**window.fields(), "output_c": 700, "input_c": int(rng.integers(1, 6))})
        shape = (700, window.kernel_h, window.kernel_w, window.input_c)
    else:
        window = Window(3, 2, 2, 3, 2, 1400, 3, 3, pad_top=1, pad_left=1)
        shape = (1, 3, 3, 1400)
    return window, rng.choice(np.array([-127, 127], np.int8), shape)


def conv_backward_input(rng: np.random.Generator, name: str) -> Case:
    """CONV_2D_BACKWARD_INPUT; with an addend, a run-time norm, narrowed mantissas."""
    window, data = _backward_window(rng, "CONV_2D")
    d_acc = tensor(f"{name}_d_acc", window.output_shape, "bfp16")
    d_input = tensor(f"{name}_d_input", window.input_shape, "bfp16")
    inputs = {"d_acc": d_acc, "filter": tensor("w", data.shape, "int8", Purpose.FROZEN_WEIGHT, data=data)}
    values: dict[str, Value] = {"d_acc": gradient(rng, d_acc.shape), "filter": data}
    if rng.random() < 0.3:
        inputs["filter"] = tensor("w", data.shape, "int8", Purpose.ADAPTER_WEIGHT)
        inputs["l1"] = tensor("l1", (1,), "int32")
        norm = np.abs(data.astype(int)).reshape(-1, data.shape[-1]).sum(0).max()
        values["l1"] = np.array([norm], np.int32)
    if rng.random() < 0.4:
        inputs["addend"] = tensor("addend", d_input.shape, "bfp16")
        values["addend"] = gradient(rng, d_input.shape)
    return Operation(OPS["CONV_2D_BACKWARD_INPUT"], name, inputs, {"d_input": d_input}, {"window": window}), values


def depthwise_backward_input(rng: np.random.Generator, name: str) -> Case:
    """DEPTHWISE_CONV_2D_BACKWARD_INPUT; half of them can run in place."""
    window, data = _backward_window(rng, "DEPTHWISE_CONV_2D")
    if rng.random() < 0.5:
        h, w, c, dilation = (
            int(rng.integers(1, 9)),
            int(rng.integers(1, 9)),
            int(rng.integers(1, 6)),
            int(rng.integers(1, 4)),
        )
        kernel = int(rng.integers(1, 5)), int(rng.integers(1, 5))
        pads = {"pad_top": (kernel[0] - 1) * dilation // 2, "pad_left": (kernel[1] - 1) * dilation // 2}
        if rng.random() < 0.3:  # as a folded SPACE_TO_BATCH_ND leaves them
            pads = {name: int(rng.integers(-3, pad + 4)) for name, pad in pads.items()}
        window = Window(h, w, c, h, w, c, *kernel, dilation_h=dilation, dilation_w=dilation, **pads)
        data = random_int8(rng, (1, *kernel, c)).clip(-127, 127)
    d_acc = tensor(f"{name}_d_acc", window.output_shape, "bfp16")
    inputs = {"d_acc": d_acc, "filter": tensor("w", data.shape, "int8", Purpose.FROZEN_WEIGHT, data=data)}
    outputs = {"d_input": tensor(f"{name}_d_input", window.input_shape, "bfp16")}
    op = Operation(OPS["DEPTHWISE_CONV_2D_BACKWARD_INPUT"], name, inputs, outputs, {"window": window})
    return op, {"d_acc": gradient(rng, d_acc.shape), "filter": data}


def transpose_conv_backward_input(rng: np.random.Generator, name: str) -> Case:
    """TRANSPOSE_CONV_BACKWARD_INPUT; one in four wide, so that sums need narrowed mantissas."""
    base = WEIGHTED_CASES["TRANSPOSE_CONV"](rng).operation()
    window, data = base.attributes["window"], base.inputs["filter"].data
    if rng.random() < 0.25:
        window = Window(**{**window.fields(), "input_c": 700})
        data = rng.choice(np.array([-127, 127], np.int8), (700, window.kernel_h, window.kernel_w, window.output_c))
    assert data is not None
    d_acc = tensor(f"{name}_d_acc", window.input_shape, "bfp16")
    inputs = {"d_acc": d_acc, "filter": tensor("w", data.shape, "int8", Purpose.FROZEN_WEIGHT, data=data)}
    outputs = {"d_input": tensor(f"{name}_d_input", window.output_shape, "bfp16")}
    op = Operation(OPS["TRANSPOSE_CONV_BACKWARD_INPUT"], name, inputs, outputs, {"window": window})
    return op, {"d_acc": gradient(rng, d_acc.shape), "filter": data}


def narrows(op: Operation, values: dict[str, Value]) -> bool:
    """Whether the mantissas of a backward operation have to be narrowed before its products."""
    call = op.op.call(op)
    assert call is not None
    l1 = values["l1"][-1] if "l1" in values else call.fields["l1"]
    return accumulator_shift(values["d_acc"].peak, int(l1)) > 0
