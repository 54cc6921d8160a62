"""A fake model compiled into a twin, for tests of the server and its client."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import pytest

from tinypeft.device import Device
from tinypeft.device.framing import Decoder, Message, encode
from tinypeft.emulators import EMULATORS
from tinypeft.errors import DeviceError
from tinypeft.resources import resource_path

HERE = Path(__file__).parent
WARNINGS = "-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
RUNTIME = resource_path("firmware", "runtime")
SOURCES = (
    "host_twin.c",
    "tp_cbor.c",
    "tp_crc.c",
    "tp_fit.c",
    "tp_frame.c",
    "tp_group_model.c",
    "tp_group_os.c",
    "tp_groups.c",
    "tp_request.c",
    "tp_response.c",
    "tp_schedule.c",
    "tp_server.c",
    "tp_server_fit.c",
    "tp_status.c",
)
TWIN = [*(RUNTIME / name for name in SOURCES), RUNTIME.parent / "kernels" / "tp_arithmetic.c", HERE / "fake_model.c"]


def compile_c(compiler: str, *arguments: str | Path) -> None:
    include = f"-I{resource_path('firmware', 'include')}"
    command = [compiler, *WARNINGS, include, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


@pytest.fixture(name="compile_c", scope="session")
def compile_c_fixture() -> Callable[..., None]:
    """compile_c(compiler, argument, ...): compile without warnings."""
    return compile_c


@pytest.fixture(scope="session")
def twin_sources() -> list[Path]:
    """The C files of a twin of the fake model."""
    return TWIN


@dataclass
class FakeBoard:
    """What emulators need of a board."""

    name: str = "fake_board"
    emulators: dict[str, dict[str, Any]] = field(default_factory=dict)


@pytest.fixture
def make_board() -> type[FakeBoard]:
    return FakeBoard


@pytest.fixture(scope="session")
def twin_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(define, ...) -> a project folder with the twin of the fake model."""
    built: dict[tuple[str, ...], Path] = {}

    def build(*defines: str) -> Path:
        if defines not in built:
            project = tmp_path_factory.mktemp("twin")
            (project / "build").mkdir()
            flags = [f"-D{name}" for name in defines]
            compile_c("gcc", "-O1", "-shared", "-fPIC", *flags, *TWIN, "-o", project / "build" / "libtwin.so")
            built[defines] = project
        return built[defines]

    return build


@pytest.fixture
def device(twin_project: Callable[..., Path]) -> Iterator[Device]:
    with EMULATORS["host"].open(twin_project(), FakeBoard()) as opened:
        yield opened


@pytest.fixture
def latent_device(twin_project: Callable[..., Path]) -> Iterator[Device]:
    """A device that keeps latents."""
    with EMULATORS["host"].open(twin_project("TP_LATENTS"), FakeBoard()) as opened:
        yield opened


class Wire:
    """The server's byte stream, without the client's care."""

    def __init__(self, device: Device):
        self.transport = device.transport

    def exchange(self, data: bytes) -> list[Message]:
        self.transport.send(data)
        try:
            return Decoder().feed(self.transport.receive(1.0))
        except DeviceError:  # the twin did not answer
            return []

    def request(self, op: int, command: int, payload: bytes | dict[str, Any] = b"", **fields: int) -> Message:
        """The final response to one request; its payload as it is, or as a map."""
        body = payload if isinstance(payload, bytes) else cbor2.dumps(payload)
        return self.exchange(encode(Message(op, command, 1, body, **fields)))[-1]

    def ask(self, op: int, command: int, payload: bytes | dict[str, Any] = b"", **fields: int) -> Any:
        """Its map."""
        return cbor2.loads(self.request(op, command, payload, **fields).payload)


@pytest.fixture
def wire(device: Device) -> Wire:
    return Wire(device)


@pytest.fixture
def latent_wire(latent_device: Device) -> Wire:
    return Wire(latent_device)


@pytest.fixture
def inference_wire(twin_project: Callable[..., Path]) -> Iterator[Wire]:
    """The same of firmware without adapter, training and tracing."""
    with EMULATORS["host"].open(twin_project("FAKE_INFERENCE_ONLY"), FakeBoard()) as opened:
        yield Wire(opened)
