"""CP-SAT of OR-Tools as one of the searches; an extra, `pip install 'tinypeft[planner]'`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading

from tinypeft.errors import ToolError
from tinypeft.planner.incumbent import CP_SAT, Incumbent
from tinypeft.planner.packing import FREE, Packing


def available() -> bool:
    """Whether OR-Tools is installed."""
    return importlib.util.find_spec("ortools") is not None


def minimise_by_cp_sat(packing: Packing, incumbent: Incumbent, seconds: float, stop: threading.Event) -> None:
    """Improve `incumbent` on one core until it is optimal, `seconds` have passed or `stop` is set.

    Raises ToolError where OR-Tools' process ends by itself with an error.
    """
    with incumbent.lock:
        problem = {"height": incumbent.height, "bound": incumbent.bound, "offsets": list(incumbent.offsets)}
    problem |= {
        "sizes": list(packing.sizes),
        "first": list(packing.first),
        "last": list(packing.last),
        "pins": [None if pin == FREE else pin for pin in packing.pins],
        "seconds": seconds,
    }
    command = [sys.executable, "-m", "tinypeft.planner.cp_sat_process"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        ended = threading.Event()
        watcher = threading.Thread(target=_kill_on, args=(stop, ended, process), daemon=True)
        watcher.start()
        try:
            assert process.stdin and process.stdout and process.stderr
            try:
                json.dump(problem, process.stdin)
                process.stdin.close()
            except BrokenPipeError:  # it was told to stop, or its end is reported below
                pass
            for line in process.stdout:
                _take(json.loads(line), packing, incumbent)
            errors = process.stderr.read()
            process.wait()
        finally:
            ended.set()
            process.kill()
            watcher.join()
    if process.returncode and not stop.is_set():
        last = errors.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise ToolError(f"OR-Tools' CP-SAT failed: {last[0]}", "pip install --upgrade ortools, or uninstall it")


def _take(found: dict[str, list[int] | int], packing: Packing, incumbent: Incumbent) -> None:
    """A better packing, or a better bound."""
    offsets, bound = found.get("offsets"), found.get("bound")
    if isinstance(offsets, list):
        incumbent.improve(offsets, packing.height(offsets), CP_SAT)
    if isinstance(bound, int):
        incumbent.raise_bound(bound, CP_SAT)


def _kill_on(stop: threading.Event, ended: threading.Event, process: subprocess.Popen[str]) -> None:
    while not ended.wait(0.05):
        if stop.is_set():
            process.kill()
            return
