"""Mean squared error, for regression and autoencoders."""

from __future__ import annotations

from tinypeft.losses.base import INPUT, VECTOR, Loss, register


@register
class MeanSquaredErrorLoss(Loss):
    """The operator MEAN_SQUARED_ERROR: the mean over the outputs, in real units."""

    name = "mean_squared_error"
    summary = "real values, the mean over the outputs; an autoencoder's target is its input"
    targets = (VECTOR, INPUT)
    operator = "MEAN_SQUARED_ERROR"
    classifies = False
