"""Moving data: what shares bytes with what, limits of the gradients, and pieces that already lie in a concatenation."""

from __future__ import annotations

import ctypes
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from kernel_harness import compare_kernel, compile_library
from layout_cases import LAYOUT_CASES
from random_values import random_int8
from tflite_builder import Node, int8_tensor, int32_constant

from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import BlockFloat
from tinypeft.ops.resize_bilinear import resize_axis
from tinypeft.ops.strided import Strided, box, dense_strides


def _x(*shape: int, scale: float = 0.1) -> Tensor:
    return int8_tensor("x", shape, scale)


def test_strided_axes_are_merged() -> None:
    assert dense_strides((2, 3, 4)) == (12, 4, 1)
    assert box((2, 3, 4), (0, 0, 0), (2, 3, 4)).merged() == Strided((24,), (1,), 0)
    assert box((2, 3, 4), (1, 0, 0), (1, 3, 4)).merged() == Strided((12,), (1,), 12)
    assert box((2, 3, 4), (0, 1, 0), (2, 2, 4)).merged() == Strided((2, 8), (12, 1), 4)
    assert box((2, 3, 4), (1, 2, 3), (1, 1, 1)).merged() == Strided((1,), (1,), 23)
    assert box((6,), (5,), (3,), (-2,)).merged() == Strided((3,), (-2,), 5)


@pytest.mark.parametrize("kind", ["STRIDED_SLICE", "TRANSPOSE"])
def test_views_and_results_in_place_are_what_they_say(kind: str) -> None:
    """A view's bytes are those of the operand; elements that rise lie in the operand in their own order."""
    rng = np.random.default_rng(3)
    views = in_place = 0
    for i in range(400):
        op = LAYOUT_CASES[kind](rng, kind=kind).operation(f"op{i}")
        order = np.arange(op.inputs["input"].size).reshape(op.inputs["input"].shape)
        places = op.op.evaluate(op, {"input": order})["output"].reshape(-1)
        view = op.op.view(op)
        side_by_side = bool((np.diff(places) == 1).all())
        assert (view is not None) == side_by_side
        if view is not None:
            views += 1
            assert view == ("input", places[0])
        assert bool(op.op.in_place(op)) == bool((np.diff(places) > 0).all())
        in_place += bool(op.op.in_place(op))
        op.inputs["input"].purpose = Purpose.FROZEN_WEIGHT
        assert op.op.view(op) is None
    assert views > 10 and in_place >= views


def test_pieces_are_told_where_they_may_be_computed() -> None:
    a, b, c = _x(1, 2, 3), _x(1, 1, 3), int8_tensor("c", (1, 1, 3), 0.1, data=[1, 2, 3])
    joined = Node("CONCATENATION", schema.ConcatenationOptionsT(axis=1), [a, c, b], [_x(1, 4, 3)]).operation()
    assert joined.op.inside(joined) == {"input0": 0, "input2": 9}
    beside = Node("CONCATENATION", schema.ConcatenationOptionsT(axis=2), [b, c, _x(1, 1, 2)], [_x(1, 1, 8)]).operation()
    assert beside.op.inside(beside) == {"input0": 0, "input2": 6}
    woven = Node("CONCATENATION", schema.ConcatenationOptionsT(axis=2), [a, _x(1, 2, 1)], [_x(1, 2, 4)]).operation()
    assert woven.op.inside(woven) == {}


