"""The TrustZone sample under QEMU: what non-secure code gets, what it is refused, and that a hole would be seen."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from emulation import console_until, need
from projects import CONFIGURATIONS, save_model

from tinypeft.boards import load_board
from tinypeft.device import Device
from tinypeft.emulators import EMULATORS
from tinypeft.generate import generate_project
from tinypeft.project import build_twin

BOARD = "mps2_an505"
SECRET = bytes(range(7, 39))
MARKER = "trustzone sample done"
STEPS, LEARNING_RATE = 8, 0.05
#: The machine does not turn the peripheral controllers' refusals into bus errors: they read as zeros
READS_ZEROS = "secure console"


@dataclass(frozen=True)
class Run:
    """What both sides said, a line each."""

    secure: list[str]
    nonsecure: list[str]

    def values(self, start: str) -> list[str]:
        """What follows `start` in the lines that begin with it."""
        return [line[len(start) :] for line in self.secure + self.nonsecure if line.startswith(start)]

    def attempts(self) -> dict[str, tuple[str | None, str | None]]:
        """Each attempt, as "read adapter": (the fault that the secure side saw, what the attacker got)."""
        lines = [line for line in self.nonsecure if line.startswith(("try ", "got ", "wrote", "called"))]
        faults = {int(text.split()[0]): text.split(" ", 1)[1] for text in self.values("fault stage ")}
        result: dict[str, tuple[str | None, str | None]] = {}
        for index, line in enumerate(lines):
            if line.startswith("try "):
                after = lines[index + 1] if index + 1 < len(lines) and not lines[index + 1].startswith("try ") else None
                name = re.fullmatch(r"try (.*) 0x[0-9a-f]{8}", line)
                assert name, line
                result[name[1]] = (faults.get(len(result) + 1), after)
        return result


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose two images are built."""
    need("qemu", BOARD)
    folder = tmp_path_factory.mktemp("trustzone")
    model, adapter, training = CONFIGURATIONS["plain"]
    project = folder / "project"
    generate_project(save_model(model, folder), load_board(BOARD), project, adapter=adapter, training=training)
    build_twin(project)
    make(project)
    return project


@pytest.fixture(scope="module")
def run(sample: Path) -> Run:
    return run_images(sample)


