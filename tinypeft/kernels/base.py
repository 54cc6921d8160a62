"""What a kernel backend declares: for which operations it has a kernel on which core, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import KernelCall

#: name -> the backend's only instance
BACKENDS: dict[str, KernelBackend] = {}


@dataclass(frozen=True)
class Target:
    """The core that kernels are for, as boards name it ("cortex-m4")."""

    core: str


@dataclass(frozen=True)
class Routine:
    """A function in assembly that is generated for shapes and constants, not for weights, so that layers share it.

    name    its C name, to which that of the model is put in front; two routines of one name have the same text
    text    the lines of GNU assembly of its body, without directives; it starts where the label would stand
    comment what it computes from which registers, a line or more, without comment signs
    nbytes  of its code, at least about
    ctype   the C type of the function, a typedef of a header: `ctype name;` declares it
    """

    name: str
    text: str
    comment: str
    nbytes: int
    ctype: str


@dataclass(frozen=True)
class Kernel:
    """One way to compute an operation on the target, bit for bit what the portable kernel computes.

    backend        the backend that offers it
    form           how it works, in a few words, for reports and comments: "pointwise, 2 channels x 4 positions"
    call           the C call on the target; a CFunction in its fields names a routine. The scratch pointer comes last
                   where the kernel asks for scratch
    sources        C files under firmware/kernels/, such as "dsp/tp_pointwise_dsp.c"
    routines       generated assembly that the call needs
    scratch_bytes  what it needs of the arena while it runs
    cycles         estimated, by the cycle model of the target's core (of cores without one: instructions)
    code_bytes     of its own code, shared or not; of what it shares with all, nothing
    table_bytes    of its constants: packed weights, biases, multipliers
    in_order       whether it has read all that it overwrites, when its output lies over its input as far as the
                   portable kernel allows (Op.in_place, Op.behind)
    in_place       where it is not in order, those operands of Op.in_place whose buffers its outputs may take over;
                   others must not overlap them
    check          a call at start-up, without scratch, that gives TP_OK where the kernel may run
    instead        a constant operand that its call leaves out, for which its table stands: where no other call takes it
                   either, flash is without it
    """

    backend: str
    form: str
    call: KernelCall
    sources: tuple[str, ...]
    routines: tuple[Routine, ...] = ()
    scratch_bytes: int = 0
    cycles: int = 0
    code_bytes: int = 0
    table_bytes: int = 0
    in_order: bool = False
    in_place: tuple[str, ...] = ()
    check: KernelCall | None = None
    instead: Tensor | None = None

    def on(self, tensors: Mapping[int, Tensor]) -> Kernel:
        """The same with other arguments, by the id of those that it has."""

        def moved(argument: Any) -> Any:
            if isinstance(argument, tuple):
                return tuple(map(moved, argument))
            return tensors.get(id(argument), argument)

        return replace(self, call=replace(self.call, arguments=[moved(a) for a in self.call.arguments]))


class KernelBackend:
    """A family of kernels. Subclasses are stateless; one instance lives in BACKENDS.

    name           what `--kernels` calls it
    cores          the cores, as boards name them, that it is for
    headers        what generated C includes for its calls, below firmware/include/tinypeft/
    needs_library  whether firmware links a library for it that does not come with tinypeft
    """

    name: str = ""
    cores: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    needs_library: bool = False

    def offers(self, op: Operation, target: Target) -> Sequence[Kernel] | str:
        """Its kernels for `op`, or why it has none, as part of a sentence: "no kernel for groups"."""
        raise NotImplementedError


def register(cls: type[KernelBackend]) -> type[KernelBackend]:
    """Class decorator: put the backend into the registry; a second of the same name is a KeyError."""
    if cls.name in BACKENDS:
        raise KeyError(f"kernel backend {cls.name} is registered twice")
    BACKENDS[cls.name] = cls()
    return cls
