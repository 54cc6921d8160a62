"""The command FIT in Python: what is asked of a device that trains by itself, and what it answers; as in tp_fit.h."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from tinypeft.errors import DeviceError

#: tp_fit_config.guards
DO_NO_HARM, UNDO = 1, 2


class Score(NamedTuple):
    """How an adapter does on what is held back: right decisions, and the sum of the losses in Q16.16."""

    right: int
    loss: int

    def better(self, other: Score) -> bool:
        """More right decisions or, with as many, a smaller loss."""
        return self.right > other.right or (self.right == other.right and self.loss < other.loss)


class End(IntEnum):
    """tp_fit_end: why training ended."""

    ALL_EPOCHS = 0
    OUT_OF_PATIENCE = 1
    TOO_MANY_UNDONE = 2


@dataclass(frozen=True)
class FitRequest:
    """tp_fit_config, over the first `samples` of the store, and tp_schedule.

    `held_back_share` in Q0.16, `min_gain` in Q16.16.
    """

    samples: int
    epochs: int
    seed: int
    held_back: int
    held_back_share: int
    patience: int
    guards: int
    max_undone: int
    replayed: int
    min_gain: int
    schedule: int
    learning_rate: float
    warmup_steps: int
    total_steps: int
    final_fraction: float

    def fields(self) -> dict[str, Any]:
        """The command's map; DeviceError for a number that it cannot carry."""
        fields = asdict(self)
        try:
            for name, value in fields.items():
                layout = "<f" if isinstance(value, float) else "<I"
                fields[name] = struct.unpack(layout, struct.pack(layout, value))[0]
        except (struct.error, OverflowError) as error:
            raise DeviceError(f"{self} cannot be sent: {error}") from error
        fields["rate"] = fields.pop("learning_rate")
        return fields


@dataclass(frozen=True)
class FitProgress:
    """tp_fit_progress: `steps` of `total`; `loss` is this epoch's sum, Q16.16; `score` the last that was judged."""

    epoch: int
    ended: bool
    steps: int
    total: int
    loss: int
    score: Score

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> FitProgress:
        """From what FIT tells now and then."""
        epoch, ended, steps, total, loss = _values(found, "epoch", "ended", "steps", "total", "loss")
        return cls(epoch, bool(ended), steps, total, loss, Score(*_values(found, "right", "judged")))


@dataclass(frozen=True)
class FitResult:
    """tp_fit_result.

    learned, held_back   samples to learn from, and held back
    epochs, steps        begun; samples learned from
    updates, undone      updates that stayed, and that were undone
    end                  why training ended
    kept                 whether there is a new adapter; else the one from before is back
    epoch                whose adapter was judged last: with patience the best, else the last
    before, after        on what is held back, the adapter from before and the new one, also where that was not kept
    """

    learned: int
    held_back: int
    epochs: int
    steps: int
    updates: int
    undone: int
    end: End
    kept: bool
    epoch: int
    before: Score
    after: Score

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> FitResult:
        """From the answer."""
        learned, held_back, epochs, steps = _values(found, "learned", "held_back", "epochs", "steps")
        updates, undone, end, kept, epoch = _values(found, "updates", "undone", "end", "kept", "epoch")
        scores = [found.get(key) for key in ("before", "after")]
        before, after = (Score(*_values(s if isinstance(s, dict) else {}, "right", "loss")) for s in scores)
        return cls(learned, held_back, epochs, steps, updates, undone, End(end), bool(kept), epoch, before, after)


def _values(found: Mapping[str, Any], *keys: str) -> list[int]:
    values = [found.get(key) for key in keys]
    if not all(isinstance(value, int) for value in values):
        lacking = [key for key, value in zip(keys, values, strict=True) if not isinstance(value, int)]
        raise DeviceError(f"FIT: an answer without {', '.join(lacking)}", "build the firmware again")
    return [int(value) for value in values if value is not None]
