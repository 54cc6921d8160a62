"""Random graphs, as they are and with dead channels in them, compute the same without their constant channels."""

from __future__ import annotations

import random

import numpy as np
import pytest
from choices import RandomChoices
from dead_channels import assert_same, deadened, inputs_of
from random_graphs import draw_graph

from tinypeft.errors import ModelError
from tinypeft.frontend import load_tflite
from tinypeft.stages.constant_channels import drop_constant_channels


@pytest.mark.parametrize("part", range(4))
def test_random_graphs(part: int) -> None:
    narrowed = 0
    for seed in range(50 * part, 50 * part + 50):
        case = draw_graph(RandomChoices(np.random.default_rng(seed)))
        try:
            graph = load_tflite("fuzz", case.tflite, {}).graph
        except ModelError:
            continue
        for given in (graph, deadened(graph, random.Random(seed))):
            found = drop_constant_channels(given)
            narrowed += found is not given
            assert_same(given, found, inputs_of(given, 1, seed))
    assert narrowed > 3
