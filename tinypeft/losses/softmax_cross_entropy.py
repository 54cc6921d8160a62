"""Softmax cross-entropy of classes that exclude each other, against a label."""

from __future__ import annotations

from typing import Any

from tinypeft.errors import AdapterError
from tinypeft.ir import Tensor
from tinypeft.losses.base import LABEL, Loss, register


@register
class SoftmaxCrossEntropyLoss(Loss):
    """The operator SOFTMAX_CROSS_ENTROPY, with label smoothing and class weights."""

    name = "softmax_cross_entropy"
    summary = "one class of several; label_smoothing, class_weights"
    targets = (LABEL,)
    operator = "SOFTMAX_CROSS_ENTROPY"
    passed_over = ("SOFTMAX",)

    def attributes(self, logits: Tensor, settings: dict[str, Any]) -> dict[str, Any]:
        weights = settings["class_weights"]
        if weights and len(weights) != logits.size:
            raise AdapterError(
                f"class_weights has {len(weights)} values, the model has {logits.size} classes", "give one a class"
            )
        return {"label_smoothing": settings["label_smoothing"], "class_weights": weights}
