"""Imports between modules go one way, as ARCHITECTURE.md says; no module is longer than one sitting reads."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tinypeft"
MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))

#: part of the package -> the parts it may import, "*" for all. A part is a folder, or a module at the top.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "arithmetic": set(),
    "schedule": {"arithmetic", "errors"},
    "resources": {"errors"},
    "files": {"errors"},
    "host_library": {"errors", "resources"},
    "ir": {"errors"},
    "ops": {"ir", "errors", "arithmetic"},
    "optimizers": {"ops", "ir", "errors", "arithmetic"},
    "losses": {"ops", "ir", "errors", "arithmetic"},
    "adapters": {"ops", "ir", "errors", "arithmetic"},
    "interpreter": {"ops", "ir", "errors"},
    "planner": {"ops", "ir", "host_library", "errors"},
    "training": {"losses", "optimizers", "errors"},
    "updates": {"training", "adapters", "optimizers", "ops", "ir", "errors"},
    "stages": {"losses", "training", "updates", "adapters", "optimizers", "planner", "ops", "ir", "errors"},
    "replay": {"errors"},
    "adapter_store": {"package", "errors"},
    "package": {"adapters", "ir", "errors", "resources"},
    "ram_budget": {"stages", "training", "planner", "ir", "errors"},
    "kernels": {"planner", "ops", "ir", "arithmetic", "errors"},
    "compiler": {
        *("training", "stages", "replay", "adapters", "optimizers", "losses", "interpreter", "planner", "ops", "ir"),
        *("kernels", "adapter_store", "ram_budget", "package", "errors"),
    },
    "codegen": {"compiler", "kernels", "adapters", "planner", "ops", "ir", "arithmetic", "errors", "resources"},
    "state": {"package", "compiler", "ir", "errors"},
    "adapter_state": {"state", "compiler", "interpreter", "ops", "ir", "errors"},
    "adapter_combine": {"adapter_state", "compiler", "adapters", "ir", "errors"},
    "adapter_modules": {"exchange", "compiler", "adapters", "ir"},
    "adapter_import": {"adapter_modules", "exchange", "compiler", "adapters", "ops", "ir", "errors"},
    "adapter_files": {
        *("adapter_import", "adapter_modules", "adapter_state", "state", "package", "exchange", "compiler", "adapters"),
        *("files", "errors"),
    },
    "interpreted": {"adapter_state", "arithmetic", "device", "state", "compiler", "interpreter", "ops", "ir", "errors"},
    "running": {"generate", "project", "emulators", "boards", "device", "errors"},
    "merging": {
        *("generate", "personalise", "adapter_state", "exchange", "oracle", "frontend", "compiler", "interpreter"),
        *("adapters", "data", "ops", "ir", "errors"),
    },
    "data": {"ir", "errors"},
    "frontend": {"data", "ops", "ir", "errors"},
    "exchange": {"frontend", "errors"},
    "boards": {"errors", "resources"},
    "device": {"errors"},
    "fit": {"device", "replay", "schedule", "errors"},
    "learners": {"compiler", "device", "interpreter", "losses", "ir", "arithmetic"},
    "emulators": {"device", "host_library", "errors"},
    "flashers": {"errors"},
    "oracle": {"errors"},
    "memory": {"boards", "planner", "stages", "errors"},
    "fitting": {"compiler", "planner", "memory", "adapters", "boards", "errors"},
    "analysis": {
        *("generate", "fitting", "project", "codegen", "compiler", "stages", "frontend", "planner", "adapters"),
        *("kernels", "ops", "ir", "memory", "boards", "config", "files", "errors", "resources"),
    },
    "planning": {
        *("analysis", "generate", "fitting", "emulators", "device", "compiler", "interpreter", "stages", "frontend"),
        *("planner", "adapters", "losses", "training", "kernels", "ops", "ir", "memory", "boards", "data", "errors"),
        "resources",
    },
    "counting": {
        *("generate", "emulators", "device", "codegen", "compiler", "kernels", "losses", "planner", "ops", "ir"),
        "errors",
    },
    "benchmark": {"api", "data", "fit", "frontend", "resources", "errors"},
    "cli": {"*"},
    "__main__": {"cli"},
}
#: part -> the only parts that may import it
IMPORTERS = {
    "cli": {"__main__"},
    "api": {"", "cli", "benchmark"},
    "parity": {"cli", "parity", "demo"},
    "personalise": {"cli", "api", "merging", "personalise", "parity", "demo", "benchmark"},
    "learners": {"cli", "learners", "personalise"},
}


def _part(module: str) -> str:
    """tinypeft.ops.conv_2d -> ops."""
    return module.split(".")[1] if "." in module else ""


@functools.cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """(module of tinypeft, whether it is imported when the module is) of every import but those for type checkers."""
    tree = ast.parse((ROOT / path).read_text())
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path} imports relatively"
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                found.extend((n if _is_module(n) else str(child.module), top) for n in names)
            visit(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(tree, True)
    return tuple(dict.fromkeys((m, top) for m, top in found if m == "tinypeft" or m.startswith("tinypeft.")))


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def _name(path: Path) -> str:
    """tinypeft/ops/__init__.py -> tinypeft.ops."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    part = _part(_name(path))
    allowed = ALLOWED.get(part, {"*"})
    for module, _ in imports(path):
        target = _part(module)
        if target in ("", part):
            continue
        assert target in allowed or "*" in allowed, f"{path} imports {module}; {part} may import {sorted(allowed)}"
        if target in IMPORTERS and path.name != "__main__.py":
            assert part in IMPORTERS[target], f"{path} imports {module}, which only {sorted(IMPORTERS[target])} may"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[1] == "stages"], ids=str)
