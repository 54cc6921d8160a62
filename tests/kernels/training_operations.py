"""Random backward operations, mostly such that the dsp backend has kernels for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from cases import random_int8
from layer_cases import MASTER_STYLES, Case, gradient, lora_operations, masters, tensor
from random_operations import conv_2d, dense, random_values, random_window
from update_cases import update_by

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import BlockFloat, Value
from tinypeft.ops.output_logits import exponent_for, logits_tensor
from tinypeft.ops.window import Window


def _size(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high))


def _channels(rng: np.random.Generator, step: int = 2) -> int:
    return step * int(rng.choice([1, 2, 3, 4, 5, 8, 16, 20]))


def _filters(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of every size, or all at the ends of their range."""
    if rng.random() < 0.3:
        return rng.choice(np.array([-127, 127], np.int8), shape)
    return random_int8(rng, shape).clip(-127, 127)


def conv_window(rng: np.random.Generator) -> Window:
    """1x1 windows half of the time, of the rows of a LoRA now and then; else any kernel and stride."""
    h, w, input_c, output_c = _size(rng, 2, 8), _size(rng, 2, 8), _channels(rng), _channels(rng)
    if rng.random() < 0.2:
        h, w, input_c = _size(rng, 1, 8), _size(rng, 1, 8), int(rng.choice([input_c, input_c, 600, 1400]))
        return Window(h, w, input_c, h, w, int(rng.choice([2, 4])), 1, 1)
    output_c = _size(rng, 1, 9) if rng.random() < 0.4 else output_c
    if rng.random() < 0.5:
        return Window(h, w, input_c, h, w, output_c, 1, 1)
    kernel, stride = (_size(rng, 1, 4), _size(rng, 1, 4)), (_size(rng, 1, 3), _size(rng, 1, 3))
    pads = {"pad_top": (kernel[0] - 1) // 2, "pad_left": kernel[1] // 2}
    size = -(-h // stride[0]), -(-w // stride[1])
    return Window(h, w, input_c, size[0], size[1], output_c, *kernel, *stride, **pads)


def conv_backward_input(rng: np.random.Generator, name: str) -> Case:
    """Constant or trained filters, with an addend of any exponent, wide enough to narrow mantissas now and then."""
    window = conv_window(rng)
    if rng.random() < 0.1:
        window = Window(2, 3, 2, 2, 3, 1000, 1, 1)
    data = _filters(rng, (window.output_c, window.kernel_h, window.kernel_w, window.input_c))
    d_acc = tensor(f"{name}_d_acc", window.output_shape, "bfp16")
    d_input = tensor(f"{name}_d_input", window.input_shape, "bfp16")
    inputs = {"d_acc": d_acc, "filter": tensor("w", data.shape, "int8", Purpose.FROZEN_WEIGHT, data=data)}
    values: dict[str, Value] = {"d_acc": gradient(rng, d_acc.shape), "filter": data}
    if rng.random() < 0.4:
        inputs["filter"] = tensor("w", data.shape, "int8", Purpose.ADAPTER_WEIGHT)
        inputs["l1"] = tensor("l1", (1,), "int32")
        norm = np.abs(data.astype(int)).reshape(-1, data.shape[-1]).sum(0).max()
        values["l1"] = np.array([norm], np.int32)
    if rng.random() < 0.5:
        inputs["addend"] = tensor("addend", d_input.shape, "bfp16")
        values["addend"] = gradient(rng, d_input.shape)
    return Operation(OPS["CONV_2D_BACKWARD_INPUT"], name, inputs, {"d_input": d_input}, {"window": window}), values


def depthwise_backward_input(rng: np.random.Generator, name: str) -> Case:
    """3x3 of strides 1 to 3, images higher than a band, wider than what is written without a loop; filters of any norm.

    A row of results may lie farther from the one above than an offset reaches.
    """
    h, w, c = _size(rng, 1, 12), _size(rng, 1, 20), _channels(rng)
    if rng.random() < 0.3:
        h, w, c = ((40, 33, 2), (2, 12, 256), (2, 13, 600), (3, 5, 1024), (3, 40, 1024))[int(rng.integers(5))]
    stride = ((1, 1), (2, 2), (_size(rng, 1, 4), _size(rng, 1, 4)))[int(rng.choice(3, p=(0.4, 0.3, 0.3)))]
    same = rng.random() < 0.6
    size = [(n - 1) // s + 1 if same else max(1, (n - 1) // s) for n, s in zip((h, w), stride, strict=True)]
    top, left = (1, 1) if same and rng.random() < 0.6 else (_size(rng, 0, 3), _size(rng, 0, 3))
    window = Window(h, w, c, size[0], size[1], c, 3, 3, *stride, pad_top=top, pad_left=left)
    data = _filters(rng, (1, 3, 3, c))
    if rng.random() < 0.4:
        data = np.where(rng.random(data.shape) < 0.2, data // int(rng.choice([1, 2, 20, 127])), 0).astype(np.int8)
    d_acc = tensor(f"{name}_d_acc", window.output_shape, "bfp16")
    inputs = {"d_acc": d_acc, "filter": tensor("w", data.shape, "int8", Purpose.FROZEN_WEIGHT, data=data)}
    outputs = {"d_input": tensor(f"{name}_d_input", window.input_shape, "bfp16")}
    op = Operation(OPS["DEPTHWISE_CONV_2D_BACKWARD_INPUT"], name, inputs, outputs, {"window": window})
    return op, {"d_acc": gradient(rng, d_acc.shape), "filter": data}


def _clamp(rng: np.random.Generator) -> tuple[int, int]:
    low, high = sorted(int(n) for n in rng.choice(np.arange(-128, 128), 2, replace=False))
    return (-128, 127) if rng.random() < 0.3 else (low, high)


def requantize_backward(rng: np.random.Generator, name: str) -> Case:
    """The clamp from outputs or from a mask; scales of channels, or none."""
    shape, (low, high) = (1, _size(rng, 1, 6), _size(rng, 1, 6), _channels(rng, 4)), _clamp(rng)
    inputs, attributes = {"d_output": tensor("d", shape, "bfp16")}, dict[str, Any](clamp=(low, high))
    values: dict[str, Value] = {"d_output": gradient(rng, shape)}
    output = random_int8(rng, shape)
    if rng.random() < 0.5:
        inputs["output"], values["output"] = tensor("y", shape, "int8"), output
    else:
        inputs["mask"] = tensor("m", shape, "bits")
        values["mask"] = np.packbits(((output > low) & (output < high)).reshape(-1), bitorder="little")
    if rng.random() < 0.6:
        attributes["channel_scale"] = np.exp(rng.uniform(-12, 2, shape[-1])).astype(np.float32)
    outputs = {"d_acc": tensor("d_acc", shape, "bfp16")}
    return Operation(OPS["REQUANTIZE_BACKWARD"], name, inputs, outputs, attributes), values


def clamp_mask(rng: np.random.Generator, name: str) -> Case:
    """Every pair of limits."""
    shape = (1, _size(rng, 1, 6), _size(rng, 1, 6), 8 * _size(rng, 1, 5))
    inputs, outputs = {"output": tensor("y", shape, "int8")}, {"mask": tensor("m", shape, "bits")}
    op = Operation(OPS["CLAMP_MASK"], name, inputs, outputs, {"clamp": _clamp(rng)})
    return op, {"output": random_int8(rng, shape)}


def lora_backward_hidden(rng: np.random.Generator, name: str) -> Case:
    """Shifts next to each other, and so far apart that mantissas vanish; rows of B that are all zeros."""
    rank, positions = int(rng.choice([1, 2, 4, 4, 7, 8])), _size(rng, 1, 20)
    channels = 2000 if rng.random() < 0.1 else _channels(rng)
    lora_b = _filters(rng, (channels, rank)) * (rng.random((channels, 1)) < 0.8)
    spread = int(rng.choice([1, 3, 10, 17, 48]))
    shifts = rng.integers(-24, 25 - spread) + rng.integers(0, spread + 1, channels)
    d_acc = tensor(f"{name}_d", (1, positions, 1, channels), "bfp16")
    every: dict[str, tuple[Tensor, Any]] = {
        "d_acc": (d_acc, gradient(rng, d_acc.shape)),
        "lora_B": (tensor("b", lora_b.shape, "int8"), lora_b.astype(np.int8)),
        "lora_shift": (tensor("k", (channels,), "int8"), shifts.clip(-24, 24).astype(np.int8)),
        "hidden_shift": (tensor("h", (1,), "int8"), rng.integers(0, 18, 1).astype(np.int8)),
        "l1": (tensor("n", (2,), "int32"), np.array([1, np.abs(lora_b.astype(int)).sum(0).max()], np.int32)),
    }
    outputs = {"d_hidden": tensor("d", (1, positions, 1, rank), "bfp16")}
    op = Operation(OPS["LORA_BACKWARD_HIDDEN"], name, {n: t for n, (t, _) in every.items()}, outputs)
    return op, {n: value for n, (_, value) in every.items()}


def _hidden(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of every size; so small that int32 holds all sums; all at the ends of their range."""
    style = rng.random()
    if style < 0.4:
        return rng.integers(-200, 201, shape).astype(np.int16)
    if style < 0.5:
        return rng.choice(np.array([-32767, 32767], np.int16), shape)
    return rng.integers(-32767, 32768, shape).astype(np.int16)


def _producer(rng: np.random.Generator, name: str, kind: str) -> tuple[Operation, dict[str, Value]]:
    """The gradient of B or of a filter, with the tensors that UPDATE_ROWS takes over."""
    positions = _size(rng, 130, 600) if rng.random() < 0.2 else _size(rng, 1, 150)
    channels = int(rng.choice([1, _channels(rng), _size(rng, 1, 70)], p=[0.05, 0.65, 0.3]))
    inner = _channels(rng, int(rng.choice([2, 6])))
    if kind == "LORA_BACKWARD_B":
        inner, shape, dtype = _size(rng, 1, 10), (positions, 1), "int16"
        if rng.random() < 0.2:  # about as many as the offset of a load reaches
            channels = int(rng.choice([256, _size(rng, 200, 1200)]))
            positions = _size(rng, 1, 14)
            shape = positions, 1
        master: tuple[int, ...] = (channels, inner)
        attributes: dict[str, Any] = {}
        source = _hidden(rng, (1, *shape, inner))
    elif rng.random() < 0.5:
        shape, dtype, master = (1, positions), "int8", (channels, 1, 1, inner)
        attributes = {"window": Window(*shape, inner, *shape, channels, 1, 1)}
        source = random_int8(rng, (1, *shape, inner))
    else:
        window, dtype = random_window(rng, _size(rng, 1, 6), channels), "int8"
        if rng.random() < 0.3:  # more rows, and more columns, than are held at a time
            h, w = _size(rng, 20, 60), _size(rng, 1, 40)
            size = {"output_h": -(-h // window.stride_h), "output_w": -(-w // window.stride_w)}
            window = replace(window, input_h=h, input_w=w, **size)
        shape, attributes = (window.output_h, window.output_w), {"window": window}
        master = (channels, window.kernel_h, window.kernel_w, window.input_c)
        source = random_int8(rng, window.input_shape)
    inputs = {"d_output": tensor(f"{name}_d", (1, *shape, channels), "bfp16")}
    inputs["source"] = tensor(f"{name}_s", source.shape, dtype)
    inputs["source"].zero_point = _size(rng, -128, 128) if dtype == "int8" else 0
    values: dict[str, Value] = {"d_output": gradient(rng, inputs["d_output"].shape), "source": source}
    if dtype == "int8" and rng.random() < 0.2:  # the largest sums, which int32 may not hold
        inputs["source"].zero_point = int(rng.choice([-128, 127]))
        values["source"] = np.full_like(source, -1 - inputs["source"].zero_point)
        mantissa = np.full(inputs["d_output"].shape, 32767, np.int16) * rng.choice([1, -1, 0], channels)
        values["d_output"] = BlockFloat(mantissa.astype(np.int16), -20)
    gradient_of = tensor(f"{name}_g", master, "bfp32")
    return Operation(OPS[kind], f"{name}_gradient", inputs, {"gradient": gradient_of}, attributes), values


def update_rows(rng: np.random.Generator, name: str) -> Case:
    """Every optimiser by the gradients of a LoRA's B and of filters; rows of zeros too."""
    kind = str(rng.choice(["LORA_BACKWARD_B", "CONV_2D_BACKWARD_FILTER"]))
    return update_by(rng, name, *_producer(rng, name, kind))


def _empty_channels(rng: np.random.Generator, layer: Operation) -> None:
    """Some channels lose their weights, as training that drives them there leaves them: tiny scales, huge biases."""
    filters, bias = layer.inputs["filter"], layer.inputs["bias"]
    assert filters.data is not None and filters.scale is not None and bias.data is not None
    chosen = np.flatnonzero(rng.random(len(filters.data)) < rng.choice([0.2, 0.8]))
    filters.data[chosen] = 0
    filters.scale = np.broadcast_to(filters.scale, (len(filters.data),)).copy()
    huge = rng.random(len(chosen)) < 0.7
    bias.data[chosen] = np.where(huge, rng.choice([-1, 1], len(chosen)) * ((1 << 30) - rng.integers(0, 3)), 100)
    tiny = filters.scale[chosen] * 2.0 ** -rng.integers(14, 34, len(chosen))
    filters.scale[chosen] = np.where(huge, np.maximum(tiny, 1e-36), filters.scale[chosen])


def lora_layer(rng: np.random.Generator, name: str) -> dict[str, Case]:
    """CONV_2D with a LoRA of any rank and size, as its quantiser leaves it, and the LORA_DOWN in front of it."""
    if rng.random() < 0.5:
        h, w = _size(rng, 1, 7), _size(rng, 1, 7)
        window = Window(h, w, _channels(rng), h, w, _size(rng, 1, 40), 1, 1)
    else:
        window = random_window(rng, _size(rng, 1, 9), _size(rng, 1, 20))
    return _with_lora(rng, conv_2d(rng, window), name)


def _with_lora(rng: np.random.Generator, base: Operation, name: str) -> dict[str, Case]:
    """The layer `base` with a LoRA of any rank, and the LORA_DOWN in front of it."""
    base.name = name
    if rng.random() < 0.3 and "bias" in base.inputs:
        _empty_channels(rng, base)
    made = lora_operations(base, int(rng.choice([1, 2, 3, 4, 4, 5, 8])), float(rng.choice([1.0, 8.0, 1e-3, 1e6])))
    quantize, values = made["LORA_QUANTIZE"], random_values(rng, base)
    for operand, operand_tensor in quantize.inputs.items():
        values[operand] = masters(rng, operand_tensor.shape, str(rng.choice(MASTER_STYLES)), 0.1)
    values |= quantize.op.evaluate(quantize, values)
    if rng.random() < 0.2:  # the largest hidden values that A allows, at one position
        values["input"] = np.full_like(values["input"], rng.choice([-128, 127]))
    down = made["LORA_DOWN"]
    values |= down.op.evaluate(down, values)
    return {kind: (made[kind], {n: values[n] for n in made[kind].inputs}) for kind in ("LORA_DOWN", "layer")}


def lora_down(rng: np.random.Generator, name: str) -> Case:
    """LORA_DOWN of such a layer."""
    return lora_layer(rng, name)["LORA_DOWN"]


def any_adapter(rng: np.random.Generator, name: str) -> dict[str, Case]:
    """The same with integers that no quantiser leaves but a package may hold: the ends of int8, shifts of any size."""
    return _any_integers(rng, lora_layer(rng, name))


def _any_integers(rng: np.random.Generator, made: dict[str, Case]) -> dict[str, Case]:
    layer, values = made["layer"]
    rank = values["lora_B"].shape[-1]
    values["hidden"] = rng.integers(-32768, 32768, values["hidden"].shape).astype(np.int16) >> rng.integers(0, 12)
    values["lora_B"] = random_int8(rng, values["lora_B"].shape)
    values["lora_B"][rng.random(len(values["lora_B"])) < 0.2] = 0
    values["lora_B"][rng.random(values["lora_B"].shape) < 0.1] = -128
    reach = int(np.abs(values["hidden"].astype(int)).max()) * 128 * rank
    least = max(reach.bit_length() - 29, -8)  # so that accumulators stay inside int32
    most = int(rng.choice([least + 1, least + 6, max(17, least + 1), 40]))
    values["lora_shift"] = rng.integers(least, most, values["lora_shift"].shape).astype(np.int8)
    down, inputs = made["LORA_DOWN"]
    inputs["lora_A"][rng.random(inputs["lora_A"].shape) < rng.choice([0.0, 0.1])] = -128
    inputs["hidden_shift"] = rng.integers(0, 20, (1,)).astype(np.int8)
    return {"LORA_DOWN": (down, inputs), "layer": (layer, values)}


def dense_with_lora(rng: np.random.Generator, name: str) -> dict[str, Case]:
    """FULLY_CONNECTED of one row or a few with a LoRA, and the LORA_DOWN in front of it."""
    return _with_lora(rng, dense(rng), name)


def any_dense_adapter(rng: np.random.Generator, name: str) -> dict[str, Case]:
    """The same with integers that no quantiser leaves."""
    return _any_integers(rng, dense_with_lora(rng, name))


def logits(rng: np.random.Generator, name: str) -> Case:
    """DENSE_LOGITS of a constant filter, perhaps with a LoRA; logits of any exponent."""
    layer, values = _with_lora(rng, dense(rng, rows=1), name)["layer"]
    adapter = ("hidden", "lora_B", "lora_shift") if rng.random() < 0.5 else ()
    inputs = {n: t for n, t in layer.inputs.items() if n in ("input", "filter", "bias", *adapter)}
    exponent = exponent_for(layer.output) + int(rng.choice([-40, -4, 0, 0, 0, 8, 30]))
    result = {"logits": logits_tensor((1, layer.output.shape[-1]), exponent)}
    return Operation(OPS["DENSE_LOGITS"], name, inputs, result), {n: values[n] for n in inputs}


def trained_dense(rng: np.random.Generator, name: str) -> dict[str, Case]:
    """FULLY_CONNECTED and DENSE_LOGITS of a filter in RAM with multipliers of its own, of which some go left."""
    base = dense(rng, rows=1 if rng.random() < 0.7 else _size(rng, 1, 5))
    values = random_values(rng, base)
    channels, one = base.output.shape[-1], base.output.size == base.output.shape[-1]
    given: dict[str, tuple[str, np.ndarray]] = {
        "filter": ("int8", values["filter"]),
        "multiplier": ("int32", rng.integers(1 << 30, 1 << 31, channels).astype(np.int32)),
        "shift": ("int8", rng.integers(-31, int(rng.choice([-1, -1, 30])), channels).astype(np.int8)),
        "bias": ("int32", rng.integers(-(1 << 20), 1 << 20, channels).astype(np.int32)),
        "scale": ("float32", np.exp(rng.uniform(-20, 4, channels)).astype(np.float32)),
    }
    if rng.random() < 0.3:
        del given["bias"]
    held = {n: tensor(f"{name}_{n}", data.shape, dtype) for n, (dtype, data) in given.items()}
    held["filter"].scale = base.inputs["filter"].scale
    if rng.random() < 0.3:  # the bias then holds the zero point
        held["filter"].purpose = Purpose.MERGED_WEIGHT
        if "bias" not in held:
            held["bias"], given["bias"] = (
                tensor(f"{name}_bias", (channels,), "int32"),
                ("int32", np.zeros(channels, np.int32)),
            )
    values = {"input": values["input"], **{n: data for n, (_, data) in given.items()}}
    inputs = {"input": base.inputs["input"], **held}
    of_layer = {n: t for n, t in inputs.items() if n != "scale"}
    made = {"layer": Operation(base.op, f"{name}_layer", of_layer, dict(base.outputs), dict(base.attributes))}
    if one:
        of_logits = {n: t for n, t in inputs.items() if n not in ("multiplier", "shift")}
        result = {"logits": logits_tensor((1, channels), exponent_for(base.output))}
        made["logits"] = Operation(OPS["DENSE_LOGITS"], f"{name}_logits", of_logits, result)
    return {kind: (op, {n: values[n] for n in op.inputs}) for kind, op in made.items()}
