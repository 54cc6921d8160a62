"""LoftQ: float filters of a quantised graph in, the factors that a LoRA starts from to take up what was lost out.

LoftQ (Li et al. 2023) alternates between quantising the weights less B A, and the singular value decomposition of what
that leaves. Here the converter has quantised the base already, so that one step remains: the rank-r approximation of
float filter - int8 filter * scale.
"""

from __future__ import annotations

import numpy as np

from tinypeft.errors import AdapterError
from tinypeft.ir import Graph, Operation
from tinypeft.ops.weighted import filter_scales

_ATTRIBUTE = "loftq"
#: What `starting_factors` calls the factors of an operation.
_NAMES = ("left", "right")


def starting_factors(graph: Graph, float_filters: dict[str, np.ndarray], rank: int) -> dict[str, np.ndarray]:
    """Factors of every layer with a matrix, float32: `<operation>.left` (Cout,k) and `<operation>.right` (k,fan_in).

    Their product is the best approximation of rank k <= `rank` of what quantisation took from the filter.
    `float_filters`: operation name -> filter in the operation's layout.
    """
    factors: dict[str, np.ndarray] = {}
    for operation in graph.operations:
        if operation.name not in float_filters or operation.kind not in ("CONV_2D", "FULLY_CONNECTED"):
            continue
        weights = operation.inputs["filter"].data
        assert weights is not None
        shape = len(weights), -1
        dequantized = weights.reshape(shape).astype(np.float64) * filter_scales(operation).astype(np.float64)[:, None]
        residual = float_filters[operation.name].reshape(shape).astype(np.float64) - dequantized
        u, s, v = np.linalg.svd(residual, full_matrices=False)
        root = np.sqrt(s[:rank])
        factors[f"{operation.name}.left"] = np.ascontiguousarray(u[:, :rank] * root, np.float32)
        factors[f"{operation.name}.right"] = np.ascontiguousarray(root[:, None] * v[:rank], np.float32)
    return factors


def attach_factors(graph: Graph, factors: dict[str, np.ndarray]) -> None:
    """Give the operations of `graph` what `starting_factors` found for them."""
    for operation in graph.operations:
        found = [factors.get(f"{operation.name}.{name}") for name in _NAMES]
        if all(factor is not None for factor in found):
            operation.attributes[_ATTRIBUTE] = found


def starting_masters(operation: Operation, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A (r,fan_in) and B (Cout,r), scaling not yet taken out of B; a rank beyond that of the filter starts at zero.

    Raises AdapterError where the factors are not known, or the filter is that of groups.
    """
    if _ATTRIBUTE not in operation.attributes:
        raise AdapterError(
            f"init_lora_weights loftq needs the float weights of {operation.layer}, an int8 .tflite does not hold them",
            "give the .keras or .h5 model, or --init-lora-weights uniform",
        )
    window = operation.attributes.get("window")
    if window is not None and operation.inputs["filter"].shape[-1] != window.input_c:
        raise AdapterError(
            f"{operation.layer} has groups: its LoRA reads all channels, which cannot start from its filter",
            "leave it out with --target-modules",
        )
    left, right = operation.attributes[_ATTRIBUTE]
    missing = max(rank - len(right), 0)
    a = np.pad(right[:rank], ((0, missing), (0, 0)))
    b = np.pad(left[:, :rank], ((0, 0), (0, missing)))
    return a, b
