"""An adapter of PEFT's form into the float32 masters of a compiled model, whose targets must be the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinypeft.adapter_modules import Module, modules_of, peft_type
from tinypeft.adapters import Parameter
from tinypeft.adapters.lora_options import layer_scaling
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError
from tinypeft.exchange.peft_files import PeftAdapter
from tinypeft.exchange.peft_merge import match_layers
from tinypeft.ir import Operation
from tinypeft.ops.weighted import filter_scales, input_scale, layer_bias

_HINT = "generate the project with the adapter's configuration"
#: steps of the accumulator by which a bias may differ that is the base's before it was quantised
_BIAS_STEPS = 0.51


def masters_from_peft(
    model: CompiledModel, adapter: PeftAdapter, mapping: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Master's name -> float32 values, for every parameter of `model`.

    `mapping`: module of the adapter -> layer, for those whose names do not tell. A LoRA of another scaling has its B
    scaled so that it does the same, one of a smaller rank gets zeros. AdapterError: modules, tensors or shapes that are
    not the project's, ranks above it, or an IA3 that scales inputs.
    """
    config = adapter.config
    if config.peft_type != peft_type(model):
        raise AdapterError(f"the adapter is a {config.peft_type}, the project's adapters are {peft_type(model)}", _HINT)
    modules = {module.name: module for module in modules_of(model)}
    layers = {op.layer: op for op in model.base.operations if "filter" in op.inputs}
    masters: dict[str, np.ndarray] = {}
    given = match_layers(adapter, list(dict.fromkeys([*modules, *layers])), mapping)
    for path, name in given.items():
        tensors = dict(adapter.tensors[path])
        if "ia3_l" in tensors and config.is_feedforward(path):
            raise AdapterError(
                f"the adapter's IA3 scales the inputs of {path}, tinypeft scales outputs",
                "train it with feedforward_modules=[]",
            )
        module = modules.get(name, Module(name, layers.get(name), ()))
        _drop_base_bias(tensors, module)
        if not tensors:
            continue
        _check_names(path, tensors, module)
        for tensor, parameter in module.tensors().items():
            values = tensors[tensor]
            if tensor == "lora_B":
                values = _scaled(values, config.scaling(path), layer_scaling(model.adapter, parameter.layer))
            masters[parameter.master.name] = _fitted(path, tensor, values, parameter)
    untold = {p.name for p in model.parameters if p.master.name not in masters}
    if missing := [m.name for m in modules.values() if any(p.name in untold for p in m.parameters.values())]:
        raise AdapterError(
            f"the project trains {', '.join(missing)}, for which the adapter has nothing; it has {', '.join(given)}",
            _HINT,
        )
    return masters


def _scaled(lora_B: np.ndarray, given: float, wanted: float) -> np.ndarray:
    return lora_B if given == wanted else (lora_B.astype(np.float64) * (given / wanted)).astype(np.float32)


def _drop_base_bias(tensors: dict[str, np.ndarray], module: Module) -> None:
    """PEFT's bias "all" holds every bias: one that is the base's trains nothing where the project does not either."""
    if "bias" not in tensors or "bias" in module.tensors() or module.operation is None:
        return
    op: Operation = module.operation
    unit = input_scale(op).astype(np.float64) * filter_scales(op).astype(np.float64)
    same = tensors["bias"].shape == unit.shape
    if same and (np.abs(tensors["bias"] - layer_bias(op) * unit) <= _BIAS_STEPS * unit).all():
        del tensors["bias"]


def _check_names(path: str, tensors: Mapping[str, np.ndarray], module: Module) -> None:
    wanted = module.tensors()
    if tensors.keys() == wanted.keys():
        return
    trained = ", ".join(sorted(wanted)) or "nothing"
    raise AdapterError(
        f"the adapter's module {path} has {', '.join(sorted(tensors))}; the project trains {trained} of {module.name}",
        _HINT,
    )


def _fitted(path: str, tensor: str, values: np.ndarray, parameter: Parameter) -> np.ndarray:
    """The master of a tensor; AdapterError for another rank or shape."""
    expected = parameter.to_peft(np.zeros(parameter.master.shape, np.float32)).shape
    if tensor in ("lora_A", "lora_B"):
        axis = 0 if tensor == "lora_A" else 1
        given, rank = (shape[axis] for shape in (values.shape, expected))
        if given > rank:
            raise AdapterError(
                f"the adapter's {path} has rank {given}, the project's rank {rank}",
                f"generate the project with --r {given}, or --rank-pattern {parameter.layer}={given}",
            )
        values = np.pad(values, [(0, rank - given if i == axis else 0) for i in range(values.ndim)])
    if values.ndim == 3 and len(expected) == 4:  # a convolution over time
        values = values[:, :, None, :]
    if values.shape != expected and values.size == np.prod(expected) and tensor == "ia3_l":
        values = values.reshape(expected)
    if values.shape != expected:
        raise AdapterError(
            f"the adapter's {tensor} of {path} has the shape {values.shape}, the project takes {expected}", _HINT
        )
    return np.ascontiguousarray(parameter.from_peft(values), np.float32)
