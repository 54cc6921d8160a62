"""The process that trains: `python -m tinypeft.benchmark.training`, a job as JSON on stdin, its results into the cache.

A job is {"dataset", "bases": [{"key", "folder"}], "runs": [...]}; a run is described in float_baselines. On stdout, a
JSON object a line: {"what", "done", "total"} as it proceeds, {"error", "message", "hint"} if it fails.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.benchmark.base_models import CALIBRATION_FILE, MODEL_FILE
from tinypeft.benchmark.cache import new_folder, write_json
from tinypeft.benchmark.datasets import BaseTraining, BenchmarkDataset, load_benchmark
from tinypeft.benchmark.float_network import head_of
from tinypeft.benchmark.float_training import FloatTrainer
from tinypeft.benchmark.networks import build_network
from tinypeft.errors import TinypeftError, ToolError

Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do the job."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)

        def send(message: dict[str, Any]) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        try:
            job = json.load(sys.stdin)
            send({"what": "starting TensorFlow", "done": 0, "total": 1})
            start_tensorflow()
            dataset = load_benchmark(job["dataset"])
            for base in job["bases"]:
                train_base(dataset, base["key"], Path(base["folder"]), send)
            train_runs(dataset, job["runs"], send)
        except TinypeftError as error:
            send({"error": type(error).__name__, "message": error.message, "hint": error.hint})


def start_tensorflow() -> None:
    """One thread and deterministic operations: a job gives the same bytes again. ToolError if it cannot be imported."""
    try:
        import keras  # noqa: F401
        import tensorflow as tf
    except ImportError as error:
        raise ToolError(f"TensorFlow cannot be imported: {error}", "pip install tinypeft[keras]") from error
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()


def train_base(dataset: BenchmarkDataset, key: str, folder: Path, send: Send) -> None:
    """Train the base model `key` and write it, with its calibration samples, as `folder`."""
    import keras

    recipe = dataset.base
    assert isinstance(recipe, BaseTraining)
    samples = dataset.base_samples(key)
    what = f"{dataset.name}: training the base model {key}"
    send({"what": what, "done": 0, "total": recipe.epochs})
    keras.backend.clear_session()
    keras.utils.set_random_seed(recipe.seed)
    classes = int(samples.y.max()) + 1
    model = build_network(recipe.network, samples.x.shape[1:], classes)
    rate: Any = recipe.learning_rate
    if recipe.decay:
        steps = recipe.epochs * math.ceil(len(samples) / recipe.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: send({"what": what, "done": epoch + 1, "total": recipe.epochs})
    )
    weights = class_weights(samples.y, recipe.balance)
    model.fit(
        samples.x,
        samples.y,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        class_weight=weights,
        callbacks=[tell],
        verbose=0,
    )
    if weights is not None:
        adjust_logits(head_of(model), weights)
    with new_folder(folder) as unfinished:
        model.save(unfinished / MODEL_FILE)
        np.save(unfinished / CALIBRATION_FILE, dataset.calibration(key))


def class_weights(y: np.ndarray, balance: float) -> dict[int, float] | None:
    """Label -> count ** -balance, so scaled that the mean over the samples of y (N,) is 1; None where all weigh 1."""
    if balance == 0:
        return None
    labels, counts = np.unique(y, return_counts=True)
    weights = counts.astype(np.float64) ** -balance
    weights *= len(y) / float(weights @ counts)
    return {int(label): float(weight) for label, weight in zip(labels, weights, strict=True)}


def adjust_logits(head: Any, weights: dict[int, float]) -> None:
    """Take the logarithms of the classes' weights from the bias of the layer `head`."""
    kernel, bias = head.get_weights()
    for label, weight in weights.items():
        bias[label] -= math.log(weight)
    head.set_weights([kernel, bias])


def train_runs(dataset: BenchmarkDataset, runs: list[dict[str, Any]], send: Send) -> None:
    """Do every run and write its metric, under "value", to its file; null where training diverged."""
    trainers: dict[str, FloatTrainer] = {}
    for number, run in enumerate(runs):
        method, user, seed = run["method"], run["user"], run["seed"]
        rate = f" at {run['rate']:g}" if run["rate"] else ""
        send({"what": f"{dataset.name}: float {method}{rate}, {user}, seed {seed}", "done": number, "total": len(runs)})
        split = dataset.split(user, seed)
        trainer = trainers.get(method)
        if trainer is None:
            trainer = trainers[method] = FloatTrainer(Path(run["model"]), method, dataset)
        trainer.start(Path(run["model"]), seed)
        if method != "base":
            trainer.train(split.train, run["epochs"], run["rate"], seed)
        value = trainer.measure(split.test)
        write_json(Path(run["path"]), {"value": value if np.isfinite(value) else None, "run": run})
    if runs:
        send({"what": f"{dataset.name}: float baselines", "done": len(runs), "total": len(runs)})


if __name__ == "__main__":
    main()
