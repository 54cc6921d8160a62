"""Exact instruction counts on QEMU: plugins built from C on first use, and the files that they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinypeft.host_library import build_library

_FOLDER = Path(__file__).resolve().parent
_HEADERS = [_FOLDER / "markers.h", _FOLDER / "qemu_plugin_abi.h"]


@dataclass(frozen=True)
class Executed:
    """What an instruction did: `taken` counts it as a branch that was taken, `unaligned` its unaligned accesses."""

    count: int
    taken: int = 0
    unaligned: int = 0


@dataclass(frozen=True)
class Segment:
    """A call of the generated code and what prepares it; `instructions` by address.

    entry  the address to which the generated code was left: that of the function which was called, or of its own
           caller; 0 where it was not left
    """

    entry: int
    instructions: dict[int, Executed]

    @property
    def count(self) -> int:
        """Instructions executed."""
        return sum(each.count for each in self.instructions.values())


def build_plugin() -> tuple[Path | None, str | None]:
    """(the path of the plugin that counts, None), or (None, why there is none)."""
    return build_library(_FOLDER / "plugin.c", _HEADERS, purpose="counting plugin")


def build_profiler() -> tuple[Path | None, str | None]:
    """The same of the plugin that counts each instruction, call by call."""
    return build_library(_FOLDER / "profile.c", _HEADERS, purpose="profiling plugin")


def profiler_arguments(glue: Sequence[range], *, unaligned: bool) -> list[str]:
    """What the plugin is told: where the generated code is, and whether to watch the addresses of accesses."""
    return [*(f"glue={r.start:x}-{r.stop:x}" for r in glue), *(["unaligned=on"] if unaligned else [])]


def last_count(counts: Path) -> int | None:
    """The newest line of the counting plugin's file; None before the first region has ended."""
    lines = counts.read_text().split() if counts.exists() else []
    return int(lines[-1]) if lines else None


def last_profile(profile: Path) -> list[Segment]:
    """The segments of the newest region in the profiling plugin's file, in order; none before the first has ended."""
    text = profile.read_text() if profile.exists() else ""
    regions = text.split("end\n")[:-1]
    segments: list[Segment] = []
    for line in regions[-1].splitlines() if regions else ():
        address, *numbers = line.split()
        if address == "segment":
            segments.append(Segment(int(numbers[0], 16), {}))
        else:
            segments[-1].instructions[int(address, 16)] = Executed(*map(int, numbers))
    return segments


def profiled_count(profile: Path) -> int | None:
    """Instructions of the newest region in the profiling plugin's file, as `last_count`."""
    segments = last_profile(profile)
    return sum(segment.count for segment in segments) if segments else None