def test_stages_do_not_know_each_other(path: Path) -> None:
    others = [m for m, _ in imports(path) if m.startswith("tinypeft.stages.")]
    assert not others, f"{path} imports {others}; the compiler connects stages"


def test_every_part_of_the_rules_exists() -> None:
    parts = {_part(_name(path)) for path in MODULES}
    assert set(ALLOWED) | set(IMPORTERS) <= parts, f"no such parts: {(set(ALLOWED) | set(IMPORTERS)) - parts}"


def test_there_are_no_cycles() -> None:
    """Among imports that run when a module is loaded. A package's __init__ may import what lies in it."""
    edges = {_name(path): {m for m, top in imports(path) if top and _name(path) != m} for path in MODULES}
    for name, targets in edges.items():
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        targets -= parents if name.count(".") > 1 else set()
    done: set[str] = set()

    def follow(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, "a cycle of imports: " + " -> ".join([*chain[chain.index(name) :], name])
        if name in done:
            return
        for target in sorted(edges.get(name, ())):
            if target != "tinypeft":
                follow(target, (*chain, name))
        done.add(name)

    for name in edges:
        follow(name, ())


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_are_short_and_documented(path: Path) -> None:
    text = (ROOT / path).read_text()
    lines = text.count("\n")
    assert lines <= 500, f"{path} has {lines} lines; split it"
    assert not text.strip() or ast.get_docstring(ast.parse(text)), (
        f"{path} does not say what goes in and what comes out"
    )


def test_tensorflow_is_imported_in_processes_of_their_own() -> None:
    """A ready .tflite compiles without it: only processes of their own load it, the converter and those that train."""
    users = []
    for path in MODULES:
        tree = ast.parse((ROOT / path).read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("tensorflow", "keras") for name in names):
                users.append(str(path))
    processes = {
        f"tinypeft/{name}.py" for name in ("frontend/keras_process", "exchange/keras_process", "demo/training")
    }
    training = {f"tinypeft/benchmark/{name}.py" for name in ("training", "networks", "float_network", "float_training")}
    assert set(users) <= processes | training, users