@pytest.mark.parametrize("lying", [(), (0,), (2,), (0, 1, 2)])
def test_a_piece_that_lies_in_its_place_stays(lying: tuple[int, ...]) -> None:
    source = """#include "tinypeft/tp_kernels.h"
    void join(const int8_t *a, const int8_t *b, const int8_t *c, int8_t *y);
    void join(const int8_t *a, const int8_t *b, const int8_t *c, int8_t *y) {
      static const int32_t size[] = {3, 2, 4};
      static const tp_concatenation_params params = {3, 1, size};
      tp_concatenation_s8(&params, (const int8_t *const[]){a, b, c}, y);
    }
    """
    library = compile_library(source, ["tp_concatenation.c"])
    pieces = [np.arange(n, dtype=np.int8) + 10 * n for n in (3, 2, 4)]
    output = np.full(9, -1, np.int8)
    addresses = []
    for i, (piece, begin) in enumerate(zip(pieces, (0, 3, 5), strict=True)):
        if i in lying:
            output[begin : begin + len(piece)] = piece
        addresses.append(ctypes.c_void_p(output.ctypes.data + begin if i in lying else piece.ctypes.data))
    library.join(*addresses, ctypes.c_void_p(output.ctypes.data))
    np.testing.assert_array_equal(output, np.concatenate(pieces))


def _backward(op: Operation, kind: str, operand: BlockFloat, **attributes: Any) -> dict[str, Any]:
    d_output = Tensor("d", op.output.shape, "bfp16", Purpose.GRADIENT)
    d_input = Tensor("dx", op.inputs["input"].shape, "bfp16", Purpose.GRADIENT)
    step = Operation(OPS[kind], "step", {"d_output": d_output}, {"d_input": d_input}, attributes)
    assert step.op.check(step) is None
    return compare_kernel(step, {"d_output": operand})


@pytest.mark.parametrize(("copies", "shift"), [(1, 0), (2, 1), (3, 2), (65536, 17)])
def test_many_copies_of_one_element_add_up(copies: int, shift: int) -> None:
    """The mantissas are narrowed where their sum could leave int32, and the result where it could leave int16."""
    indices = int32_constant("indices", [1] * copies)
    op = Node("GATHER", schema.GatherOptionsT(axis=1), [_x(1, 2), indices], [_x(1, copies)]).operation()
    full = BlockFloat(np.full((1, copies), 32767, np.int16), -7)
    result = _backward(op, "GATHER_BACKWARD", full, axis=1, indices=op.attributes["indices"], shape=(1, 2))["d_input"]
    assert result.mantissa[0, 0] == 0 and 16384 <= result.mantissa[0, 1] and result.exponent == shift - 7
    assert abs(result.to_float()[0, 1] / (32767 * 2.0**-7 * copies) - 1) < 1e-4


@pytest.mark.parametrize(("extent", "new"), [(1, 64), (2, 64), (3, 120), (64, 1), (5, 5), (60, 7)])
@pytest.mark.parametrize("align", [False, True])
def test_bilinear_gradients_at_their_largest(extent: int, new: int, align: bool) -> None:
    rows, columns = resize_axis(extent, new, align, not align), resize_axis(3, new, align, not align)
    if not (rows.inside and columns.inside):
        pytest.skip("LiteRT reads beyond the image")
    op = Operation(
        OPS["RESIZE_BILINEAR"], "op", {"input": _x(1, extent, 3, 2)}, {"output": _x(1, new, new, 2)},
        {"rows": rows, "columns": columns},
    )  # fmt: skip
    full = BlockFloat(np.full((1, new, new, 2), -32767, np.int16), 3)
    result = _backward(op, "RESIZE_BILINEAR_BACKWARD", full, rows=rows, columns=columns)["d_input"]
    assert result.to_float().sum() == pytest.approx(-32767 * 8.0 * new * new * 2, rel=2e-3)


def test_what_cannot_be_trained_through() -> None:
    gather = Operation(
        OPS["GATHER_BACKWARD"], "g", {"d_output": Tensor("d", (65537,), "bfp16", Purpose.GRADIENT)},
        {"d_input": Tensor("dx", (2,), "bfp16", Purpose.GRADIENT)},
        {"axis": 0, "indices": ((0,) * 65537,), "shape": (2,)},
    )  # fmt: skip
    assert "65537 copies" in str(gather.op.check(gather))
    axes = {"rows": resize_axis(1, 65, True, False), "columns": resize_axis(4, 4, False, False)}
    resize = Operation(OPS["RESIZE_BILINEAR_BACKWARD"], "r", {}, {}, axes)
    assert "1 to 65 pixels cannot be trained through" in str(resize.op.check(resize))


