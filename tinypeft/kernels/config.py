"""Which kernels a compilation may use, and what it prefers: what the user asks for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tinypeft.errors import KernelError
from tinypeft.kernels.base import BACKENDS

#: the definition of every operator, for every core
PORTABLE = "portable"
#: all backends that come with tinypeft and are for the core
AUTO = "auto"
#: what `optimize` may be -> by how much the arena of inference may grow for scratch
ARENA_GROWTH = {"size": 1.0, "balanced": 1.15, "speed": 1.5}


@dataclass(frozen=True)
class KernelConfig:
    """backends: names of those that may be used beside the portable kernels, or "auto".

    overrides: (operation, backend) for single operations, which then must have it.
    optimize: "size" takes the fewest bytes, "speed" the fewest cycles, "balanced" weighs both.
    cmsis_nn: the folder of CMSIS-NN's headers and library; empty without.

    Raises KernelError for a name that is none.
    """

    backends: tuple[str, ...] = (AUTO,)
    overrides: tuple[tuple[str, str], ...] = ()
    optimize: str = "balanced"
    cmsis_nn: str = ""

    def __post_init__(self) -> None:
        for name in (*self.backends, *(backend for _, backend in self.overrides)):
            _check(name, "kernel backend", [AUTO, PORTABLE, *BACKENDS])
        _check(self.optimize, "way to optimise", list(ARENA_GROWTH))

    def allows(self, backend: str) -> bool:
        """Whether operations without an override may use it."""
        return backend in self.backends or (AUTO in self.backends and not BACKENDS[backend].needs_library)

    def override(self, operation: str) -> str | None:
        """The backend that was asked for `operation`."""
        return dict(self.overrides).get(operation)


def _check(name: str, what: str, known: list[str]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, 1)
    raise KernelError(
        f"there is no {what} {name!r}", f"did you mean {close[0]}?" if close else f"choose from: {', '.join(known)}"
    )


#: the portable kernels alone
PORTABLE_KERNELS = KernelConfig((PORTABLE,))
#: what a compilation for a board uses where nobody says otherwise
DEFAULT_KERNELS = KernelConfig()
