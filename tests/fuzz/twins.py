"""Twins and firmware of many models, quickly: all of firmware/ compiled once, of each model its own files alone."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tinypeft.boards import load_board
from tinypeft.codegen import GeneratedSources
from tinypeft.device import Device
from tinypeft.emulators import EMULATORS
from tinypeft.fitting import DEFAULT_STACK
from tinypeft.project.render import C_FLAGS, LINK_FLAGS, LINK_LIBRARIES
from tinypeft.project.writer import project_files
from tinypeft.resources import resource_path

BOARD = load_board("mps2_an386")
STACK = DEFAULT_STACK
CROSS = "arm-none-eabi-gcc"
#: what the twin adds to the flags of a project; undefined behaviour stops it
TWIN_FLAGS = ("-fPIC", "-O1", "-g0", "-fsanitize=undefined", "-fno-sanitize-recover=all")
_RUNTIME_OF_TWIN = ("main.c", "tp_board.c")


class Toolbox:
    """The compiled libraries in a folder that processes may share, and a folder of this process for its models."""

    def __init__(self, shared: Path, own: Path):
        self.own = own
        self.shared = shared
        self.library = prepare_library(shared)
        (own / "build").mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def twin(self, sources: GeneratedSources) -> Iterator[Device]:
        """The host twin of a model, which stops at undefined behaviour."""
        files = self._write(sources)
        target = self.own / "build" / "libtwin.so"
        command = ["gcc", *C_FLAGS, *TWIN_FLAGS, "-shared", *self._includes(), *files]
        _run([*command, "twin.o", "libtwin.a", "-o", str(target)], self.library)
        with EMULATORS["host"].open(self.own, BOARD) as device:
            yield device

    @contextlib.contextmanager
    def emulated(self, sources: GeneratedSources) -> Iterator[Device]:
        """Its firmware under QEMU, with the kernels of the core; one process at a time."""
        files = self._write(sources)
        files += [str(self.own / "src" / name) for name in sorted(sources.files) if name.endswith(".S")]
        target = self.own / "build" / "firmware.elf"
        with _locked(self.shared / "library.lock"):
            if not (self.library / "libfirmware.a").exists():
                _compile_firmware(self.library)
        link = [*LINK_FLAGS, "-Tboard/linker.ld", "startup.o", "main.o", "libfirmware.a", *LINK_LIBRARIES]
        defines = [f"-D{define}" for define in sources.target_defines]
        command = [CROSS, *BOARD.cpu_flags, *C_FLAGS, *defines, *self._includes(), *files, *link, "-o", str(target)]
        _run(command, self.library)
        with _locked(self.shared / "emulator.lock"), EMULATORS["qemu"].open(self.own, BOARD) as device:
            yield device

    def _includes(self) -> list[str]:
        return ["-Ifirmware/include", "-Iboard", f"-I{self.own / 'src'}"]

    def _write(self, sources: GeneratedSources) -> list[str]:
        folder = self.own / "src"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, text in sources.files.items():
            (folder / name).write_text(text)
        return [str(folder / name) for name in sorted(sources.files) if name.endswith(".c")]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def can_emulate() -> str | None:
    """Why models cannot be run under QEMU here; None where they can."""
    if shutil.which(CROSS) is None:
        return f"{CROSS} is not installed"
    return EMULATORS["qemu"].missing()


def prepare_library(shared: Path) -> Path:
    """The folder of the firmware's sources, twin.o and libtwin.a, compiled once; what firmware needs comes later."""
    shared.mkdir(parents=True, exist_ok=True)
    root = resource_path("firmware", "kernels")
    kernels = [path.relative_to(root).as_posix() for folder in (root, root / "dsp") for path in folder.glob("*.c")]
    content = project_files(BOARD, "fuzz", {}, kernels, STACK, {})
    runtime = resource_path("firmware", "runtime")
    content |= {f"firmware/runtime/{path.name}": path.read_bytes() for path in runtime.glob("*.c")}
    digest = hashlib.sha256(repr((sorted(content.items()), C_FLAGS, TWIN_FLAGS)).encode()).hexdigest()[:16]
    folder = shared / f"library-{digest}"
    with _locked(shared / "library.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            for path, data in content.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
            _compile_twin(folder)
            (folder / "complete").touch()
    return folder


def _compile_twin(folder: Path) -> None:
    command = ["gcc", *C_FLAGS, *TWIN_FLAGS, "-Ifirmware/include", "-Iboard"]
    _run([*command, "-c", "firmware/runtime/host_twin.c", "-o", "twin.o"], folder)
    sources = [*(folder / "firmware" / "kernels").glob("*.c"), *(folder / "firmware" / "runtime").glob("*.c")]
    left_out = (*_RUNTIME_OF_TWIN, "host_twin.c")
    _archive(command, [s for s in sources if s.name not in left_out], folder, "twin", "ar")


def _compile_firmware(folder: Path) -> None:
    command = [CROSS, *BOARD.cpu_flags, *C_FLAGS, "-Ifirmware/include", "-Iboard"]
    for source in ("board/startup.c", "firmware/runtime/main.c"):
        _run([*command, "-c", source, "-o", f"{Path(source).stem}.o"], folder)
    sources = [path for path in (folder / "firmware").rglob("*.c") if path.name not in ("main.c", "host_twin.c")]
    _archive(command, sources, folder, "firmware", "arm-none-eabi-ar")


def _archive(command: list[str], sources: list[Path], folder: Path, name: str, archiver: str) -> None:
    """lib<name>.a of the sources, compiled by as many processes as there are cores."""
    objects = folder / f"objects-{name}"
    objects.mkdir()
    shares = [sources[i :: os.cpu_count() or 1] for i in range(os.cpu_count() or 1)]
    command = [part.replace("-I", f"-I{folder}/", 1) if part.startswith("-I") else part for part in command]
    running = [subprocess.Popen([*command, "-c", *map(str, each)], cwd=objects) for each in shares if each]
    if any([process.wait() for process in running]):
        raise AssertionError(f"firmware/ does not compile: {' '.join(command)}")
    _run([archiver, "rcs", f"lib{name}.a", *(str(path) for path in sorted(objects.glob("*.o")))], folder)


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\n{result.stderr[:2000]}")
