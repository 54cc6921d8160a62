"""What an optimiser declares: the state it keeps for a parameter, and the operation that updates the master."""

from __future__ import annotations

from typing import Any

from tinypeft.ir import Operation, Tensor

#: name -> the optimiser's only instance
OPTIMIZERS: dict[str, Optimizer] = {}


def register(cls: type[Optimizer]) -> type[Optimizer]:
    """Class decorator: put the optimiser into the registry; a second of the same name is a KeyError."""
    if cls.name in OPTIMIZERS:
        raise KeyError(f"optimiser {cls.name} is registered twice")
    OPTIMIZERS[cls.name] = cls()
    return cls


class Optimizer:
    """An optimiser; stateless, one instance lives in OPTIMIZERS."""

    name: str = ""

    def states(self, master: Tensor, settings: dict[str, Any]) -> dict[str, Tensor]:
        """Operand name -> the state tensors that it keeps for `master`; they start at zero."""
        raise NotImplementedError

    def update(
        self,
        master: Tensor,
        gradient: Tensor,
        learning_rate: Tensor,
        states: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> Operation:
        """The operation that updates `master` and `states` in place."""
        raise NotImplementedError
