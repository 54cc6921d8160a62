"""Learning-rate schedules: the C of the firmware to the bit, and their shapes against a plain computation."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import FIRMWARE, WARNINGS, compile_library

from tinypeft.errors import DataError
from tinypeft.schedule import KINDS, MAX_STEPS, Schedule, scheduled

SOURCE = FIRMWARE / "runtime" / "tp_schedule.c"


@functools.cache
def _library() -> ctypes.CDLL:
    parameters = "int32_t kind, float rate, uint32_t warmup, uint32_t total, float end, int32_t count"
    head = f"void rates({parameters}, const uint32_t *steps, float *rates_of)"
    lines = [
        f'#include "{SOURCE}"',
        f"{head};",
        f"{head} {{",
        "  const tp_schedule schedule = {(tp_schedule_kind)kind, rate, warmup, total, end};",
        "  for (int32_t i = 0; i < count; i++) {",
        "    rates_of[i] = tp_learning_rate(&schedule, steps[i]);",
        "  }",
        "}",
    ]
    return compile_library("\n".join(lines) + "\n")


def in_c(schedule: Schedule, steps: np.ndarray) -> np.ndarray:
    """The rates that the firmware computes."""
    given, rates = np.ascontiguousarray(steps, np.uint32), np.empty(len(steps), np.float32)
    _library().rates(
        ["constant", "linear", "cosine"].index(schedule.kind), ctypes.c_float(schedule.learning_rate),
        ctypes.c_uint32(schedule.warmup_steps), ctypes.c_uint32(schedule.total_steps),
        ctypes.c_float(schedule.final_fraction), len(steps),
        ctypes.c_void_p(given.ctypes.data), ctypes.c_void_p(rates.ctypes.data),
    )  # fmt: skip
    return rates


def assert_same_in_c(schedule: Schedule, steps: Any) -> None:
    rates = np.array([schedule.rate(int(step)) for step in steps])
    assert rates.dtype == np.float32
    np.testing.assert_array_equal(rates.view(np.int32), in_c(schedule, np.asarray(steps)).view(np.int32))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS), st.floats(1e-8, 1e3), st.integers(0, 300), st.integers(0, 500), st.floats(0, 1, width=32)
)
def test_c_gives_the_same_bits_at_every_step(kind: str, rate: float, warmup: int, rest: int, final: float) -> None:
    total, final = warmup + rest, 0.0 if kind == "constant" else final
    assert_same_in_c(Schedule(rate, kind, warmup, total, final), range(total + 5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("warmup", "total"), [(0, MAX_STEPS), (MAX_STEPS, MAX_STEPS), (1 << 25, 1 << 30)])
def test_c_gives_the_same_bits_over_very_many_steps(kind: str, warmup: int, total: int) -> None:
    """Steps of more than 24 bits, and all that an uint32 holds."""
    steps = np.random.default_rng(1).integers(0, 1 << 32, 3000, dtype=np.uint32)
    edges = [0, 1, warmup - 1, warmup, total - 1, total, (1 << 32) - 1]
    final = 0.0 if kind == "constant" else 0.1
    assert_same_in_c(Schedule(0.02, kind, warmup, total, final), [*steps, *(e for e in edges if e >= 0)])


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind: str) -> None:
    schedule = Schedule(0.4, kind, 10, 110, 0.0 if kind == "constant" else 0.25)
    rates = np.array([schedule.rate(step) for step in range(130)], np.float64)
    np.testing.assert_allclose(rates[:10], 0.4 * np.arange(1, 11) / 10, rtol=1e-6)
    progress = np.minimum(np.arange(120) / 100, 1)
    left = {"constant": 1 + 0 * progress, "linear": 1 - progress, "cosine": (1 + np.cos(np.pi * progress)) / 2}[kind]
    expected = 0.4 if kind == "constant" else 0.4 * (0.25 + 0.75 * left)
    np.testing.assert_allclose(rates[10:], expected, rtol=2e-6)


def test_a_rate_never_leaves_its_limits() -> None:
    for kind in KINDS:
        schedule = Schedule(1.0, kind, 0, 1000)
        rates = [schedule.rate(step) for step in range(1001)]
        assert max(rates) == 1 and min(rates) >= 0
        assert all(later <= earlier for earlier, later in zip(rates, rates[1:], strict=False)), kind
        assert rates[-1] == (1 if kind == "constant" else 0)


def test_a_warm_up_is_a_fraction_or_a_number() -> None:
    assert scheduled(0.1, "cosine", 0.25, 0.0, 50).warmup_steps == 12
    assert scheduled(0.1, "cosine", 7, 0.0, 50).warmup_steps == 7
    assert scheduled(0.1, "constant", 70, 0.0, 50).warmup_steps == 70, "a constant rate need not be reached"
    assert scheduled(0.1, "linear", 0, 0.0, 50) == Schedule(0.1, "linear", 0, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, "step", 0, 0.0, 10), "there is no schedule step"),
        ((0.1, "cosine", 11, 0.0, 10), "the warm-up takes 11 of 10 updates"),
        ((0.1, "cosine", 1.5, 0.0, 10), "the warm-up is 1.5, which is neither"),
        ((0.1, "cosine", -1, 0.0, 10), "the warm-up is -1"),
        ((0.1, "cosine", float("nan"), 0.0, 10), "the warm-up is nan"),
        ((0.1, "cosine", float("inf"), 0.0, 10), "the warm-up is inf"),
        ((0.1, "constant", 0, 0.5, 10), "the final fraction is 0.5, but a constant rate has none"),
        ((0.1, "linear", 0, 1.5, 10), "the final fraction is 1.5"),
        ((0.1, "linear", 0, 0.0, 2**31), "the limits are 0 and 2147483647"),
    ],
)
def test_settings_are_checked(arguments: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        scheduled(*arguments)
    assert caught.value.hint


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc"])
def test_compiles_without_a_warning(compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *WARNINGS, "-O2", f"-I{FIRMWARE / 'include'}", "-c", "-o", "/dev/null", str(SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
