"""Builds the targets with clang's libFuzzer and runs them: a target in, how often it ran and what it found out."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
BUILD = HERE.parents[1] / "build" / "fuzz_firmware"
FIRMWARE = HERE.parents[1] / "firmware"
WARNINGS = "-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
SANITIZED = ["-O2", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
#: An input that takes longer, in seconds, is a finding
TIMEOUT = 20

PACKAGE = ("runtime/tp_id.c", "runtime/tp_package.c")
STORE = ("store/tp_store.c", "store/tp_store_log.c", "store/tp_store_slots.c", "store/tp_store_upload.c")
REQUEST = ("runtime/tp_request.c", "runtime/tp_cbor.c")
#: Of which branches say nothing: without coverage they are faster
UNTRACED = ("runtime/tp_crc.c", "runtime/tp_sha256.c", "store/tp_flash_memory.c")
SMALL_STORE = ("-DTP_STORE_ADAPTERS=3", "-DTP_STORE_BLOCKS=16")


@dataclass(frozen=True)
class Target:
    """A parser, the sources of firmware/ that it is made of, and its part of all runs."""

    name: str
    sources: tuple[str, ...]
    share: float
    max_bytes: int
    defines: tuple[str, ...] = ()
    untraced: tuple[str, ...] = ()
    compares: bool = True  # the fuzzer sees operands of comparisons, which is slower

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name


TARGETS = {
    target.name: target
    for target in (
        Target("cbor", REQUEST, 0.3, 600),
        Target("delta", ("store/tp_delta.c",), 0.15, 900, compares=False),
        Target("package", PACKAGE, 0.2, 480),
        Target(
            "smp",
            (
                *REQUEST,
                *PACKAGE,
                *STORE,
                *(
                    f"store/{name}.c"
                    for name in ("tp_adapters", "tp_adapters_combine", "tp_checkpoint", "tp_delta", "tp_upload")
                ),
                *(f"store/tp_group_{name}.c" for name in ("adapters", "files", "images")),
                *(f"runtime/tp_{name}.c" for name in ("frame", "group_model", "group_os", "groups", "response")),
                *(f"runtime/tp_{name}.c" for name in ("fit", "schedule", "server", "server_fit", "status")),
                "kernels/tp_arithmetic.c",
            ),
            0.15,
            700,
            (*SMALL_STORE, "-DTP_STORE=1", "-DTP_LATENTS=1", "-DFAKE_GAPS=1"),
            ("../tests/device/fake_model.c", "../tests/fuzz_firmware/smp_device.c"),
            compares=False,
        ),
        Target("store", ("runtime/tp_id.c", *STORE), 0.2, 1200, SMALL_STORE, compares=False),
    )
}


class CannotFuzzError(Exception):
    """There is no clang with a fuzzer runtime."""


def require_fuzzer() -> None:
    """CannotFuzzError where clang cannot link a fuzzer."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        source.write_text(
            "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n);\n"
            "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return n > 0 && d[0] > 255; }\n"
        )
        command = ["clang", "-fsanitize=fuzzer,address,undefined", str(source), "-o", f"{folder}/empty"]
        try:
            run = subprocess.run(command, capture_output=True, text=True)
            version = subprocess.run(["clang", "-dumpversion"], capture_output=True, text=True).stdout.split(".")[0]
        except FileNotFoundError:
            raise CannotFuzzError("clang is not installed; try: make setup") from None
    if run.returncode != 0:
        raise CannotFuzzError(
            f"clang {version} has no fuzzer runtime; try: make setup, or apt install libclang-rt-{version}-dev"
        )


def build(target: Target, folder: Path, *flags: str, instead: Mapping[str, Path] | None = None) -> Path:
    """The program of a target, in `folder`; `instead` has other files for some of its sources.

    CalledProcessError where it does not compile, after clang has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replaced = instead or {}
    paths = {name: replaced.get(name, FIRMWARE / name) for name in (*target.sources, *UNTRACED, *target.untraced)}
    include = [f"-I{path}" for path in (FIRMWARE / "include", FIRMWARE / "store", HERE)]
    clang = ["clang", *WARNINGS, *SANITIZED, *target.defines, *flags, *include]
    objects = [folder / f"{Path(name).stem}.o" for name in (*UNTRACED, *target.untraced, "harness.c")]
    untraced = [*(paths[name] for name in (*UNTRACED, *target.untraced)), HERE / "harness.c"]
    for source, compiled in zip(untraced, objects, strict=True):
        subprocess.run([*clang, "-c", str(source), "-o", str(compiled)], check=True)
    coverage = ["-fsanitize=fuzzer", *([] if target.compares else ["-fno-sanitize-coverage=trace-cmp"])]
    traced = [HERE / f"{target.name}.c", *(paths[name] for name in target.sources)]
    program = folder / target.name
    subprocess.run([*clang, *coverage, *map(str, [*traced, *objects]), "-o", str(program)], check=True)
    return program


@dataclass(frozen=True)
class Result:
    """What a run came to. `found` is the input that stops the program, and `reason` what it stopped with."""

    executions: int
    seconds: float
    edges: int
    found: Path | None = None
    reason: str = ""


_REASON = re.compile(r"does not hold: .*|.*runtime error: .*|.*ERROR: (?:AddressSanitizer|libFuzzer): .*")


def run(
    target: Target,
    program: Path,
    folder: Path,
    runs: int,
    seconds: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Run from the kept corpus, and the seeds and what earlier runs left in `folder`: `runs` times, or so many seconds.

    Seconds of 0 are no limit. RuntimeError where the fuzzer stops for another reason than an input.
    """
    grown, seeds, found = folder / "corpus", folder / "seeds", folder / "found"
    for place in (grown, seeds, found):
        place.mkdir(parents=True, exist_ok=True)
    options = {
        "runs": runs,
        "max_total_time": seconds,
        "max_len": target.max_bytes,
        "artifact_prefix": f"{found}/",
        "timeout": TIMEOUT,
        "entropic": int(target.compares),
        "print_final_stats": 1,
    }
    command = [str(program), *map(str, (grown, seeds, target.corpus))]
    command += [f"-{name}={value}" for name, value in options.items()]
    executions, edges, elapsed, reason, lines = 0, 0, 0.0, "", []
    stops: Path | None = None
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as fuzzer:
        assert fuzzer.stderr is not None
        for line in fuzzer.stderr:
            lines = [*lines[-40:], line]
            if counted := re.match(r"#(\d+)\s", line):
                executions = int(counted[1])
                progress(executions)
            if covered := re.search(r"\bcov: (\d+)", line):
                edges = int(covered[1])
            if ended := re.match(r"Done (\d+) runs in (\d+) second", line):
                executions, elapsed = int(ended[1]), float(ended[2])
            if units := re.match(r"stat::number_of_executed_units:\s*(\d+)", line):
                executions = int(units[1])
            if written := re.search(r"Test unit written to (.+)", line):
                stops = Path(written[1])
            if not reason and _REASON.match(line):
                reason = line.strip()
    if fuzzer.returncode != 0 and stops is None:
        raise RuntimeError(f"{target.name}: the fuzzer stopped with {fuzzer.returncode}:\n{''.join(lines)}")
    return Result(executions, elapsed, edges, stops, reason)
