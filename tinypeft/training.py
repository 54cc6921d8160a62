"""How adapters are trained: the settings that training follows, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from tinypeft.errors import AdapterError
from tinypeft.losses import LABEL, LOSSES
from tinypeft.optimizers import OPTIMIZERS

#: Bits that the mantissas of a gradient may have
GRAD_BITS = (16, 8)
MAX_BATCH, MAX_CLASS_WEIGHT = 65535, 65536
#: of a setting that is a float32 and must not be 0, and of any
SMALLEST, LARGEST = 1e-30, 1e6


@dataclass(frozen=True)
class TrainingConfig:
    """How adapters are trained.

    optimizer       a name in OPTIMIZERS
    momentum        SGD's: velocity = momentum * velocity + gradient
    batch_size      samples whose gradients are averaged before an update
    loss            a name in LOSSES
    label_smoothing, class_weights
                    of softmax_cross_entropy, as in Keras; a weight for each class, or none
    target          of what the loss allows, what it is computed against
    nesterov        SGD steps by gradient + momentum * velocity
    weight_decay    SGD: weight_decay * master joins the gradient; Adam: master -= learning_rate * weight_decay * master
    beta_1, beta_2  how much of the moments Adam keeps
    epsilon         joins the root of Adam's second moment
    clip_norm       the largest norm of the gradient of all parameters together; 0 for any
    latents         what lies in front of the first adapter can be run once a sample, and steps begin behind it
    grad_bits       of the mantissas of gradients, 16 or 8: half the memory, twice the computation
    """

    optimizer: str = "sgd"
    momentum: float = 0.0
    batch_size: int = 1
    loss: str = "softmax_cross_entropy"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    target: str = LABEL
    nesterov: bool = False
    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    clip_norm: float = 0.0
    latents: bool = False
    grad_bits: int = 16

    def __post_init__(self) -> None:
        """Raise AdapterError for a setting outside its limits, or one that optimiser or loss do not follow."""
        if self.optimizer not in OPTIMIZERS:
            raise AdapterError(f"there is no optimizer {self.optimizer}", f"one of: {', '.join(sorted(OPTIMIZERS))}")
        if not 1 <= self.batch_size <= MAX_BATCH:
            raise AdapterError(
                f"batch_size is {self.batch_size}, the limits are 1 and {MAX_BATCH}", "try --batch-size 4"
            )
        if self.grad_bits not in GRAD_BITS:
            raise AdapterError(f"grad_bits is {self.grad_bits}, gradients have 16 or 8", "try --grad-bits 8")
        self._check_optimizer()
        self._check_loss()

    def _check_optimizer(self) -> None:
        for name, hint in (("momentum", "0.9"), ("beta_1", "0.9"), ("beta_2", "0.999")):
            value = getattr(self, name)
            if not (value >= 0 and np.float32(value) < 1):
                option = name.replace("_", "-")
                raise AdapterError(f"{name} is {value:g}, it must be at least 0 and below 1", f"try --{option} {hint}")
        for name in ("weight_decay", "epsilon", "clip_norm"):
            value, least = getattr(self, name), SMALLEST if name == "epsilon" else 0.0
            if not least <= value <= LARGEST:
                raise AdapterError(f"{name} is {value:g}, the limits are {least:g} and {LARGEST:g}", _try_default(name))
        known = {name for optimizer in OPTIMIZERS.values() for name in optimizer.reads}
        for field in fields(self):
            if field.name not in known or field.name in OPTIMIZERS[self.optimizer].reads:
                continue
            if getattr(self, field.name) != field.default:
                readers = " or ".join(name for name, o in sorted(OPTIMIZERS.items()) if field.name in o.reads)
                raise AdapterError(
                    f"{field.name} is {getattr(self, field.name)}, but {self.optimizer} has none", f"{readers} has"
                )
        if self.nesterov and not self.momentum:
            raise AdapterError("nesterov is on, but momentum is 0", "try --momentum 0.9")
        if self.clip_norm and self.batch_size == 1:
            raise AdapterError(
                f"clip_norm is {self.clip_norm:g}, but with batch_size 1 each update follows its own gradient at once",
                "try --batch-size 2",
            )

    def _check_loss(self) -> None:
        if self.loss not in LOSSES:
            raise AdapterError(f"there is no loss {self.loss}", f"one of: {', '.join(sorted(LOSSES))}")
        targets = LOSSES[self.loss].targets
        if self.target not in targets:
            raise AdapterError(
                f"{self.loss} cannot be computed against the target {self.target}, only {' or '.join(targets)}",
                f"try --target {targets[0]}",
            )
        if not 0 <= self.label_smoothing < 1:
            raise AdapterError(
                f"label_smoothing is {self.label_smoothing:g}, it must be at least 0 and below 1",
                "try --label-smoothing 0.1",
            )
        outside = [weight for weight in self.class_weights if not 0 <= weight <= MAX_CLASS_WEIGHT]
        if outside:
            raise AdapterError(
                f"class_weights has {outside[0]:g}, the limits are 0 and {MAX_CLASS_WEIGHT}", "try --class-weights 1,2"
            )
        if (self.label_smoothing or self.class_weights) and self.target != LABEL:
            raise AdapterError(
                f"label_smoothing and class_weights are of losses against a label, {self.loss} has none",
                "leave them out",
            )


def _try_default(name: str) -> str:
    default = {field.name: field.default for field in fields(TrainingConfig)}[name]
    return f"the default is {default}"