def _resize(extent: int, new: int, **flags: bool) -> Node:
    size = int32_constant("size", [new, 1])
    return Node(
        "RESIZE_BILINEAR", schema.ResizeBilinearOptionsT(**flags), [_x(1, extent, 1, 1), size], [_x(1, new, 1, 1)]
    )


def _slice(begin: list[int], end: list[int], strides: list[int], **masks: int) -> Node:
    operands = [int32_constant(n, v) for n, v in (("b", begin), ("e", end), ("s", strides))]
    shape = (1,) if masks.get("shrinkAxisMask") else (1, 2)
    return Node("STRIDED_SLICE", schema.StridedSliceOptionsT(**masks), [_x(1, 4), *operands], [_x(*shape)])


def _concatenation(axis: int, activation: int = 0, **kwargs: float) -> Node:
    options = schema.ConcatenationOptionsT(axis=axis, fusedActivationFunction=activation)
    return Node("CONCATENATION", options, [_x(1, 2), _x(1, 3, **kwargs)], [_x(1, 5)])


REFUSED = {
    "fused RELU": _concatenation(1, 1),
    "along axis 3": _concatenation(3),
    "cannot be part of": _concatenation(0),
    "must be the same": _concatenation(1, scale=0.2),
    "is empty": _slice([0, 3], [1, 1], [1, 1]),
    "stride of 0": _slice([0, 0], [1, 2], [1, 0]),
    "1 ends": _slice([0, 0], [1], [1, 1]),
    "stands for no axis": _slice([0, 0, 0], [0, 1, 2], [1, 1, 1], ellipsisMask=1),
    "does not fit an input": _slice([0, 0, 0], [1, 1, 2], [1, 1, 1]),
    "the file says": _slice([0, 0], [1, 3], [1, 1]),
    "does not fit x": _slice([0, 5], [1, 6], [1, 1], shrinkAxisMask=2),
    "none of the axes": Node("TRANSPOSE", None, [_x(1, 2), int32_constant("p", [0, 0])], [_x(1, 2)]),
    "reads outside": Node("GATHER", schema.GatherOptionsT(axis=1), [_x(1, 2), int32_constant("i", [2])], [_x(1, 1)]),
    "1 batch dimensions": Node(
        "GATHER", schema.GatherOptionsT(axis=1, batchDims=1), [_x(1, 2), int32_constant("i", [[1]])], [_x(1, 1)]
    ),
    "indices of a gather must be constant": Node(
        "GATHER", schema.GatherOptionsT(axis=1), [_x(1, 2), _x(1)], [_x(1, 1)]
    ),
    "beyond the image": _resize(1, 97),
    "both align_corners": _resize(3, 5, alignCorners=True, halfPixelCenters=True),
    "6 dimensions": Node("PAD", None, [_x(*[1] * 6), int32_constant("p", [[1, 0]] * 6)], [_x(*[2] * 6)]),
    "does not suit": Node("PAD", None, [_x(1, 2), int32_constant("p", [[1, 0], [0, -1]])], [_x(2, 1)]),
    "is constant": Node("RESHAPE", None, [int8_tensor("c", (1, 2), 0.1, data=[1, 2])], [_x(2, 1)]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_supported_is_refused(message: str) -> None:
    with pytest.raises(ModelError, match=message):
        operation = REFUSED[message].operation()
        if complaint := operation.op.check(operation):
            raise ModelError(complaint)


def test_constant_pieces_are_read_from_flash() -> None:
    rng = np.random.default_rng(4)
    constant = int8_tensor("c", (1, 2, 2), 0.1, data=random_int8(rng, (1, 2, 2)))
    op = Node("CONCATENATION", schema.ConcatenationOptionsT(axis=2), [_x(1, 2, 3), constant], [_x(1, 2, 5)]).operation()
    values = {"input0": random_int8(rng, (1, 2, 3)), "input1": constant.data}
    np.testing.assert_array_equal(compare_kernel(op, values)["output"][..., 3:], constant.data)
