"""Guard rails: interpreter, device that the host drives and device by itself decide and learn alike, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fits import ROOM, Outcome, Task, task, with_store
from projects import Built

from tinypeft.arithmetic import MASTER_LIMIT
from tinypeft.device.fit import End, Score
from tinypeft.errors import DataError, DeviceError
from tinypeft.fit import FitConfig, fit, shuffle, split
from tinypeft.interpreter import run_graph
from tinypeft.learners import DeviceLearner, InterpreterLearner
from tinypeft.schedule import Schedule

MODELS = ("plain", "batches", "binary", "regression", "autoencoder", "no_saved_module")
LATENTS = ("latents", "latents_batches", "latents_input")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """(name) -> that project with room for samples."""
    built: dict[str, Built] = {}

    def build(name: str) -> Built:
        if name not in built:
            built[name] = with_store(name, tmp_path_factory.mktemp(name))
        return built[name]

    return build


def everywhere(of: Task, config: FitConfig) -> Outcome:
    """The outcome, which is the same on the interpreter and on the twin, driven and by itself."""
    expected = of.interpreted(config)
    with of.built.twin() as device:
        assert of.driven(device, config) == expected
        assert of.alone(device, config) == expected
    return expected


@pytest.mark.parametrize("name", MODELS)
def test_alike_everywhere(store: Callable[[str], Built], name: str) -> None:
    """Every kind of target, batches, models whose classifier is not retrained."""
    built = store(name)
    rate = 0.0005 if name == "autoencoder" else built.learning_rate  # its random weights diverge at what others take
    config = FitConfig(3, rate, seed=3, held_back=1, held_back_share=0.1, patience=2)
    outcome = everywhere(task(built), config)
    result = outcome.result
    assert result.learned + result.held_back == ROOM and result.held_back >= 1
    assert len(outcome.epochs) == result.epochs and outcome.epochs[-1].steps == result.steps
    assert result.steps == result.epochs * result.learned
    assert result.updates == result.epochs * -(-result.learned // built.model.training_config.batch_size)


@pytest.mark.parametrize("name", LATENTS)
def test_alike_from_latents(store: Callable[[str], Built], name: str) -> None:
    """Every step from what the first epoch kept, by itself and driven: what the interpreter learns without latents."""
    built = store(name)
    rate = 0.0005 if name == "latents_input" else built.learning_rate
    of, config = task(built), FitConfig(3, rate, seed=3, held_back=1, do_no_harm=False)
    outcome = everywhere(of, config)
    assert outcome.result.updates > 0 and outcome.adapter != of.untrained()[0]
    with built.twin() as device:
        device.reset_adapter(7)
        learner = DeviceLearner(built.model, device, of.x, of.y, np.arange(ROOM))
        fit(learner, of.classes, config)
    assert len(learner.steps.encodings) == outcome.result.learned < outcome.result.steps


def test_undone_from_latents(store: Callable[[str], Built]) -> None:
    """What a driven device learns again after an update that diverged, it learns from latents too."""
    of = task(store("latents"))
    config = Spiked(2, of.built.learning_rate, seed=3, do_no_harm=False)
    expected = of.interpreted(config)
    assert expected.result.undone == 1
    with of.built.twin() as device:
        assert of.driven(device, config) == expected


def test_replayed_samples_are_never_held_back(store: Callable[[str], Built]) -> None:
    of = task(store("plain"))
    for replayed in (1, 5):
        config = FitConfig(2, of.built.learning_rate, seed=3, held_back_share=0.5, replayed=replayed, do_no_harm=False)
        learned, held_back, _ = split(of.classes, config)
        own = len(of.classes) - replayed
        assert held_back and max(held_back) < own and set(range(own, len(of.classes))) <= set(learned)
        assert everywhere(of, config).result.held_back == len(held_back)
    with pytest.raises(DataError, match="samples are replayed, there are only"):
        split(of.classes, FitConfig(1, 0.1, held_back=1, replayed=len(of.classes) + 1))


@pytest.mark.parametrize("patience", [0, 2])
def test_a_gain_that_is_asked_for(store: Callable[[str], Built], patience: int) -> None:
    """As large as it was: a new adapter; larger than it was: the one from before."""
    of = task(store("plain"))
    config = FitConfig(3, of.built.learning_rate, seed=3, held_back=1, patience=patience)
    any_gain = everywhere(of, config).result
    gain = (any_gain.before.loss - any_gain.after.loss) / 65536
    assert any_gain.kept and gain > 0
    kept = everywhere(of, replace(config, min_gain=gain))
    assert kept.result.kept and kept.result.epoch == any_gain.epoch
    refused = everywhere(of, replace(config, min_gain=gain + 1 / 65536))
    assert not refused.result.kept and (refused.adapter, refused.training) == of.untrained()


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_schedules(store: Callable[[str], Built], kind: str) -> None:
    """The rate of each update, as it was asked for: another adapter than that of a constant one."""
    of = task(store("batches"))
    config = FitConfig(2, Schedule(of.built.learning_rate, kind, 2, 8, 0.1), seed=3, held_back=1)
    outcome = everywhere(of, config)
    assert outcome.adapter != of.interpreted(replace(config, learning_rate=of.built.learning_rate)).adapter


def test_a_rate_that_diverges_is_undone(store: Callable[[str], Built]) -> None:
    """No update stays, and the adapter from before is back to the byte, without the other rail too."""
    for name in ("plain", "batches"):
        of = task(store(name))
        config = FitConfig(3, 1e30, seed=1, do_no_harm=False, max_undone=2)
        outcome = everywhere(of, config)
        assert (outcome.result.undone, outcome.result.updates, outcome.result.end) == (2, 0, End.TOO_MANY_UNDONE)
        assert not outcome.result.kept and (outcome.adapter, outcome.training) == of.untrained()
        left = everywhere(of, replace(config, undo=False))
        assert left.result.undone == 0 and left.result.kept and left.adapter != outcome.adapter


class Spiked(FitConfig):
    """The rate of one update is huge."""

    def rate(self, update: int) -> np.float32:
        return np.float32(1e30) if update == 4 else super().rate(update)


@pytest.mark.parametrize("name", ["plain", "batches"])
def test_one_update_that_diverges_leaves_no_trace(store: Callable[[str], Built], name: str) -> None:
    """A driven device, which learns again up to there, has the state that the interpreter had kept."""
    of = task(store(name))
    config = Spiked(2, of.built.learning_rate, seed=3, do_no_harm=False)
    expected = of.interpreted(config)
    assert expected.result.undone == 1 and expected.result.end is End.ALL_EPOCHS and expected.result.kept
    with of.built.twin() as device:
        assert of.driven(device, config) == expected


def with_wrong_labels(built: Built, config: FitConfig) -> Task:
    """What is held back is labelled as the model sees it, what is learned from as another class."""
    model, pool = built.model, built.samples(200, 5).x
    seen = [int(run_graph(model.inference, {model.inference.inputs[0].name: x}, model.fresh_state(7))[1].argmax())
            for x in pool]  # fmt: skip
    first, second = (int(c) for c in np.argsort(-np.bincount(seen, minlength=model.classes))[:2])
    y = np.where(np.arange(ROOM) % 2 == 0, first, second)
    _, held_back, _ = split(list(y), config)
    x = []
    for number, label in enumerate(y):
        other = second if label == first else first
        x.append(pool[[i for i, c in enumerate(seen) if c == (label if number in held_back else other)][number // 8]])
    return Task(built, np.stack(x), y)


def test_wrong_labels_do_no_harm(store: Callable[[str], Built]) -> None:
    built = store("plain")
    config = FitConfig(4, 0.2, seed=2, held_back=3)
    of = with_wrong_labels(built, config)
    outcome = everywhere(of, config)
    result = outcome.result
    assert result.before.right == 6 and result.before.better(result.after)
    assert not result.kept and (outcome.adapter, outcome.training) == of.untrained()
    harmed = everywhere(of, replace(config, do_no_harm=False))
    assert harmed.result.kept and harmed.adapter != outcome.adapter and harmed.result.after == result.after


def test_early_stopping_keeps_the_best(store: Callable[[str], Built]) -> None:
    """Random labels are learned by heart: what is held back soon gets worse."""
    of = task(store("plain"), seed=3)
    config = FitConfig(8, 0.1, seed=3, held_back=2, patience=2, do_no_harm=False)
    outcome = everywhere(of, config)
    result = outcome.result
    assert result.end is End.OUT_OF_PATIENCE and result.epochs == result.epoch + 2 < 8
    scores = [epoch.score for epoch in outcome.epochs]
    assert result.after == scores[result.epoch - 1] and not any(score.better(result.after) for score in scores)
    best = of.interpreted(replace(config, epochs=result.epoch, patience=0))
    assert (best.adapter, best.training) == (outcome.adapter, outcome.training)
    assert of.interpreted(replace(config, epochs=result.epochs, patience=0)).adapter != outcome.adapter


def test_evaluation_is_what_training_sees(store: Callable[[str], Built]) -> None:
    """The loss of the same sample in front of a step, and it leaves the state as it is."""
    for name in MODELS:
        of = task(store(name))
        state = of.built.model.fresh_state(7)
        learner = InterpreterLearner(of.built.model, state, of.x, of.y, np.arange(ROOM))
        for index in range(3):
            before = learner.snapshot()
            loss, right = learner.evaluate(index)
            assert all((state[key] == value).all() for key, value in before.items())
            assert learner.train(index, np.float32(of.built.learning_rate)) == int(np.float32(loss))
            assert 0 <= right <= (of.built.model.target.size if of.built.model.target is not None else 0)


def test_an_error_in_the_middle_puts_the_adapter_back(store: Callable[[str], Built]) -> None:
    of = task(store("plain"))
    with of.built.twin() as device:
        device.reset_adapter(7)
        learner = DeviceLearner(of.built.model, device, of.x, of.y, np.arange(ROOM))
        step, done = learner.train, []

        def fail(index: int, rate: np.float32) -> int:
            done.append(index)
            if len(done) == 5:
                raise KeyboardInterrupt
            return step(index, rate)

        learner.train = fail  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            fit(learner, of.classes, FitConfig(1, 0.1, held_back=1))
        assert (device.read("adapter"), device.read("training")) == of.untrained()


def test_insane_masters(store: Callable[[str], Built]) -> None:
    of = task(store("plain"))
    learner = InterpreterLearner(of.built.model, of.built.model.fresh_state(0), of.x, of.y, np.arange(ROOM))
    master = next(name for name in learner.state if name.endswith("_master"))
    assert learner.masters_sane()
    for value in (MASTER_LIMIT, -MASTER_LIMIT, np.inf, np.nan):
        learner.state[master].reshape(-1)[-1] = value
        assert not learner.masters_sane()
    learner.state[master].reshape(-1)[-1] = np.nextafter(MASTER_LIMIT, np.float32(0))
    assert learner.masters_sane()


@pytest.mark.parametrize("seed", range(20))
def test_what_is_held_back(seed: int) -> None:
    """Of every class its share, never all of it, each sample on one side; another seed holds back others."""
    y = [0] * 10 + [1] * 5 + [2]
    cases: list[tuple[dict, tuple[int, ...]]] = [
        ({"held_back": 3}, (3, 3, 0)),
        ({"held_back_share": 0.3}, (3, 2, 0)),
        ({"held_back": 100}, (9, 4, 0)),
        ({"held_back": 1, "held_back_share": 0.2}, (3, 2, 0)),
    ]
    for settings, wanted in cases:
        learned, held_back, _ = split(y, FitConfig(1, 0.1, seed=seed, **settings))
        assert sorted(learned + held_back) == list(range(16))
        assert tuple(sum(y[i] == c for i in held_back) for c in range(3)) == wanted
    assert (
        split(y, FitConfig(1, 0.1, seed=seed, held_back=3))[1] != split(y, FitConfig(1, 0.1, seed=99, held_back=3))[1]
    )


def test_the_order_is_fair() -> None:
    """Over many shuffles, every element is about as often in every place."""
    state, places = 1, np.zeros((5, 5))
    for _ in range(5000):
        order = list(range(5))
        state = shuffle(order, 5, state)
        places[order, range(5)] += 1
    assert abs(places - 1000).max() < 150


def test_scores() -> None:
    assert Score(2, 900).better(Score(1, 0)) and Score(1, 5).better(Score(1, 6))
    assert not Score(1, 5).better(Score(1, 5)) and not Score(0, 0).better(Score(1, 9))


REFUSED = {
    "nothing held back": (FitConfig(1, 0.1), [0, 0, 1], "of 3 samples of 2 classes, none is held back by held_back 0"),
    "one of a class": (FitConfig(1, 0.1, held_back=2), [0, 1, 2], "none is held back by held_back 2"),
    "patience": (FitConfig(1, 0.1, patience=1, do_no_harm=False), [0, 0], "none is held back"),
    "no samples": (FitConfig(1, 0.1), [], "0 samples to learn from, the limits are 1 and 65535"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(store: Callable[[str], Built], case: str) -> None:
    config, classes, message = REFUSED[case]
    of = task(store("plain"))
    learner = InterpreterLearner(of.built.model, of.built.model.fresh_state(0), of.x, of.y, np.arange(ROOM))
    with pytest.raises(DataError, match=message) as caught:
        fit(learner, classes, config)
    assert caught.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"epochs": 65536},
        {"seed": -1},
        {"held_back_share": 1.5},
        {"held_back": -1},
        {"max_undone": 0},
        {"replayed": 65536},
        {"min_gain": -1.0},
    ],
)
def test_settings_out_of_range(settings: dict) -> None:
    (name,) = settings
    with pytest.raises(DataError, match=f"{name} is .*the limits are"):
        FitConfig(**({"epochs": 1, "learning_rate": 0.1} | settings))


def test_more_samples_than_room(store: Callable[[str], Built]) -> None:
    of = task(store("plain"), ROOM + 1)
    with (
        of.built.twin() as device,
        pytest.raises(DeviceError, match=f"{ROOM + 1} samples are more than the {ROOM}") as e,
    ):
        of.alone(device, FitConfig(1, 0.1, held_back=1))
    assert e.value.hint is not None and f"--samples {ROOM + 1}" in e.value.hint


def test_a_project_without_a_store(project: Callable[[str], Built], tmp_path: Path) -> None:
    of = task(project("plain"))
    with of.built.twin() as device, pytest.raises(DeviceError, match="plain has no store of samples"):
        of.alone(device, FitConfig(1, 0.1, held_back=1))
