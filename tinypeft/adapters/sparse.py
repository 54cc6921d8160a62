"""Sparse update: chosen output channels of a layer are trained, as int8 rows that replace those of the base layer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinypeft.adapters.base import AdapterConfig, AdapterKind, Insertion, MergedLayer, Option, Parameter, register
from tinypeft.errors import AdapterError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.sparse_quantize import BIAS_LIMIT
from tinypeft.ops.weighted import (
    ACCUMULATOR_LIMIT,
    FoldState,
    filter_scales,
    group_count,
    input_range,
    input_scale,
    multipliers,
)
from tinypeft.ops.window import Window

MAX_CHANNELS = 32767
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_DENSITY = Option(
    "density", 0.1, "share of the output channels of each layer that are trained, at least one.", limits=(1e-6, 1.0)
)
_CHANNELS = Option("channels", "", "the channels of named layers, such as conv_1=0,5,7;dense=1, instead of a share.")


@register
class Sparse(AdapterKind):
    """Rows start as exact copies of the base layer's channels: by default of those with the largest L1 norm."""

    name = "sparse"
    summary = "some output channels of convolutions, depthwise ones too, and dense layers, whole"
    options = (_DENSITY, _CHANNELS)
    order = 3
    peft_type = "SPARSE"
    method = 0x0020

    def refuses(self, operation: Operation) -> str | None:
        if operation.kind not in _LAYERS:
            return f"is a {operation.kind}, which has no rows of weights to replace"
        filters, bias, channels = (
            operation.inputs["filter"].data,
            operation.inputs.get("bias"),
            _channel_count(operation),
        )
        assert filters is not None
        fan_in = filters.size // channels
        if 127 * fan_in * input_range(operation.inputs["input"]) > ACCUMULATOR_LIMIT:
            return f"reads {fan_in} inputs an output, more than the int32 accumulators of retrained rows hold"
        numbered = channels if _reads_all(operation) else max(channels, _window(operation).input_c)
        if numbered > MAX_CHANNELS:
            return f"has {numbered} channels, the limit is {MAX_CHANNELS}"
        if filters.min() < -127:
            return "has weights of -128, retrained rows lie within 127"
        largest = 0 if bias is None or bias.data is None else int(np.abs(bias.data.astype(np.int64)).max())
        return f"has a bias of {largest} steps, the limit of rows is {BIAS_LIMIT}" if largest > BIAS_LIMIT else None

    def check(self, targets: Sequence[Operation], config: AdapterConfig) -> None:
        """Raise AdapterError for channels that do not fit."""
        for name, channels in _parse(config.option(_CHANNELS)).items():
            found = [operation for operation in targets if _is_called(operation, name)]
            if len(found) != 1:
                names = list(dict.fromkeys(operation.name for operation in found or targets))
                close = difflib.get_close_matches(name, names, 1)
                raise AdapterError(
                    f"channels names {name}, which is {'several' if found else 'no'} of the layers that sparse adapts",
                    (f"did you mean {close[0]}? " if close else "") + f"candidates: {', '.join(names) or 'none'}",
                )
            count = _channel_count(found[0])
            beyond = [channel for channel in channels if channel >= count]
            if beyond:
                raise AdapterError(
                    f"channels names channel {beyond[0]} of {name}, which has {count}", f"name 0 to {count - 1}"
                )

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        if insertion.after:
            raise AdapterError(
                f"sparse cannot replace channels of {operation.layer} behind a {insertion.after[-1].kind}",
                "give the kinds layers of their own with --targets",
            )
        base, name = insertion.base, operation.name
        channel = trained_channels(base, config)
        window, first_channel = _row_window(base, len(channel)), _first_channel(base, channel)
        count, shape = (len(channel),), _row_shape(base, len(channel))
        master_rows = insertion.state(f"{name}_sparse_rows_master", shape, "float32", Purpose.MASTER)
        master_bias = insertion.state(f"{name}_sparse_bias_master", count, "float32", Purpose.MASTER)
        scales = filter_scales(base)[channel]
        axis = 3 if base.kind == "DEPTHWISE_CONV_2D" else 0
        start: dict[str, Any] = {"channel": channel, "axis": axis, "unit": scales}
        insertion.initialize("INITIALIZE_FROM_CHANNELS", master_rows, {"weights": base.inputs["filter"]}, **start)
        if "bias" in base.inputs:
            start |= {"axis": 0, "unit": input_scale(base) * scales}
            insertion.initialize("INITIALIZE_FROM_CHANNELS", master_bias, {"weights": base.inputs["bias"]}, **start)
        else:  # the converter leaves out a bias of zeros
            insertion.constant(master_bias)

        state = Purpose.OPTIMIZER_STATE
        outputs = {
            "rows": insertion.weight(f"{name}_sparse_rows", shape, "int8"),
            "bias": insertion.weight(f"{name}_sparse_bias", count, "int32"),
            "multiplier": insertion.weight(f"{name}_sparse_multiplier", count, "int32"),
            "shift": insertion.weight(f"{name}_sparse_shift", count, "int8"),
            "scale": insertion.weight(f"{name}_sparse_scale", count, "float32"),
            "fold_multiplier": insertion.state(f"{name}_sparse_fold_multiplier", count, "int16", state),
            "fold_exponent": insertion.state(f"{name}_sparse_fold_exponent", (1,), "int32", state),
            "l1": insertion.state(f"{name}_sparse_l1", (1,), "int32", state),
        }
        multiplier, shift = multipliers(base)
        assert base.output.scale is not None
        attributes = {
            "first_channel": first_channel,
            "input_range": input_range(base.inputs["input"]),
            "input_scale": input_scale(base),
            "output_scale": np.float32(base.output.scale[0]),
            "filter_scale": scales,
            "base_multiplier": multiplier[channel],
            "base_shift": shift[channel],
        }
        masters = {"master_rows": master_rows, "master_bias": master_bias}
        insertion.quantize(operation, ("SPARSE_QUANTIZE", "SPARSE_RESTORE"), masters, outputs, attributes)
        insertion.adapted.parameters += _parameters(operation, insertion, masters, outputs)
        attributes = {
            "window": window,
            "first_channel": first_channel,
            "activation": base.attributes["activation"],
            "rounds_once": base.kind == "FULLY_CONNECTED",
            "fold": FoldState(outputs["fold_multiplier"], outputs["fold_exponent"]),
            "l1": outputs["l1"],
        }
        self._replace_channels(operation, insertion, channel, outputs, attributes)

    @staticmethod
    def _replace_channels(
        operation: Operation,
        insertion: Insertion,
        channel: np.ndarray,
        outputs: dict[str, Tensor],
        attributes: dict[str, Any],
    ) -> None:
        """SPARSE_ROWS in front of the layer, which may then overwrite its input, and REPLACE_CHANNELS behind.

        SPARSE_ROWS alone, instead of the layer, where nothing of that remains and no other kind adapts it.
        """
        inputs = {"input": operation.inputs["input"]}
        inputs |= {operand: outputs[operand] for operand in ("rows", "bias", "multiplier", "shift")}
        alone = not insertion.before and operation.inputs == insertion.base.inputs
        attributes["clamped_behind"] = not alone or len(channel) < _channel_count(operation)
        if not attributes["clamped_behind"]:
            operation.op, operation.inputs, operation.attributes = OPS["SPARSE_ROWS"], inputs, attributes
            return
        given, output = insertion.follow(operation)
        operation.attributes["clamped_behind"] = True
        name, shape = operation.name, attributes["window"].output_shape
        rows = replace(given, name=f"{name}_sparse_output", shape=shape)
        insertion.before.append(
            Operation(OPS["SPARSE_ROWS"], f"{name}_sparse_rows", inputs, {"output": rows}, attributes, operation.layer)
        )
        operands = {"base": given, "rows": rows}
        attributes = {"channel": channel, "activation": attributes["activation"]}
        insertion.after.append(
            Operation(
                OPS["REPLACE_CHANNELS"], f"{name}_channels", operands, {"output": output}, attributes, operation.layer
            )
        )

    def merge(
        self, operation: Operation, config: AdapterConfig, state: dict[str, np.ndarray], layer: MergedLayer
    ) -> None:
        channel = trained_channels(operation, config)
        rows = state[f"{operation.name}_sparse_rows_master"]
        if operation.kind == "DEPTHWISE_CONV_2D":
            layer.filter[..., channel] = rows.transpose(3, 1, 2, 0)
        else:
            layer.filter[channel] = rows
        layer.bias[channel] = state[f"{operation.name}_sparse_bias_master"]


