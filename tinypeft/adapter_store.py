"""Adapters that a device keeps: how many in, the size of a slot on flash and the RAM that they take out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tinypeft.errors import AdapterError, FitError
from tinypeft.package.format import DIGEST_BYTES, OVERHEAD_BYTES, SIGNATURE_BYTES

#: As tp_store.h and tp_adapters.h have it
MAX_ADAPTERS, MAX_RESIDENT = 64, 32
_CHECKPOINT_OVERHEAD = 64 + DIGEST_BYTES
#: RAM of the store, an upload to it and a flash driver; and of each adapter that is stored, or resident
_RUNTIME_BYTES, _ENTRY_BYTES, _RESIDENT_BYTES = 840, 52, 28
#: A sector of the log begins with a cell for every adapter and some more
_CELL_BYTES, _CELLS_BESIDE = 64, 5


class StorageLike(Protocol):
    """The flash of a board that holds a store."""

    @property
    def sector_bytes(self) -> int: ...

    @property
    def sectors(self) -> int: ...

    @property
    def log_sectors(self) -> int: ...


@dataclass(frozen=True)
class AdapterStore:
    """Room for `adapters` on flash, of which `resident` are in RAM at a time, beside what compiling made of them.

    `adapter_bytes`, `training_bytes`: of the structs in RAM; a checkpoint of training holds both.
    """

    adapters: int
    resident: int
    adapter_bytes: int
    training_bytes: int

    def __post_init__(self) -> None:
        """Raise AdapterError for a number outside the limits."""
        for what, flag, value, most in (
            ("stored", "--adapters 4", self.adapters, MAX_ADAPTERS),
            ("resident", "--resident 2", self.resident, MAX_RESIDENT),
        ):
            if not 1 <= value <= most:
                raise AdapterError(f"{value} {what} adapters, the limits are 1 and {most}", f"try {flag}")

    @property
    def slot_bytes(self) -> int:
        """The largest object that is stored: a signed package or a checkpoint, in whole units of 64 bytes."""
        package = self.adapter_bytes + OVERHEAD_BYTES + SIGNATURE_BYTES
        checkpoint = self.adapter_bytes + self.training_bytes + _CHECKPOINT_OVERHEAD
        return (max(package, checkpoint) + 63) // 64 * 64

    @property
    def nbytes(self) -> int:
        """The RAM beside that of one adapter: the others that are resident, and what keeps track."""
        others = (self.resident - 1) * ((self.adapter_bytes + 3) // 4 * 4)
        return others + _RUNTIME_BYTES + self.adapters * _ENTRY_BYTES + self.resident * _RESIDENT_BYTES

    def blocks(self, storage: StorageLike) -> int:
        """How many blocks of slots a storage has, its log apart; a block is one sector of several slots, or the sectors
        of one.
        """
        return (storage.sectors - storage.log_sectors) // -(-self.slot_bytes // storage.sector_bytes)

    def slots(self, storage: StorageLike) -> int:
        """How many slots a storage has. Where a sector holds several, one is kept free to collect garbage."""
        each = storage.sector_bytes // self.slot_bytes
        return self.blocks(storage) if each <= 1 else (self.blocks(storage) - 1) * each

    def check(self, name: str, board: str, storage: StorageLike) -> None:
        """Raise FitError where not every adapter has a slot, beside one for what is uploaded."""
        cells = storage.sector_bytes // _CELL_BYTES - _CELLS_BESIDE
        room = min(self.slots(storage) - 1, cells)
        if self.blocks(storage) >= 2 and self.adapters <= room:
            return
        raise FitError(
            f"{self.adapters} adapters of {name}, each in a slot of {self.slot_bytes:,} B with its training's state, "
            f"do not fit the storage of {board}: {self.slots(storage)} slots in {storage.sectors} sectors of "
            f"{storage.sector_bytes:,} B, of which one takes what is uploaded",
            f"--adapters {room}"
            if room > 0
            else "a smaller rank: --r, or a board with a larger storage: tinypeft boards",
        )
