"""Mean squared error, for regression and autoencoders."""

from __future__ import annotations

from tinypeft.losses.base import INPUT, VECTOR, Loss, register


@register
class MeanSquaredErrorLoss(Loss):
    """The operator MEAN_SQUARED_ERROR: the mean over the outputs, in real units."""

    name = "mean_squared_error"
    targets = (VECTOR, INPUT)
    operator = "MEAN_SQUARED_ERROR"
    classifies = False
