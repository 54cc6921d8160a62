"""Binary cross-entropy of outputs that are each a class of its own: any number of them may be true."""

from __future__ import annotations

from tinypeft.losses.base import VECTOR, Loss, register


@register
class BinaryCrossEntropyLoss(Loss):
    """The operator BINARY_CROSS_ENTROPY: targets in [0, 1], the mean over the outputs."""

    name = "binary_cross_entropy"
    summary = "a yes or no for every output, the mean over them"
    targets = (VECTOR,)
    operator = "BINARY_CROSS_ENTROPY"
    passed_over = ("LOGISTIC",)
    bounds = (0.0, 1.0)
