"""The configurations of the small models, compiled and analysed."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import small_models
from projects import CONFIGURATIONS

import tinypeft
from tinypeft.analysis.analyse import analyse
from tinypeft.analysis.memory import memory_usage
from tinypeft.analysis.report import Analysis
from tinypeft.boards import load_board
from tinypeft.compiler import CompiledModel
from tinypeft.fitting import fits
from tinypeft.generate import compile_for, sources_for

SCHEMAS = Path(tinypeft.__file__).parent / "schemas"
STACK = 4096


@functools.cache
def compiled(name: str, board: str = "stm32f4_discovery") -> CompiledModel:
    """A configuration of projects.CONFIGURATIONS."""
    model, adapter, training = CONFIGURATIONS[name]
    return compile_for(small_models.load(model), load_board(board), adapter, training, STACK)


@functools.cache
def analysed(name: str, board_name: str = "stm32f4_discovery") -> Analysis:
    """Its analysis, with estimates."""
    model, board = compiled(name, board_name), load_board(board_name)
    memory = memory_usage(model, sources_for(model, board), STACK, None)
    fitting = fits(model, {board.flash.name: memory.flash.bytes}, board, STACK)
    return analyse(model, memory, file=f"{name}.tflite", stack_bytes=STACK, board=board, fits=fitting)


def validate(value: Any, schema: str) -> None:
    """Raise ValidationError where `value` is not as schemas/<schema>.json says."""
    document = json.loads((SCHEMAS / f"{schema}.json").read_text())
    jsonschema.Draft202012Validator(document).validate(value)
