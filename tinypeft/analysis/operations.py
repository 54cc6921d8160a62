"""The operations of a graph as rows: what each costs, which kernel runs it and why, which part of training it is."""

from __future__ import annotations

from collections.abc import Mapping

from tinypeft.analysis.report import Kernel, OperationFacts, TensorFacts
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.kernels import Choice
from tinypeft.kernels.config import PORTABLE
from tinypeft.ops.weighted import lora_rank
from tinypeft.planner import Plan

#: Phases in the order of a training step
PHASES = ("forward", "loss", "recompute", "backward", "update")


def tensor_facts(tensor: Tensor) -> TensorFacts:
    """The facts of a tensor."""
    return TensorFacts(tensor.name, tensor.shape, tensor.dtype, tensor.purpose.value, tensor.nbytes)


def operation_facts(graph: Graph, plan: Plan, choices: Mapping[str, Choice]) -> tuple[OperationFacts, ...]:
    """A row for every operation of `graph`, in its order; `choices` say why not another kernel, by operation."""
    loss = next((i for i, op in enumerate(graph.operations) if _is_loss(op)), len(graph.operations))
    return tuple(
        OperationFacts(
            index=index,
            name=op.name,
            layer=op.layer,
            kind=op.kind,
            phase=_phase(op, index > loss),
            inputs=tuple(t.name for t in op.inputs.values() if t.data is None),
            outputs=tuple(t.name for t in op.outputs.values()),
            result=tensor_facts(op.output),
            macs=op.op.macs(op),
            weight_bytes=sum(t.nbytes for t in _distinct(op.inputs) if t.data is not None),
            adapter_bytes=sum(t.nbytes for t in _distinct(op.inputs) if t.purpose is Purpose.ADAPTER_WEIGHT),
            activation_bytes=_activation_bytes(op),
            scratch_bytes=op.scratch_bytes,
            kernel=_kernel(op, plan, choices.get(op.name)),
        )
        for index, op in enumerate(graph.operations)
    )


def frozen_weights(graph: Graph) -> list[Tensor]:
    """The constants that the operations of `graph` read, each once."""
    return [t for t in graph.tensors() if t.data is not None]


def _distinct(operands: dict[str, Tensor]) -> list[Tensor]:
    return list({id(t): t for t in operands.values()}.values())


def _is_loss(op: Operation) -> bool:
    purposes = {t.purpose for t in op.outputs.values()}
    return Purpose.GRADIENT in purposes and Purpose.ACTIVATION in purposes


def _phase(op: Operation, behind_loss: bool) -> str:
    if _is_loss(op):
        return "loss"
    purposes = {t.purpose for t in op.outputs.values()}
    if not any(t.in_arena for t in op.outputs.values()):
        return "update"
    if Purpose.GRADIENT in purposes:
        return "backward"
    return "recompute" if behind_loss and op.output.dtype != "bits" else "forward"


def _activation_bytes(op: Operation) -> int:
    """A view leaves nothing new."""
    return 0 if op.op.call(op) is None else sum(t.nbytes for t in op.outputs.values() if t.in_arena)


def _kernel(op: Operation, plan: Plan, choice: Choice | None) -> Kernel:
    call = op.op.call(op)
    if call is None:
        view = op.op.view(op)
        source = op.inputs[view[0]] if view is not None else next(iter(op.inputs.values()))
        return Kernel(None, None, None, f"nothing runs: a view of {source.name}")
    reasons = _reasons(op, plan) + ([choice.reason] if choice is not None and choice.reason else [])
    if op.kernel is not None:
        file = op.kernel.sources[0] if op.kernel.sources else None
        return Kernel(op.kernel.call.function, file, op.kernel.backend, "; ".join(reasons))
    return Kernel(call.function, op.op.sources(op)[0], PORTABLE, "; ".join(reasons))


def _reasons(op: Operation, plan: Plan) -> list[str]:
    """Why this kernel: the types that it is for, how it works, and what else decides how it is called."""
    read = [t.dtype for t in op.inputs.values() if t.purpose is not Purpose.ARGUMENT]
    types = list(dict.fromkeys([*read[:1], op.output.dtype]))
    reasons = [f"{op.kernel.form if op.kernel is not None else 'C for every core'}, {' to '.join(types)}"]
    rank = lora_rank(op) if "hidden" in op.inputs else 0
    if rank:
        reasons.append(f"adds LoRA r={rank}")
    if "multiplier" in op.inputs and op.op.importable:
        reasons.append("scales change with training")
    overwritten = _overwritten(op, plan)
    if overwritten:
        reasons.append(f"over {overwritten}")
    return reasons


def _overwritten(op: Operation, plan: Plan) -> str | None:
    """The operands whose bytes the first result takes over, if it does."""
    buffer = next((b for b in plan.buffers if any(t is op.output for t in b.tensors)), None)
    if buffer is None:
        return None
    operands = {id(t) for t in op.inputs.values()}
    earlier = [t.name for t in buffer.tensors if id(t) in operands]
    return ", ".join(earlier) or None
