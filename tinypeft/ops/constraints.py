"""Constraints that several operators share: each returns None, or the broken one as a sentence. Defines no operator."""

from __future__ import annotations

from tinypeft.errors import ModelError
from tinypeft.ir import Tensor


def same_quantization(a: Tensor, b: Tensor) -> str | None:
    """`a` and `b` have one scale and zero point between them."""
    scale_a, zero_a = per_tensor(a)
    scale_b, zero_b = per_tensor(b)
    if abs(scale_a - scale_b) > 1e-6 * max(scale_a, scale_b) or zero_a != zero_b:
        return (
            f"{a.name} has scale {scale_a:g} and zero point {zero_a}, {b.name} {scale_b:g} and {zero_b}: "
            "they must be the same"
        )
    return None


def per_tensor(tensor: Tensor) -> tuple[float, int]:
    """(scale, zero point) of a tensor quantised as a whole."""
    if tensor.scale is None or len(tensor.scale) != 1:
        raise ModelError(f"{tensor.name} is not quantised with one scale", "convert the model to full int8")
    return float(tensor.scale[0]), tensor.zero_point


def require_int8(*tensors: Tensor | None) -> None:
    """ModelError unless all are int8 with one scale."""
    for tensor in tensors:
        if tensor is None or tensor.dtype != "int8":
            found = "absent" if tensor is None else tensor.dtype
            raise ModelError(f"an operand is {found}, supported is int8", "convert the model to full int8")
        per_tensor(tensor)


def constant(tensor: Tensor | None, meaning: str) -> list[int]:
    """The values of a constant integer operand, flat; ModelError where it is computed at run time."""
    if tensor is None or tensor.data is None:
        raise ModelError(f"the {meaning} must be constant", "give the layer fixed arguments")
    return [int(value) for value in tensor.data.reshape(-1)]
