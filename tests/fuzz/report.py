"""What a run of the fuzzer gives: counts to print or write as JSON, and a file for each finding."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comparing import EQUAL, FINDING, LITERT, REFUSED, Case, Result, without_names

from tinypeft.adapters import AdapterConfig
from tinypeft.stages.autodiff import TrainingConfig


@dataclass
class Finding:
    """A case that is not equal, and how it was drawn."""

    case: Case
    result: Result
    drawn: str


@dataclass
class Tally:
    """Counts of compared models.

    models: by source and outcome. operators: operations compared, forward and backward, by kind. outputs, bytes: of
    operations, over all samples and steps, each on every side compared. spread: models with an arena in two RAMs.
    recomputed: operations that training runs again for a budget. refused, litert: cases by reason.
    """

    models: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    layers: Counter[str] = field(default_factory=Counter)
    outputs: int = 0
    bytes: int = 0
    steps: int = 0
    emulated: int = 0
    spread: int = 0
    recomputed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    litert: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, source: str, result: Result, seconds: float = 0.0) -> None:
        """Count one case."""
        self.models[source] += 1
        self.outcomes[result.outcome] += 1
        self.seconds[source] += seconds  # type: ignore[assignment]
        if result.outcome == EQUAL:
            self.operators += result.operators
            self.outputs += result.outputs
            self.bytes += result.bytes
            self.steps += result.steps
            self.emulated += result.emulated
            self.spread += result.spread
            self.recomputed += result.recomputed
        elif result.outcome == REFUSED:
            self.refused[without_names(result.reason)] += 1
        elif result.outcome == LITERT:
            self.litert[without_names(result.reason)] += 1

    def merge(self, other: Tally) -> None:
        """Add the counts of another."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def failed(self) -> bool:
        """Whether anything was found."""
        return bool(self.findings or self.outcomes[FINDING])

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        counts = {name: value for name, value in vars(self).items() if name != "findings"}
        found = [
            {"drawn": f.drawn, "reason": f.result.reason, "divergence": f.result.divergence} for f in self.findings
        ]
        return {k: dict(v) if isinstance(v, Counter) else v for k, v in counts.items()} | {"findings": found}

    def lines(self, seconds: float) -> list[str]:
        """The same for people."""

        def listed(counter: Counter[str]) -> str:
            return ", ".join(f"{name} {count:,}" for name, count in counter.most_common())

        split = ", ".join(f"{name} {count:,} ({self.seconds[name]:.0f} s)" for name, count in self.models.items())
        result = [
            f"{self.models.total():,} models: {split}",
            f"outcomes: {listed(self.outcomes)}",
            f"{self.operators.total():,} operators of {len(self.operators)} kinds: {listed(self.operators)}",
            f"{self.outputs:,} outputs, {self.bytes:,} bytes compared; {self.steps:,} training steps; "
            f"{self.emulated:,} models also under QEMU; {seconds:.0f} s",
            f"{self.spread:,} models with an arena in two RAMs; {self.recomputed:,} operations run again for a budget",
        ]
        if self.layers:
            result.append(f"Keras layers: {listed(self.layers)}")
        for title, counter in (("refused", self.refused), ("without a reference", self.litert)):
            result += [f"{title}, {count} times: {reason}" for reason, count in counter.most_common()]
        result += [f"FOUND {f.case.source} ({f.drawn}): {f.result.reason}" for f in self.findings]
        return result


def save_finding(folder: Path, number: int, finding: Finding) -> Path:
    """<number>.tflite, and beside it <number>.json with all that `load_case` needs; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    case = finding.case
    path = folder / f"{number}.tflite"
    path.write_bytes(case.tflite)
    settings = {k: v for k, v in asdict(case).items() if k != "tflite"}
    result = {k: v for k, v in asdict(finding.result).items() if k in ("outcome", "reason", "divergence")}
    text = {"drawn": finding.drawn, "case": settings, **result}
    path.with_suffix(".json").write_text(json.dumps(text, indent=2) + "\n")
    return path


def load_case(path: Path) -> Case:
    """The case of a saved finding."""
    values = json.loads(path.with_suffix(".json").read_text())["case"]
    adapter, training = AdapterConfig(**_frozen(values["adapter"])), TrainingConfig(**_frozen(values["training"]))
    return Case(tflite=path.read_bytes(), **values | {"adapter": adapter, "training": training})


def _frozen(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were in front of JSON, which has no tuples."""

    def freeze(value: Any) -> Any:
        return tuple(map(freeze, value)) if isinstance(value, list) else value

    return {key: freeze(value) for key, value in settings.items()}
