"""Random int8 graphs as .tflite files: branches, residuals, views, several readers of a tensor, extreme scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from choices import Choices
from comparing import BUDGET, SPREAD, Case
from graph_layers import LAYERS, names
from growing import Grower
from random_operators import shaped

from tinypeft.adapters import AdapterConfig
from tinypeft.ir import Tensor
from tinypeft.stages.autodiff import TrainingConfig

#: The most elements of an input
LARGEST_INPUT = 1500
#: The most of a tensor that is joined with others to an output without being pooled
LARGEST_END = 600

#: settings of the optimisers that training draws one of
OPTIMIZERS: list[dict[str, Any]] = [
    *({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    *({"optimizer": "adam"}, {"optimizer": "adam8"}),
]


def draw_graph(choices: Choices) -> Case:
    """A random graph; one in three is a classifier with adapters, to be trained for two steps."""
    trained = choices.chance(33)
    grower = Grower(choices, _input_shape(choices))
    for _ in range(choices.integer(1, 14)):
        name = choices.choose(names())
        x = grower.pick()
        LAYERS[name](grower, x)
    if not grower.nodes:
        grower.requantised(grower.pick())
    y = join_ends(grower)
    memory = SPREAD if choices.chance(10) else BUDGET if trained and choices.chance(50) else ""
    case = Case("graph", b"", choices.integer(0, 1 << 20), memory=memory)
    if not trained:
        return replace(case, tflite=grower.build())
    y = grower.dense(grower.flat(y), choices.integer(2, 6), activation=0)
    for _ in range(choices.integer(0, 2)):
        if choices.chance(50):
            y = grower.softmax(y)
        else:
            y = grower.add(shaped(y, grower.like("view", y, y.shape)))
    training = _training(choices)
    return replace(case, tflite=grower.build(), adapter=_adapter(choices), training=training, steps=2)


def _training(choices: Choices) -> TrainingConfig:
    """Every optimiser, sample by sample or in batches, whose gradient may be clipped."""
    optimizer: dict[str, Any] = choices.choose(OPTIMIZERS)
    batch: dict[str, Any] = choices.choose([{}, {}, {"batch_size": 2}, {"batch_size": 2, "clip_norm": 0.1}])
    return TrainingConfig(**optimizer, **batch, weight_decay=choices.choose([0.0, 0.01]))


def _adapter(choices: Choices) -> AdapterConfig:
    """LoRA on all layers or some, the classifier retrained or not."""
    saved: Any = choices.choose([None, ()])
    return AdapterConfig(r=choices.integer(1, 5), lora_alpha=choices.choose([8.0, 1.0, 64.0]), modules_to_save=saved)


def _input_shape(choices: Choices) -> tuple[int, ...]:
    """An image, at times of one pixel or channel; a sequence; a vector."""
    style = choices.integer(0, 9)
    if style == 9:
        return 1, choices.integer(1, 60)
    if style == 8:
        return 1, choices.integer(1, 14), choices.integer(1, 8)
    if style == 7:
        return 1, 1, 1, choices.integer(1, 16)
    shape = 1, choices.integer(1, 11), choices.integer(1, 11), choices.integer(1, 9)
    return shape if np.prod(shape) <= LARGEST_INPUT else (*shape[:3], 1)


def _pooled(grower: Grower, x: Tensor) -> Tensor:
    """At times the mean over all but the last axis; always where `x` is large."""
    large = x.size > LARGEST_END or grower.choices.chance(35)
    return grower.mean(x, list(range(1, len(x.shape) - 1))) if len(x.shape) > 2 and large else x


def join_ends(grower: Grower) -> Tensor:
    """One output of all tensors that nothing has read: a file for tinypeft has a single one."""
    ends = [_pooled(grower, x) for x in grower.unread()]
    if len(ends) == 1:
        return ends[0]
    scale, zero_point = grower.quantisation(ends[-1])
    pieces = [grower.as_quantised(grower.flat(x), scale, zero_point) for x in ends]
    return grower.concatenated(pieces, 1)
