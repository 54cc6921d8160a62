"""Learning-rate schedules: how many updates there are and how many warm up in, the rate of each update out.

`Schedule.rate` is the definition that the C in firmware/runtime/tp_schedule.c must equal to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.arithmetic import F32, cos_pi_f32
from tinypeft.errors import DataError

KINDS = ("constant", "linear", "cosine")
MAX_STEPS = 2**31 - 1


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each update.

    learning_rate   the highest
    kind            how it falls behind the warm-up, a name in KINDS
    warmup_steps    updates in which it rises, in equal steps up to the highest
    total_steps     updates after which it is at its last; not looked at where it is constant
    final_fraction  the last rate, as a fraction of the highest
    """

    learning_rate: float
    kind: str = "constant"
    warmup_steps: int = 0
    total_steps: int = 0
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Raise DataError for a setting outside its limits."""
        if self.kind not in KINDS:
            raise DataError(f"there is no schedule {self.kind}", f"one of: {', '.join(KINDS)}")
        if not 0 <= self.final_fraction <= 1:
            raise DataError(f"the final fraction is {self.final_fraction:g}, the limits are 0 and 1", "try 0")
        if self.kind == "constant" and self.final_fraction:
            raise DataError(
                f"the final fraction is {self.final_fraction:g}, but a constant rate has none", "try --schedule cosine"
            )
        last = MAX_STEPS if self.kind == "constant" else self.total_steps
        if not 0 <= self.warmup_steps <= last <= MAX_STEPS:
            raise DataError(
                f"the warm-up takes {self.warmup_steps} of {last} updates, the limits are 0 and {min(last, MAX_STEPS)}",
                "try --warmup 0.1",
            )

    def rate(self, step: int) -> np.float32:
        """The rate of update number `step`, from 0; behind the last it stays."""
        rate, one = F32(self.learning_rate), F32(1.0)
        if step < self.warmup_steps:
            return F32(rate * (F32(step + 1) / F32(self.warmup_steps)))
        if self.kind == "constant":
            return rate
        final = F32(self.final_fraction)
        behind, steps = step - self.warmup_steps, self.total_steps - self.warmup_steps
        progress = F32(behind) / F32(steps) if behind < steps else one
        left = one - progress if self.kind == "linear" else F32(0.5) * (one + F32(cos_pi_f32(np.array(progress))))
        return F32(rate * (final + (one - final) * left))


def scheduled(learning_rate: float, kind: str, warmup: float, final_fraction: float, updates: int) -> Schedule:
    """The schedule of so many updates; a `warmup` below 1 is a fraction of them, else a number of updates.

    Raises DataError for settings outside their limits.
    """
    if not (0 <= warmup < 1 or (warmup <= MAX_STEPS and float(warmup).is_integer() and warmup >= 0)):
        raise DataError(
            f"the warm-up is {warmup:g}, which is neither a fraction below 1 nor a number of updates",
            "try --warmup 0.1",
        )
    steps = round(warmup * updates) if warmup < 1 else int(warmup)
    return Schedule(learning_rate, kind, steps, updates, final_fraction)
