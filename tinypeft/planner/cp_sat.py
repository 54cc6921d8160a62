"""CP-SAT of OR-Tools as one of the searches; an extra, `pip install 'tinypeft[planner]'`."""

from __future__ import annotations

import importlib.util
import threading
from typing import Any

from tinypeft.planner.incumbent import CP_SAT, Incumbent
from tinypeft.planner.packing import FREE, Packing


def available() -> bool:
    """Whether OR-Tools is installed."""
    return importlib.util.find_spec("ortools") is not None


def minimise_by_cp_sat(packing: Packing, incumbent: Incumbent, seconds: float, stop: threading.Event) -> None:
    """Improve `incumbent` on one core until it is optimal, `seconds` have passed or `stop` is set."""
    from ortools.sat.python import cp_model

    with incumbent.lock:
        height_now, bound, start = incumbent.height, incumbent.bound, list(incumbent.offsets)
    model: Any = cp_model.CpModel()
    height = model.new_int_var(bound, height_now, "height")
    offsets, times, places = [], [], []
    for i, size in enumerate(packing.sizes):
        pin = packing.pins[i]
        low, high = (0, height_now - size) if pin == FREE else (pin, pin)
        offsets.append(model.new_int_var(low, high, ""))
        length = packing.last[i] - packing.first[i] + 1
        times.append(model.new_fixed_size_interval_var(packing.first[i], length, ""))
        places.append(model.new_fixed_size_interval_var(offsets[i], size, ""))
        model.add(offsets[i] + size <= height)
        model.add_hint(offsets[i], start[i])
    model.add_no_overlap_2d(times, places)
    model.minimize(height)

    solver: Any = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = seconds

    class Found(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            values = [self.value(offset) for offset in offsets]
            incumbent.improve(values, packing.height(values), CP_SAT)

    def end_on_stop() -> None:
        stop.wait()
        solver.stop_search()

    solver.best_bound_callback = lambda value: incumbent.raise_bound(round(value), CP_SAT)
    watcher = threading.Thread(target=end_on_stop, daemon=True)
    watcher.start()
    status = solver.solve(model, Found())
    if status == cp_model.OPTIMAL:
        incumbent.raise_bound(round(solver.objective_value), CP_SAT)
