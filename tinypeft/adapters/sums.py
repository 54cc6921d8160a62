"""What weighted sums of adapters are made of: masters with their axes and roles in, why some cannot be summed out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from tinypeft.adapters.base import ADAPTERS, AdapterConfig, Parameter
from tinypeft.adapters.lora_options import starts_from_factors
from tinypeft.ir import Tensor


class Role(IntEnum):
    """tp_master_role: LoRA's A and B, or what is summed as its difference from a fresh adapter's."""

    OTHER = 0
    LORA_A = 1
    LORA_B = 2


@dataclass(frozen=True, eq=False)
class Summand:
    """A master as tp_master: (outer, rank, inner) elements; outer and rank are 1 where it has no rank."""

    master: Tensor
    layer: str
    role: Role
    outer: int
    rank: int
    inner: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(outer, rank, inner)."""
        return self.outer, self.rank, self.inner


def summands(parameters: Sequence[Parameter]) -> list[Summand]:
    """Every master; a LoRA's B right behind its A."""
    found = []
    for parameter in parameters:
        master, layer = parameter.master, parameter.layer
        if parameter.name.endswith("_lora_A"):
            rank = master.shape[0]
            found.append(Summand(master, layer, Role.LORA_A, 1, rank, master.size // rank))
        elif parameter.name.endswith("_lora_B"):
            channels, rank = master.shape
            found.append(Summand(master, layer, Role.LORA_B, channels, rank, 1))
        else:
            found.append(Summand(master, layer, Role.OTHER, 1, 1, master.size))
    return found


def unsummed(config: AdapterConfig, kinds: Iterable[str]) -> str | None:
    """Why adapters of these kinds cannot be summed, as a sentence; None where they can."""
    for kind in sorted(kinds):
        if reason := ADAPTERS[kind].uncombined:
            return f"a {kind} {reason}"
    if starts_from_factors(config):
        return "a LoRA that starts from loftq holds what quantisation took from the base, which a sum would count twice"
    return None
