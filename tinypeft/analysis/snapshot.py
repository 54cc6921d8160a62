"""What `compare` reads of an analysis file: its figures and operators, every value checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinypeft.analysis.report import SCHEMA
from tinypeft.errors import DataError

_FAMILY, _VERSION = SCHEMA.split("/")
_TOTALS = (
    *("arena_bytes", "macs", "training_macs", "weight_bytes", "adapter_bytes", "optimizer_bytes", "package_bytes"),
    *("base_parameters", "trainable_parameters"),
)
#: figure -> the memory whose usage it is
_USAGES = {"ram_bytes": "ram", "flash_bytes": "flash"}
#: figure -> the graph whose arena it is, 0 where there is none
_ARENAS = {"inference_arena_bytes": "inference", "training_arena_bytes": "training"}

#: Every figure that is compared and may have a limit
FIGURES = (*_USAGES, *_TOTALS[:1], *_ARENAS, *_TOTALS[1:])


@dataclass(frozen=True)
class Operator:
    """What is compared of an operation: fact -> its value as text, or as a number."""

    facts: dict[str, str | int]


@dataclass(frozen=True)
class Snapshot:
    """An analysis file. `bases` says of some figures how they are known; operators by (graph, name)."""

    file: str
    fingerprint: str
    board: str
    figures: dict[str, int]
    bases: dict[str, str]
    operators: dict[tuple[str, str], Operator]


def read_snapshot(path: Path | str) -> Snapshot:
    """The analysis in the file `path`; raises DataError where it is none, of another version, or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except ValueError as error:
        raise DataError(
            f"{path} is no JSON: {error}", "write it with: tinypeft analyze MODEL --json > F.json"
        ) from error
    reader = _Reader(str(path))
    reader.check_schema(content)
    totals = reader.get(content, "totals", dict)
    memory = reader.get(content, "memory", dict)
    usages = {figure: reader.get(memory, kind, dict) for figure, kind in _USAGES.items()}
    graphs = {reader.get(graph, "name", str): graph for graph in reader.rows(content, "graphs")}
    figures = {figure: reader.get(usage, "bytes", int) for figure, usage in usages.items()}
    figures |= {name: reader.get(totals, name, int) for name in _TOTALS}
    figures |= {f: reader.get(graphs[g], "arena_bytes", int) if g in graphs else 0 for f, g in _ARENAS.items()}
    board = content.get("board")
    return Snapshot(
        str(path),
        reader.get(reader.get(content, "model", dict), "fingerprint", str),
        "none" if board is None else reader.get(reader.get(content, "board", dict), "name", str),
        {name: figures[name] for name in FIGURES},
        {figure: reader.get(usage, "basis", str) for figure, usage in usages.items()},
        {
            (name, reader.get(row, "name", str)): reader.operator(row)
            for name, graph in graphs.items()
            for row in reader.rows(graph, "operations")
        },
    )


class _Reader:
    def __init__(self, file: str):
        self.file = file

    def check_schema(self, content: object) -> None:
        schema = content.get("schema") if isinstance(content, dict) else None
        family, _, version = schema.partition("/") if isinstance(schema, str) else ("", "", "")
        if family != _FAMILY:
            found = f"its schema is {schema!r}" if schema is not None else "it names no schema"
            raise DataError(
                f"{self.file} is no analysis: {found}, expected {SCHEMA}",
                "write it with: tinypeft analyze MODEL --json > F.json",
            )
        if version != _VERSION:
            raise DataError(
                f"{self.file} has version {version or 'none'} of {_FAMILY}, this tinypeft reads {_VERSION}",
                "analyse both models with the same tinypeft",
            )

    def get(self, table: dict[str, Any], key: str, kind: type) -> Any:
        value = table.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            shown = "missing" if key not in table else f"{value!r:.60}"
            raise DataError(f"{self.file} is damaged: {key} is {shown}, expected {kind.__name__}", "analyse it again")
        return value

    def rows(self, table: dict[str, Any], key: str) -> list[dict[str, Any]]:
        rows = self.get(table, key, list)
        if not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{self.file} is damaged: {key} holds more than objects", "analyse it again")
        return rows

    def operator(self, row: dict[str, Any]) -> Operator:
        result, kernel = self.get(row, "result", dict), self.get(row, "kernel", dict)
        shape = "x".join(map(str, self.get(result, "shape", list))) or "1"
        facts: dict[str, str | int] = {
            "kind": self.get(row, "kind", str),
            "output": f"{shape} {self.get(result, 'dtype', str)}",
            "kernel": str(kernel.get("function")),
        }
        numbers = ("macs", "weight_bytes", "adapter_bytes", "activation_bytes", "scratch_bytes")
        return Operator(facts | {name: self.get(row, name, int) for name in numbers})
