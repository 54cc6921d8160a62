"""Differential fuzzing: `make fuzz N=2000 SEED=1` compares random models at every tensor, to the bit.

LiteRT's reference kernels, the interpreter, the host twin, which stops at undefined behaviour, and for one model in 25
the firmware under QEMU. Findings are saved as build/fuzz/<number>.tflite and .json; --replay compares such a file
again. The exit code is 1 where there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS / folder) for folder in ("fuzz", "frontend", "ops", "")]

from campaign import KERAS, SHARES, Campaign, batches, has_tensorflow, run_batches  # noqa: E402
from comparing import EQUAL  # noqa: E402
from report import Tally, load_case, save_finding  # noqa: E402
from twins import can_emulate  # noqa: E402

FOLDER = _TESTS.parent / "build" / "fuzz"
#: Seconds between two lines of progress
PROGRESS = 30.0


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=300, help="how many models (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other models")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no model after this time")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", choices=list(SHARES), help="models of this source alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file too")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where findings and compiled files go")
    parser.add_argument("--replay", type=Path, metavar="F.tflite", help="compare the model of a finding again")
    options = parser.parse_args()
    if options.replay:
        return replay(options.replay, options.folder)
    shares = {options.only: 100} if options.only else dict(SHARES)
    if KERAS in shares and not has_tensorflow():
        shares.pop(KERAS)
        print("TensorFlow is not installed: no Keras models; pip install -e '.[dev]'")
    if (reason := can_emulate()) is not None:
        print(f"no model is emulated: {reason}")
    work, begin, last = batches(options.n, options.seed, shares), time.monotonic(), time.monotonic()

    def progress(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS:
            last = time.monotonic()
            seconds = last - begin
            print(f"{tally.models.total():,} models, {len(tally.findings)} findings, {seconds:.0f} s", flush=True)

    tally = run_batches(work, options.folder, options.workers, progress, options.seconds)
    seconds = time.monotonic() - begin
    print("\n".join(tally.lines(seconds)))
    for number, finding in enumerate(tally.findings):
        print(f"saved {save_finding(options.folder, number, finding)}")
    if options.json:
        settings = {"n": options.n, "seed": options.seed, "seconds": round(seconds)}
        options.json.write_text(json.dumps(settings | tally.as_json(), indent=2) + "\n")
    return int(tally.failed)


def replay(path: Path, folder: Path) -> int:
    """Compare a saved case again, in this process."""
    campaign = Campaign(folder, folder / "replay")
    result = campaign.compare(load_case(path), counted=False)
    campaign.close()
    print(result.outcome, result.reason)
    return int(result.outcome != EQUAL)


if __name__ == "__main__":
    sys.exit(main())
