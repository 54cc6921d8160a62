"""Build the power-cut simulator and run it in parallel processes; as a program, all of it: `python power_cuts.py`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRMWARE = HERE.parents[1] / "firmware"
WARNINGS = "-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
STORE = [
    *sorted(FIRMWARE.glob("store/tp_store*.c")),
    *(FIRMWARE / "runtime" / name for name in ("tp_crc.c", "tp_id.c")),
]
SIMULATOR = [HERE / name for name in ("scenarios.c", "store_model.c", "sim_flash.c")]


def compile_c(target: Path, sources: list[Path], *flags: str, compiler: str = "gcc") -> Path:
    """`target`, built from `sources` of the store and its tests without a warning."""
    include = [f"-I{folder}" for folder in (FIRMWARE / "include", FIRMWARE / "store", HERE)]
    command = [compiler, *WARNINGS, *flags, *include, *map(str, sources), "-o", str(target)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return target


def cut_power(program: Path, every: int, second: int, shards: int = 2) -> tuple[int, ...]:
    """(cuts, second cuts, steps that moved slots, steps that changed the log sector).

    AssertionError names the first cut that lost something.
    """
    commands = [[str(program), str(every), str(second), str(shard), str(shards)] for shard in range(shards)]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    outputs = [run.communicate()[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        assert run.returncode == 0, output
    counts = [[int(number) for number in re.findall(r"\d+", output)] for output in outputs]
    return tuple(sum(column) for column in zip(*counts, strict=True))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = compile_c(Path(folder) / "power_cuts", [HERE / "power_cuts.c", *SIMULATOR, *STORE], "-O2")
        try:
            cuts, second, moved, changed = cut_power(program, every=1, second=100)
        except AssertionError as failure:
            sys.exit(str(failure))
    print(f"{cuts:,} power cuts and {second:,} second ones after them: nothing lost, nothing half there")
    print(f"{moved:,} steps moved slots that count, {changed:,} changed the log sector")


if __name__ == "__main__":
    main()
