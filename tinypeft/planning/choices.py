"""What may be trained in a layer, and plans of such choices: a plan in, the adapter configuration that says it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinypeft.adapters import AdapterConfig
from tinypeft.adapters.sparse import channels_option
from tinypeft.errors import AdapterError
from tinypeft.ir import Graph

RETRAINED = "modules_to_save"


@dataclass(frozen=True)
class Choice:
    """The adapters of one layer: `kinds` in their order, `r` of a LoRA, `channels` of a sparse update."""

    kinds: tuple[str, ...]
    r: int = 0
    channels: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """What people read: "lora r=4 + bitfit"."""
        titles = {RETRAINED: "retrained", "lora": f"lora r={self.r}", "sparse": f"sparse {len(self.channels)} rows"}
        return " + ".join(titles.get(kind, kind) for kind in reversed(self.kinds))


@dataclass(frozen=True)
class Plan:
    """(layer, its choice) of every layer that is adapted, in the order of the model."""

    choices: tuple[tuple[str, Choice], ...] = ()

    def of(self, layer: str) -> Choice | None:
        """The choice of `layer`, None where nothing of it is trained."""
        return dict(self.choices).get(layer)

    def changed(self, layer: str, choice: Choice | None, order: Sequence[str]) -> Plan:
        """The plan with another choice for `layer`; `order` are all layers of the model."""
        given: dict[str, Choice | None] = {**dict(self.choices), layer: choice}
        return Plan(tuple((name, kept) for name in order if (kept := given.get(name)) is not None))

    @property
    def label(self) -> str:
        """What people read: layers of the same choice together."""
        layers: dict[str, list[str]] = {}
        for layer, choice in self.choices:
            layers.setdefault(choice.label, []).append(layer)
        return "; ".join(f"{label}: {', '.join(names)}" for label, names in layers.items())

    @property
    def possible(self) -> bool:
        """Whether one configuration can say it: a sparse update comes last of the kinds, and so does IA3."""
        kinds = {kind for _, choice in self.choices for kind in choice.kinds}
        return not {"sparse", "ia3"} <= kinds


def adapter_config(plan: Plan, base: AdapterConfig) -> AdapterConfig:
    """The configuration of `plan`; what it does not choose is that of `base`."""
    layers: dict[str, list[str]] = {}
    for layer, choice in plan.choices:
        for kind in choice.kinds:
            layers.setdefault(kind, []).append(layer)
    saved = tuple(layers.pop(RETRAINED, ()))
    ranks = {layer: choice.r for layer, choice in plan.choices if choice.r}
    usual = Counter(ranks.values()).most_common(1)[0][0] if ranks else base.r
    pattern = ",".join(f"{_escaped(layer)}={r}" for layer, r in ranks.items() if r != usual)
    channels = channels_option({layer: choice.channels for layer, choice in plan.choices if choice.channels})
    options = dict(base.options)
    for name, value in (("rank_pattern", pattern), ("channels", channels)):
        options.pop(name, None)
        if value:
            options[name] = value
    return replace(
        base,
        adapter="+".join(sorted(layers, key=("bitfit", "lora", "sparse", "ia3").index)) or RETRAINED,
        r=usual,
        target_modules=() if not layers else None,
        modules_to_save=saved,
        targets=tuple((kind, tuple(names)) for kind, names in layers.items()),
        options=tuple(options.items()),
    )


def check_names(graph: Graph) -> None:
    """Raise AdapterError for names that a configuration cannot tell apart or write down."""
    names = list(dict.fromkeys(op.layer for op in graph.operations if "filter" in op.inputs))
    for name in names:
        longer = next((other for other in names if other.endswith(f".{name}")), None)
        if longer is not None:
            raise AdapterError(f"the layer name {name} also means {longer}", "rename one of the layers")
        if not name or set(name) & set("=,;"):
            raise AdapterError(f"the layer name {name!r} cannot stand in a configuration", "rename the layer")


def _escaped(layer: str) -> str:
    """The name as a regular expression of PEFT's."""
    return "".join(f"\\{c}" if c in r"\.^$*+?{}[]|()" else c for c in layer)