def trained_channels(operation: Operation, config: AdapterConfig) -> np.ndarray:
    """int16 (k,), ascending: the output channels of a base layer that a configuration trains."""
    for name, channels in _parse(config.option(_CHANNELS)).items():
        if _is_called(operation, name):
            return np.array(channels, np.int16)
    return rank_channels(operation, config.option(_DENSITY))


def rank_channels(operation: Operation, density: float, scores: np.ndarray | None = None) -> np.ndarray:
    """int16 (k,), ascending: the share `density` of the channels with the highest of `scores` (Cout,), at least one.

    By default a channel scores the L1 norm of its weights in real units. Of equal channels the first is taken.
    """
    count = _channel_count(operation)
    if scores is None:
        filters = operation.inputs["filter"].data
        assert filters is not None
        axis = -1 if operation.kind == "DEPTHWISE_CONV_2D" else 0
        l1 = np.abs(np.moveaxis(filters.astype(np.int64), axis, 0).reshape(count, -1)).sum(1)
        scores = l1 * filter_scales(operation).astype(np.float64)
    chosen = max(1, int(density * count + 0.5))
    return np.sort(np.argsort(-np.asarray(scores), kind="stable")[:chosen]).astype(np.int16)


def adapted_channels(
    operations: Sequence[Operation], parameters: Sequence[Parameter], config: AdapterConfig
) -> dict[str, list[int]]:
    """{operation's name: its trained channels} of a base graph's operations that `parameters` belong to."""
    rows = {parameter.name for parameter in parameters}
    adapted = [operation for operation in operations if f"{operation.name}_sparse_rows" in rows]
    return {operation.name: trained_channels(operation, config).tolist() for operation in adapted}


