"""What an optimiser declares: the states it keeps, shared and for each parameter, and the operations that update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS

#: name -> the optimiser's only instance
OPTIMIZERS: dict[str, Optimizer] = {}


def register(cls: type[Optimizer]) -> type[Optimizer]:
    """Class decorator: put the optimiser into the registry; a second of the same name is a KeyError."""
    if cls.name in OPTIMIZERS:
        raise KeyError(f"optimiser {cls.name} is registered twice")
    OPTIMIZERS[cls.name] = cls()
    return cls


@dataclass(frozen=True)
class Shared:
    """What all parameters have in common.

    states      operand name -> state tensor, float32
    starts      operand name -> what its elements are in a fresh or loaded adapter
    operations  to run once before the updates of a step
    """

    states: dict[str, Tensor] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    operations: tuple[Operation, ...] = ()


class Optimizer:
    """An optimiser; stateless, one instance lives in OPTIMIZERS.

    `summary` says what it is, for users; `reads` are the settings that it follows, of those in TrainingConfig.
    """

    name: str = ""
    summary: str = ""
    reads: tuple[str, ...] = ()

    def shared(self, settings: dict[str, Any]) -> Shared:
        """What it keeps once for all parameters; nothing where it does not say so."""
        return Shared()

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
        """The operation, with a `row_function`, that updates `master` and its states in place.

        `states` are those of `states` and of `shared`.
        """
        raise NotImplementedError

    def operation(
        self,
        kind: str,
        master: Tensor,
        gradient: Tensor,
        learning_rate: Tensor,
        states: dict[str, Tensor],
        attributes: dict[str, Any],
    ) -> Operation:
        """An update by the operator `kind`, which writes `master` and those states that are its results."""
        inputs = {"gradient": gradient, "learning_rate": learning_rate, "master": master, **states}
        outputs = {name: inputs[name] for name in OPS[kind].results if name in inputs}
        return Operation(OPS[kind], f"{master.name}_update", inputs, outputs, attributes)


def state_of(master: Tensor, name: str, dtype: str = "float32", shape: tuple[int, ...] | None = None) -> Tensor:
    """A state tensor called after `master`, of its shape where no other is given."""
    return Tensor(f"{master.name}_{name}", master.shape if shape is None else shape, dtype, Purpose.OPTIMIZER_STATE)
