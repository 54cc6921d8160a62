"""A configuration's training step, counted: its firmware is built, and runs a few steps under QEMU."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tinypeft.adapters import AdapterConfig
from tinypeft.data import Dataset
from tinypeft.emulators import EMULATORS
from tinypeft.errors import ToolError
from tinypeft.generate import build_for_emulator, generate_from, open_project
from tinypeft.losses import target_on_device
from tinypeft.memory import MemoryConfig
from tinypeft.planning.costs import Setting

STEPS = 3
_LEARNING_RATE = 0.001


def measured_step(setting: Setting, adapter: AdapterConfig, dataset: Dataset) -> int:
    """Mean instructions of the first steps, their share of an update included where several samples make a batch.

    A sample without a label is trained as one of class 0. Raises ToolError where QEMU or the compiler is missing.
    """
    qemu = EMULATORS["qemu"]
    if (reason := qemu.missing()) is not None:
        raise ToolError(f"--measure counts under QEMU: {reason}", "leave out --measure, or: make setup")
    batch = setting.training.batch_size
    steps = -(-STEPS // batch) * batch
    with tempfile.TemporaryDirectory() as folder:
        memory = MemoryConfig(setting.memory.arena_regions, setting.memory.weights_region)
        directory = Path(folder) / "project"
        generate_from(
            setting.source,
            setting.board,
            directory,
            adapter=adapter,
            training=setting.training,
            memory=memory,
            stack_bytes=setting.stack_bytes,
            kernels=setting.kernels,
        )
        model = open_project(directory).model
        built, board = build_for_emulator(directory, setting.board, "qemu")
        counts = []
        with qemu.open(built, board, count_instructions=True) as device:
            device.reset_adapter(0)
            for step in range(steps):
                at = step % len(dataset)
                target = target_on_device(model.target, 0 if dataset.y is None else dataset.y[at])
                device.train_step(np.ascontiguousarray(dataset.x[at]).tobytes(), target, _LEARNING_RATE)
                counts.append(device.instructions())
                if model.update is not None and (step + 1) % batch == 0:
                    device.update(_LEARNING_RATE)
                    counts.append(device.instructions())
    known = [count for count in counts if count is not None]
    if not known:
        raise ToolError("QEMU counts no instructions here", "leave out --measure")
    return round(sum(known) / steps)
