"""The integer methods of the personalisation benchmark: METHODS, what each attaches and at which rate it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinypeft.api import Model
from tinypeft.benchmark.datasets import BenchmarkDataset


@dataclass(frozen=True)
class Method:
    """`kinds` as of `Model.attach`; `options` are the kinds' and r. Every method retrains a classifier beside.

    The learning rate is the dataset's times `rate`, the same for all of its users; none was searched for.
    """

    name: str
    kinds: str
    options: tuple[tuple[str, Any], ...] = ()
    rate: float = 1.0


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("head", "modules_to_save"),
        Method("lora", "lora", (("r", 4),)),
        Method("lora int4", "lora", (("r", 4), ("lora_bits", 4))),
        Method("bitfit", "bitfit", rate=0.25),
        Method("ia3", "ia3"),
        Method("bottleneck", "bottleneck"),
        Method("sparse", "sparse", (("density", 0.25),), rate=0.5),
    )
}


def attached(dataset: BenchmarkDataset, base: Model, method: Method) -> Model:
    """The base with the method's adapters, trained as the dataset says."""
    options = dict(method.options)
    if dataset.metric == "mse":  # an autoencoder has no classifier: the head is its last layer
        options |= {"loss": "mean_squared_error", "target": "input"}
    if dataset.class_weights:
        options["class_weights"] = dataset.class_weights
    kinds = method.kinds.split("+")
    head = [op.layer for op in base.source.graph.operations if op.kind == "FULLY_CONNECTED"][-1:]
    if kinds == ["modules_to_save"]:
        return base.attach(method.kinds, modules_to_save=head, **options)
    targets = {kind: dataset.target_modules for kind in kinds} if dataset.target_modules else {}
    saved = head if dataset.metric == "accuracy" else []
    return base.attach(method.kinds, modules_to_save=saved, targets=targets, **options)