def channels_option(chosen: Mapping[str, Sequence[int]]) -> str:
    """The option `channels` for the channels of named layers: how a choice made elsewhere is configured."""
    return ";".join(f"{name}={','.join(str(int(channel)) for channel in each)}" for name, each in chosen.items())


def _parse(option: str) -> dict[str, list[int]]:
    """{layer: ascending channels} of the option `channels`."""
    parsed: dict[str, list[int]] = {}
    for part in filter(None, (part.strip() for part in option.split(";"))):
        name, equals, listed = part.rpartition("=")
        texts = [text.strip() for text in listed.split(",")]
        if not equals or not name or not all(text.isdecimal() for text in texts):
            raise AdapterError(f"channels has the part {part!r}, expected LAYER=NUMBER,NUMBER,…", "try conv_1=0,5,7")
        channels = [int(text) for text in texts]
        if name in parsed or len(set(channels)) < len(channels):
            raise AdapterError(f"channels names {name}, or one of its channels, twice", "name each once")
        parsed[name] = sorted(channels)
    return parsed


def _is_called(operation: Operation, name: str) -> bool:
    return name in (operation.name, operation.layer)


def _channel_count(operation: Operation) -> int:
    return operation.output.shape[-1]


def _window(operation: Operation) -> Window:
    return operation.attributes.get("window") or dense_window(operation)


def _row_window(operation: Operation, rows: int) -> Window:
    """The layer's window with `rows` output channels."""
    return Window(**{**_window(operation).fields(), "output_c": rows})


def _row_shape(operation: Operation, rows: int) -> tuple[int, ...]:
    """(k,KH,KW,Cin/groups) or (k,Cin); a depthwise row reads one channel."""
    shape = operation.inputs["filter"].shape
    return (rows, *shape[1:3], 1) if operation.kind == "DEPTHWISE_CONV_2D" else (rows, *shape[1:])


def _reads_all(operation: Operation) -> bool:
    """Whether every output channel reads all input channels."""
    window = _window(operation)
    return operation.kind != "DEPTHWISE_CONV_2D" and group_count(window, operation.inputs["filter"]) == 1


def _first_channel(operation: Operation, channel: np.ndarray) -> np.ndarray | None:
    """int16 (k,): the first input channel that each row reads; None where each reads all."""
    if _reads_all(operation):
        return None
    window = _window(operation)
    each = 1 if operation.kind == "DEPTHWISE_CONV_2D" else operation.inputs["filter"].shape[-1]
    return (channel.astype(np.int64) * (window.input_c // each) // window.output_c * each).astype(np.int16)


def _parameters(
    operation: Operation, insertion: Insertion, masters: dict[str, Tensor], outputs: dict[str, Tensor]
) -> list[Parameter]:
    rows, bias = masters["master_rows"], masters["master_bias"]
    layout = (lambda a: a), (lambda a: a)
    if len(rows.shape) == 4:  # as PyTorch has a convolution's: (k,in,kh,kw)
        layout = (lambda a: a.transpose(0, 3, 1, 2)), (lambda a: a.transpose(0, 2, 3, 1))
    sharing = [o for o in insertion.adapted.graph.operations if o.layer == operation.layer and o.kind in _LAYERS]
    prefix = f"{operation.layer if len(sharing) < 2 else operation.name}.sparse_rows"
    name, layer = operation.name, operation.layer
    return [
        Parameter(f"{name}_sparse_rows", layer, rows, outputs["rows"], f"{prefix}.weight", *layout),
        Parameter(f"{name}_sparse_bias", layer, bias, outputs["bias"], f"{prefix}.bias"),
    ]
