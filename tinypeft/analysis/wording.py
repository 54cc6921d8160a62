"""Sentences about an analysis that terminal and page share."""

from __future__ import annotations

from tinypeft.analysis.report import ESTIMATE, MEASURED, Configuration, GraphFacts, Memory

#: phase -> its heading
PHASE_TITLES = {
    "forward": "Forward",
    "loss": "Loss",
    "recompute": "Forward, once more",
    "backward": "Backward",
    "update": "Update",
}
#: setting of training that is named where it is not 0 -> its name
_SETTINGS = {"weight_decay": "weight decay", "clip_norm": "gradients clipped to norm"}


def proof(graph: GraphFacts) -> str:
    """Whether the graph's arena can be smaller."""
    if graph.optimal:
        return "optimal (proved)"
    return f"{graph.gap:,} B ({graph.gap / graph.bound:.2%}) above the bound of {graph.bound:,} B"


def scope(graph: GraphFacts) -> str:
    """How much the graph is."""
    return f"{len(graph.operations)} operations, {graph.macs:,} MACs"


def described(configuration: Configuration) -> str:
    """The adapter and how it is trained, in a line."""
    adapter, training, memory = configuration.adapter, configuration.training, configuration.memory
    parts = []
    if adapter["adapter"] == "none":
        parts.append("no adapter: inference only")
    else:
        parts.append(f"{adapter['adapter']} r={adapter['r']}, alpha {adapter['lora_alpha']:g}")
        targets, saved = adapter["target_modules"], adapter["modules_to_save"]
        if targets is not None:
            parts.append(
                f"on {targets if isinstance(targets, str) else ', '.join(targets)}" if targets else "on no layer"
            )
        if saved is not None:
            parts.append(f"retrained: {', '.join(saved) or 'none'}")
        momentum = f" with momentum {training['momentum']:g}" if training["momentum"] else ""
        nesterov = " (Nesterov)" if training.get("nesterov") else ""
        parts.append(f"{training['optimizer']}{momentum}{nesterov}, batch {training['batch_size']}")
        parts += [f"{name} {training[key]:g}" for key, name in _SETTINGS.items() if training.get(key)]
        if training.get("grad_bits", 16) != 16:
            parts.append(f"gradients of {training['grad_bits']} bits")
        if training["loss"] != "softmax_cross_entropy":
            parts.append(f"{training['loss']} against the {training['target']}")
    if memory["ram_budget"]:
        parts.append(f"within {memory['ram_budget']:,} B of RAM")
    if memory["arena_regions"]:
        parts.append(f"arena in {', '.join(memory['arena_regions'])}")
    if memory["weights_region"]:
        parts.append(f"weights in {memory['weights_region']}")
    return "; ".join(parts)


def basis_note(memory: Memory) -> str:
    """What is exact in the memory figures, and what is not."""
    if ESTIMATE in (memory.ram.basis, memory.flash.basis):
        guessed = [f"{p.name} {p.bytes:,} B" for p in (*memory.ram.parts, *memory.flash.parts) if p.basis == ESTIMATE]
        return f"Estimates: {', '.join(guessed)}. All else is exact; --measure builds the firmware and counts."
    assert MEASURED in (memory.ram.basis, memory.flash.basis)
    return "Runtime and code were measured in the built firmware; all else is exact."
