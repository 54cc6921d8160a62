"""Training with guard rails: a learner, its samples' classes and settings in; which adapter stays, and why, out.

The same as firmware/runtime/tp_fit.c, to the bit: what is held back, the order of samples, every decision. tp_fit.h
describes the rules; `learners.py` has what learns: the interpreter, or a device that the host drives.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tinypeft.device.fit import DO_NO_HARM, UNDO, End, FitProgress, FitRequest, FitResult, Score
from tinypeft.errors import DataError, DeviceError
from tinypeft.replay import MAX_SAMPLES
from tinypeft.schedule import KINDS, Schedule

MAX_EPOCHS = 65535
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class FitConfig:
    """Settings of a run; tp_fit_config.

    learning_rate    of each update, those that are undone counted; a float is a constant one
    seed             of the choice of what is held back, and of the order, which is drawn anew every epoch
    held_back        samples of each class that are held back; held_back_share is added, a share of each class
    patience         epochs without a better adapter after which training ends, the best one staying; 0: never
    do_no_harm       keep the new adapter only if it is not worse on what is held back
    undo             undo updates after which a master is not finite or at its limit, and end with the max_undone-th
    replayed         of the samples, the last so many are of others: learned from, never held back
    min_gain         the new adapter must lower the loss of what is held back, summed, by so much as well; 0: need not
    """

    epochs: int
    learning_rate: Schedule | float
    seed: int = 0
    held_back: int = 0
    held_back_share: float = 0.0
    patience: int = 0
    do_no_harm: bool = True
    undo: bool = True
    max_undone: int = 3
    replayed: int = 0
    min_gain: float = 0.0

    def __post_init__(self) -> None:
        """Raise DataError for a setting outside its limits."""
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, MAX_EPOCHS),
            "seed": (0, _WORD),
            "held_back": (0, MAX_SAMPLES),
            "held_back_share": (0, 1),
            "patience": (0, _WORD),
            "max_undone": (1, _WORD),
            "replayed": (0, MAX_SAMPLES),
            "min_gain": (0, 65535),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise DataError(f"{name} is {value:g}, the limits are {low} and {high}", f"try {name} {low}")

    def rate(self, update: int) -> np.float32:
        """The learning rate of update number `update`, from 0."""
        return self.schedule.rate(update)

    @property
    def schedule(self) -> Schedule:
        """The learning rates."""
        given = self.learning_rate
        return given if isinstance(given, Schedule) else Schedule(given)

    @property
    def share_q16(self) -> int:
        """`held_back_share` as the device takes it."""
        return round(self.held_back_share * 65536)

    @property
    def min_gain_q16(self) -> int:
        """`min_gain` as the device takes it."""
        return round(self.min_gain * 65536)

    def request(self, samples: int) -> FitRequest:
        """The same for a device that learns from the first `samples` of its store by itself."""
        guards = DO_NO_HARM * self.do_no_harm + UNDO * self.undo
        rates = self.schedule
        return FitRequest(
            samples, self.epochs, self.seed, self.held_back, self.share_q16, self.patience, guards, self.max_undone,
            self.replayed, self.min_gain_q16, KINDS.index(rates.kind), rates.learning_rate, rates.warmup_steps,
            rates.total_steps, rates.final_fraction,
        )  # fmt: skip


class Learner(Protocol):
    """Something that learns from samples, by their numbers; losses are Q16.16."""

    batch_size: int

    def begin_epoch(self) -> None:
        """Called in front of an epoch."""

    def begin_batch(self) -> None:
        """What comes now may be undone: the samples of a batch and the update behind them."""

    def undo_batch(self) -> None:
        """Adapter and training state as they were at `begin_batch`, to the byte."""

    def train(self, index: int, learning_rate: np.float32) -> int:
        """Learn from a sample; its loss of before."""

    def update(self, learning_rate: np.float32) -> None:
        """Apply the summed gradients of a batch."""

    def masters_sane(self) -> bool:
        """Whether every master is finite and has not reached its limit."""

    def evaluate(self, index: int) -> tuple[int, int]:
        """Loss and right decisions of a sample."""

    def snapshot(self) -> Any:
        """Adapter and training state, for `restore`."""

    def restore(self, snapshot: Any) -> None:
        """Put them back."""


def split(classes: Sequence[int], config: FitConfig) -> tuple[list[int], list[int], int]:
    """(samples to learn from, samples held back, state of the random numbers) of samples of these classes.

    Raises DataError where guard rails are to judge by samples that are held back, and none are.
    """
    order = list(range(len(classes)))
    state = shuffle(order, len(order), ((config.seed + 1) * 2654435761) & _WORD or 1)
    own = len(order) - config.replayed
    if own < 0:
        raise DataError(f"{config.replayed} samples are replayed, there are only {len(order)}", "give more samples")
    counts, held, learned = Counter(classes[:own]), dict.fromkeys(classes, 0), 0
    for i in range(len(order)):
        of_class = classes[order[i]]
        wanted = (counts[of_class] * config.share_q16 + 32768) // 65536 + config.held_back
        if order[i] < own and held[of_class] < min(wanted, counts[of_class] - 1):
            held[of_class] += 1
        else:
            order[learned], order[i] = order[i], order[learned]
            learned += 1
    if learned == len(order) and (config.do_no_harm or config.patience):
        raise DataError(
            f"of {own} samples of {len(counts)} classes, none is held back by held_back {config.held_back} and a "
            f"share of {config.held_back_share:g}, so that nothing tells whether an adapter is better",
            "give more samples of each class, hold back more of them, or train without guard rails",
        )
    return order[:learned], order[learned:], state


def shuffle(order: list[int], count: int, state: int) -> int:
    """Shuffle the first `count` of `order` in place by xorshift32 from `state`; returns the next state."""
    for i in range(count, 1, -1):
        state ^= (state << 13) & _WORD
        state ^= state >> 17
        state ^= (state << 5) & _WORD
        j = (state * i) >> 32
        order[i - 1], order[j] = order[j], order[i - 1]
    return state


def fit(
    learner: Learner,
    classes: Sequence[int],
    config: FitConfig,
    progress: Callable[[FitProgress], None] = lambda progress: None,
) -> FitResult:
    """Train from where the learner is; `classes` has one entry a sample, all 0 where there are no labels.

    `progress` is called after every sample and at the end of an epoch. Raises DataError as `split` does.
    """
    if not 1 <= len(classes) <= MAX_SAMPLES:
        raise DataError(f"{len(classes)} samples to learn from, the limits are 1 and {MAX_SAMPLES}", "give others")
    return _Run(learner, classes, config, progress).run()


@dataclass
class _Run:
    learner: Learner
    classes: Sequence[int]
    config: FitConfig
    progress: Callable[[FitProgress], None]
    epochs: int = 0
    steps: int = 0
    updates: int = 0
    undone: int = 0
    tried: int = 0
    end: End = End.ALL_EPOCHS
    kept: bool = False
    epoch: int = 0
    before: Score = Score(0, 0)
    after: Score = Score(0, 0)
    judged: Score = Score(0, 0)
    loss: int = 0
    best: Any = field(default=None, repr=False)

    def run(self) -> FitResult:
        config, learner = self.config, self.learner
        self.order, self.held_back, self.state = split(self.classes, config)
        original = learner.snapshot()
        self.best = original if config.do_no_harm else None
        try:
            self.before = self._judge()
            self._train()
            self._conclude()
        except BaseException:
            with contextlib.suppress(DeviceError):  # the one that led here says why
                learner.restore(original if self.best is None else self.best)
            raise
        return FitResult(
            len(self.order), len(self.held_back), self.epochs, self.steps, self.updates, self.undone, self.end,
            self.kept, self.epoch, self.before, self.after,
        )  # fmt: skip

    def _judge(self) -> Score:
        results = [self.learner.evaluate(index) for index in self.held_back]
        self.judged = Score(sum(right for _, right in results), sum(loss for loss, _ in results))
        return self.judged

    def _gains(self, now: Score) -> bool:
        """Whether the loss has become so much lower that the adapter from before may be replaced."""
        wanted = self.config.min_gain_q16 if self.config.do_no_harm else 0
        return wanted == 0 or self.before.loss - now.loss >= wanted

    def _report(self, ended: bool) -> None:
        total = len(self.order) * self.config.epochs
        self.progress(FitProgress(self.epochs, ended, self.steps, total, self.loss, self.judged))

    def _train(self) -> None:
        best, waited, patience = self.before, 0, self.config.patience
        while self.epochs < self.config.epochs and self.end is End.ALL_EPOCHS:
            self.epochs += 1
            self._epoch()
            improved = True
            if patience:
                best, improved = self._judge_epoch(best)
            self._report(ended=True)
            waited = 0 if improved else waited + 1
            if patience and waited >= patience and self.end is End.ALL_EPOCHS and self.epochs < self.config.epochs:
                self.end = End.OUT_OF_PATIENCE

    def _epoch(self) -> None:
        learner, config = self.learner, self.config
        self.loss, in_batch = 0, 0
        self.state = shuffle(self.order, len(self.order), self.state)
        learner.begin_epoch()
        for position, index in enumerate(self.order):
            rate = config.rate(self.tried)
            if in_batch == 0 and config.undo:
                learner.begin_batch()
            self.loss += learner.train(index, rate)
            self.steps += 1
            in_batch += 1
            self._report(ended=False)
            if in_batch == learner.batch_size or position + 1 == len(self.order):
                in_batch = 0
                self._finish_batch(rate)
                if self.end is End.TOO_MANY_UNDONE:
                    return

    def _finish_batch(self, rate: np.float32) -> None:
        if self.learner.batch_size > 1:
            self.learner.update(rate)
        self.tried += 1
        if not self.config.undo or self.learner.masters_sane():
            self.updates += 1
            return
        self.learner.undo_batch()
        self.undone += 1
        if self.undone >= self.config.max_undone:
            self.end = End.TOO_MANY_UNDONE

    def _judge_epoch(self, best: Score) -> tuple[Score, bool]:
        """Judge an epoch's adapter and keep it where it is the best so far; the best score, whether it is better."""
        now = self._judge()
        if self.epoch == 0 or now.better(self.after):
            self.after, self.epoch = now, self.epochs
        improved = self.best is None or now.better(best)
        not_worse = improved or (not self.kept and not best.better(now))
        if not_worse and self._gains(now):
            best, self.kept = now, self.updates > 0
            if self.kept or self.best is None:
                self.best = self.learner.snapshot()
        return best, improved

    def _conclude(self) -> None:
        if not self.config.patience:
            self.epoch, self.after = self.epochs, self._judge()
            worse = self.best is not None and self.before.better(self.after)
            self.kept = self.updates > 0 and self._gains(self.after) and not worse
        if self.best is not None and (self.config.patience or not self.kept):
            self.learner.restore(self.best)