@pytest.fixture(scope="module")
def changed(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """(file under trustzone/, text, replacement), ... -> the run of a copy in which that is so."""

    def build(*changes: tuple[str, str, str]) -> Run:
        project = Path(shutil.copytree(sample, tmp_path_factory.mktemp("changed") / "project"))
        for file, text, replacement in changes:
            path = project / "trustzone" / file
            whole = path.read_text()
            assert whole.count(text) == 1
            path.write_text(whole.replace(text, replacement))
        make(project)
        return run_images(project)

    return build


def make(project: Path, *targets: str, secret: str = SECRET.hex()) -> None:
    environment = os.environ | {"DEVICE_SECRET": secret}
    command = ["make", "-s", "-C", str(project), *(targets or ["trustzone"])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_images(project: Path) -> Run:
    images, secure = project / "build" / "trustzone", project / "build" / "secure.txt"
    command = ["qemu-system-arm", "-M", "mps2-an505", "-display", "none", "-monitor", "none"]
    command += ["-serial", f"file:{secure}", "-serial", "stdio", "-kernel", str(images / "secure.elf")]
    text = console_until([*command, "-device", f"loader,file={images / 'nonsecure.elf'}"], MARKER, seconds=60)
    said = secure.read_text()
    assert MARKER in text, f"{text}\nsecure side:\n{said}"
    return Run(said.splitlines(), text.splitlines())


def pattern(device: Device, number: int) -> bytes:
    return bytes((i * 37 + number * 101 + 11) % 256 for i in range(device.info().input_bytes))


def assert_sealed(run: Run) -> None:
    """Every attempt ends in a fault of the non-secure side, and gives nothing."""
    attempts = run.attempts()
    assert len(attempts) == 13
    for name, (fault, got) in attempts.items():
        if name == f"read {READS_ZEROS}":
            assert fault or got == "got 0x00000000", f"{name}: {got}"
            continue
        assert got is None, f"{name}: {got}"
        assert fault and fault.endswith("of the non-secure side"), f"{name}: {fault}"
        # SFSR: INVEP for a call that finds no entry point, AUVIOL for data.
        status = "0x00000001" if name.startswith("call ") else "0x00000008"
        assert fault.startswith(f"secure-fault status {status}"), f"{name}: {fault}"


def test_inference_and_training_are_the_twins(sample: Path, run: Run) -> None:
    """Outputs of both sides, before and after the secure side has trained, and every loss, to the bit."""
    with EMULATORS["host"].open(sample, load_board(BOARD)) as twin:
        twin.reset_adapter(int(run.values("seed ")[0]))
        before = twin.infer(pattern(twin, 0)).output
        classes = len(before)
        steps = [twin.train_step(pattern(twin, i + 1), i % classes, LEARNING_RATE) for i in range(STEPS)]
        losses = [f"0x{struct.unpack('<I', struct.pack('<f', step.loss))[0]:08x}" for step in steps]
        after = twin.infer(pattern(twin, 0)).output
    assert before != after
    # The output in between follows the refused pointers: they changed nothing.
    assert run.values("non-secure output ") == [before.hex(), before.hex(), after.hex()]
    assert run.values("secure output ")[:2] == [before.hex(), after.hex()]
    assert run.values("loss ") == losses and run.values("trained: ") == ["ok"]


def test_secure_memory_functions_and_console_are_out_of_reach(run: Run) -> None:
    assert_sealed(run)
    names = set(run.attempts())
    for target in ("adapter", "training", "arena"):
        assert {f"read {target}", f"read {target}'s other alias"} <= names
    assert {"write adapter", "read secret", "call key derivation", "call training step"} <= names


def test_the_entry_point_refuses_pointers_into_secure_memory(run: Run) -> None:
    answers = dict(text.rsplit(": ", 1) for text in run.values("refused "))
    sizes = {"input too short", "output too long"}
    assert len(answers) == 14 and sizes < set(answers)
    for name, status in answers.items():
        assert status == ("-2" if name in sizes else "-1"), name  # TP_ERR_SIZE, TP_ERR_ARGUMENT


def test_memory_controllers_open_what_the_map_says(run: Run) -> None:
    counts = [re.findall(r"\d+", text) for text in run.values("memory controller ")[:3]]
    shares = [int(opened) / int(blocks) for _, blocks, opened in counts]
    assert shares == [0.5, 0.0, 1.0]


def test_hooks(run: Run) -> None:
    """Keys follow from the secret, the counter never goes back and survives resets, no draw comes twice."""
    boots = run.values("secure boot ")
    assert boots == [str(i + 1) for i in range(len(boots))] and len(boots) == len(run.values("fault stage ")) + 1
    blocks = [hmac.digest(SECRET, struct.pack(">I", i) + b"checkpoint\0", "sha256") for i in (1, 2)]
    check = hmac.digest(b"".join(blocks)[:48], b"check", hashlib.sha256).hex()
    assert run.values("key check ") == [check] * len(boots)
    counters = run.values("counter at least ")
    assert counters == ["7: 7", "3: 7", "0: 7"] + ["0: 7"] * (len(boots) - 1)
    drawn, seeds = run.values("drawn "), run.values("seed ")
    assert len(set(drawn)) == len(drawn) == 2 * len(boots) and len(set(seeds)) == len(boots)


def test_only_the_entry_points_are_exported(sample: Path) -> None:
    library = sample / "build" / "trustzone" / "secure_entry.o"
    listed = subprocess.run(["arm-none-eabi-nm", library], check=True, capture_output=True, text=True).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines()}
    assert set(symbols) == {"tp_secure_infer", "tp_secure_idle", "tp_secure_stage"}
    assert all(0x101F_0000 <= address < 0x1020_0000 for address in symbols.values())


def test_memory_left_open_would_be_seen(sample: Path, changed: Callable[..., Run]) -> None:
    """With the model in non-secure memory the attacker reads what is there, and writes it."""
    run = changed(("memory_map.h", "MODEL_RAM_ORIGIN 0x38020000", "MODEL_RAM_ORIGIN 0x28220000"))
    with pytest.raises(AssertionError, match="adapter"):
        assert_sealed(run)
    with EMULATORS["host"].open(sample, load_board(BOARD)) as twin:
        twin.reset_adapter(int(run.values("seed ")[1]))  # of the boot in which the training state is read
        masters = twin.read("training")
    attempts = run.attempts()
    assert [attempts[f"read {name}"][0] for name in ("adapter", "training", "arena")] == [None] * 3
    assert attempts["read training"][1] == f"got 0x{struct.unpack_from('<I', masters)[0]:08x}"
    assert attempts["write adapter"] == (None, "wrote")
    assert attempts["read secret"][1] is None  # which still lies in secure memory
    before, harmed, _ = run.values("non-secure output ")
    assert before != harmed  # an output went over the adapter


def test_console_left_open_would_be_seen(changed: Callable[..., Run]) -> None:
    """What reads as zeros is not zero: it is the divider of the baud rate."""
    run = changed(("secure/attribution.c", "APBNSPPCEXP1 = UART1_PORT", "APBNSPPCEXP1 = UART1_PORT | 1u << 5"))
    assert run.attempts()[f"read {READS_ZEROS}"][1] == f"got 0x{round(20e6 / 115200):08x}"


def test_memory_controllers_hold_without_the_core(changed: Callable[..., Run]) -> None:
    """Were the SAU to call the model's memory non-secure, its controller would still refuse it, as it does to a DMA."""
    exact, wide = "nonsecure[i].origin, nonsecure[i].length, 0", "nonsecure[i].origin & 0xF8000000u, 0x08000000u, 0"
    # Pointers would lead the secure side itself there.
    run = changed(
        ("secure/attribution.c", f"attribute(i, {exact})", f"attribute(i, {wide})"),
        ("nonsecure/main.c", "  tp_attack_pointers();\n", ""),
    )
    attempts = run.attempts()
    for name in ("adapter", "training", "arena", "secret"):
        fault, got = attempts[f"read {name}'s other alias"]
        assert got is None and fault and fault.startswith("bus-fault"), (name, fault, got)


def test_a_short_secret_does_not_build(sample: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(sample, tmp_path / "project"))
    (project / "build/trustzone/device_secret.h").unlink()
    with pytest.raises(AssertionError, match="DEVICE_SECRET has 64 hex digits"):
        make(project, "build/trustzone/secure/trustzone/secure/hooks.o", secret=SECRET.hex()[:-2])
