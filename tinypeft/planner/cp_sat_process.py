"""CP-SAT in a process of its own: a packing as JSON on stdin; bounds and packings, a JSON line each, on stdout.

OR-Tools shares native libraries with other packages that a process may have loaded, and has crashed beside them.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Solve the packing {sizes, first, last, pins (null: free), height, bound, offsets, seconds}."""
    from ortools.sat.python import cp_model

    problem: dict[str, Any] = json.load(sys.stdin)
    model: Any = cp_model.CpModel()
    height = model.new_int_var(problem["bound"], problem["height"], "height")
    offsets, times, places = [], [], []
    parts = zip(problem["sizes"], problem["first"], problem["last"], problem["pins"], problem["offsets"], strict=True)
    for size, first, last, pin, start in parts:
        low, high = (0, problem["height"] - size) if pin is None else (pin, pin)
        offset = model.new_int_var(low, high, "")
        offsets.append(offset)
        times.append(model.new_fixed_size_interval_var(first, last - first + 1, ""))
        places.append(model.new_fixed_size_interval_var(offset, size, ""))
        model.add(offset + size <= height)
        model.add_hint(offset, start)
    model.add_no_overlap_2d(times, places)
    model.minimize(height)

    class Found(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            tell({"offsets": [self.value(offset) for offset in offsets]})

    solver: Any = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = problem["seconds"]
    solver.best_bound_callback = lambda value: tell({"bound": round(value)})
    if solver.solve(model, Found()) == cp_model.OPTIMAL:
        tell({"bound": round(solver.objective_value)})


def tell(found: dict[str, Any]) -> None:
    """One line for the process that waits."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
