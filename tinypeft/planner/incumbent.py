"""The best packing and the best bound that a portfolio of searches has so far."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

#: how a bound is known: so much is live at once, or a search has shown that less is impossible
LOWER_BOUND, EXACT_SEARCH, CP_SAT = "lower bound met", "exact search", "CP-SAT"


@dataclass
class Incumbent:
    """Offsets, their height and a bound that no packing is lower than, in granules; several threads may improve them.

    `method` found the packing, `proof` is how the bound is known, `nodes` counts what the exact search tried.
    `changed` is called after each improvement, by the thread that made it.
    """

    offsets: list[int]
    height: int
    method: str
    bound: int
    proof: str = LOWER_BOUND
    nodes: int = 0
    changed: Callable[[Incumbent], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def optimal(self) -> bool:
        """Whether the packing meets the bound."""
        return self.height <= self.bound

    def improve(self, offsets: list[int], height: int, method: str) -> None:
        """Take over a packing if it is lower."""
        with self.lock:
            if height >= self.height:
                return
            self.offsets, self.height, self.method = offsets, height, method
        self._tell()

    def raise_bound(self, bound: int, proof: str) -> None:
        """Take over a bound if it is higher."""
        with self.lock:
            if bound <= self.bound:
                return
            self.bound, self.proof = bound, proof
        self._tell()

    def count(self, nodes: int) -> None:
        """Add nodes of a search."""
        with self.lock:
            self.nodes += nodes

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed(self)
