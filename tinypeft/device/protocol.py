"""The numbers of the protocol, as in tp_server.h, and what comes back as Python values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

PROTOCOL_VERSION = 4


class Command(IntEnum):
    """tp_command."""

    INFO = 0
    WRITE = 1
    READ = 2
    INFER = 3
    TRAIN_STEP = 4
    UPDATE = 5
    RESET_ADAPTER = 6
    REQUANTIZE = 7
    EXPORT_ADAPTER = 8
    LOAD_ADAPTER = 9
    STATS = 10
    EVALUATE = 11
    FIT = 12
    ENCODE = 13
    TRAIN_LATENTS = 14
    MERGE = 15
    UNMERGE = 16


class Object(IntEnum):
    """tp_object: what can be read and, but for output and logits, written."""

    INPUT = 0
    OUTPUT = 1
    LOGITS = 2
    ADAPTER = 3
    TRAINING = 4
    STAGING = 5
    TARGET = 6
    SAMPLES = 7
    LATENTS = 8


#: The commands that are read requests; the others are write requests.
READS = (Command.INFO, Command.READ, Command.STATS)


@dataclass(frozen=True)
class Info:
    """What a device says about itself; sizes in bytes, those of objects it lacks 0.

    classes: labels are below it, 0 where training takes none. samples: how many its store has room for, each of
    `sample_bytes`.
    """

    name: str
    fingerprint: bytes
    protocol: int
    max_payload: int
    input_bytes: int
    output_bytes: int
    logits_bytes: int
    adapter_bytes: int
    training_bytes: int
    package_bytes: int
    arena_bytes: int
    target_bytes: int
    classes: int
    samples: int
    sample_bytes: int

    @property
    def samples_bytes(self) -> int:
        """Size of the store."""
        return self.samples * self.sample_bytes


class Stats(NamedTuple):
    """Stack size and most used bytes (0: unknown), and whether the arena's guard words are as they were set."""

    stack_bytes: int
    stack_high_water: int
    guards_intact: bool


@dataclass(frozen=True)
class TraceRecord:
    """One output of one operation: its index, its size and `trace_crc32` of its value."""

    index: int
    size: int
    crc32: int


class Dump(NamedTuple):
    """The whole value of one output; `exponent` is that of block floating point, else 0."""

    data: bytes
    exponent: int


@dataclass
class Run:
    """What a command that runs the model gave back.

    `loss` of a training step, as float32; `masters_sane` of one and of an update: whether every master is finite and
    below the limit at which updates stop it. `evaluated`: loss in Q16.16 and right decisions. `latent_bytes`: how many
    a sample takes, where one was encoded.
    """

    output: bytes = b""
    loss: float | None = None
    masters_sane: bool = True
    evaluated: tuple[int, int] | None = None
    latent_bytes: int = 0
    trace: list[TraceRecord] = field(default_factory=list)
    dump: Dump | None = None
