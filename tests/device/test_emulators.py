"""The registry, the host twin, QEMU with exact counts, and Renode's scripts."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinypeft.boards import board_names, load_board
from tinypeft.device import trace_crc32
from tinypeft.emulators import EMULATORS, Emulator, register
from tinypeft.emulators import icount as counting
from tinypeft.emulators.base import INSTRUCTIONS, running
from tinypeft.errors import BoardError, DeviceError, ToolError
from tinypeft.project import build_firmware, build_twin, write_project

WIDE = (np.arange(600, dtype=np.int16) * 7 - 2000).astype(np.int16)
QEMU_BOARDS = [name for name in board_names() if "qemu" in load_board(name).emulators]
FAKE_MODEL = Path(__file__).with_name("fake_model.c")


def test_the_registry_holds_what_the_folder_holds():
    assert {"host", "qemu", "renode"} <= set(EMULATORS)
    assert INSTRUCTIONS in EMULATORS["qemu"].capabilities
    assert INSTRUCTIONS not in EMULATORS["host"].capabilities
    for name, emulator in EMULATORS.items():
        assert emulator.name == name
        assert emulator.missing() is None or len(emulator.missing()) > 20

    class Second(Emulator):
        name = "qemu"
        missing = open = lambda *_: None

    with pytest.raises(KeyError, match="qemu is registered twice"):
        register(Second)


# Host twin


def test_two_twins_share_no_state(twin_project, make_board):
    host, project = EMULATORS["host"], twin_project()
    with host.open(project, make_board()) as one, host.open(project, make_board()) as other:
        one.reset_adapter(1)
        other.reset_adapter(2)
        assert one.read("adapter") != other.read("adapter")
    with host.open(project, make_board()) as fresh:
        assert fresh.read("adapter") == bytes(24)
        assert fresh.instructions() is None
        assert "no Arm instructions" in fresh.counter_reason


def test_twins_that_cannot_be_used(twin_project, make_board, compile_c, tmp_path):
    host = EMULATORS["host"]
    with pytest.raises(ToolError, match="libtwin.so does not exist"), host.open(tmp_path, make_board()):
        pass
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "libtwin.so").write_text("no library")
    with pytest.raises(ToolError, match="cannot load"), host.open(tmp_path, make_board()):
        pass
    (tmp_path / "other.c").write_text("extern int other;\nint other = 1;\n")
    compile_c("gcc", "-shared", "-fPIC", tmp_path / "other.c", "-o", tmp_path / "build" / "libtwin.so")
    with pytest.raises(ToolError, match="is not a twin of tinypeft"), host.open(tmp_path, make_board()):
        pass
    with (
        pytest.raises(DeviceError, match=r"INFO\(\): .*not an adapter package"),
        host.open(twin_project("FAKE_BROKEN_START"), make_board()),
    ):
        pass


# QEMU


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    """Board name -> a built project of the fake model."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
    built = {}

    def build(name, *defines):
        if (name, *defines) not in built:
            board = load_board(name)
            source = "".join(f"#define {define}\n" for define in defines) + FAKE_MODEL.read_text()
            project = write_project(
                tmp_path_factory.mktemp(name) / "project",
                board,
                model_name="fake",
                sources={"fake_model.c": source},
                kernels=[],
                stack_bytes=4096,
                manifest={},
                files={},
            )
            build_firmware(project, board)
            build_twin(project)
            built[(name, *defines)] = project
        return built[(name, *defines)]

    return build


@pytest.fixture
def qemu():
    reason = EMULATORS["qemu"].missing()
    if reason is not None:
        pytest.skip(reason)
    return EMULATORS["qemu"]


@pytest.mark.parametrize("name", QEMU_BOARDS)
def test_firmware_on_qemu_answers_as_its_twin(qemu, firmware, name):
    board, project = load_board(name), firmware(name)
    answers = []
    for emulator in (EMULATORS["host"], qemu):
        with emulator.open(project, board) as device:
            device.write("staging", bytes(range(256)) * 8)
            assert device.read("staging") == bytes(range(256)) * 8
            answers.append(
                [
                    device.info(),
                    device.infer(bytes([9] * 16), trace=True, dump=3),
                    device.train_step(None, 1, 0.5, trace=True),
                    device.reset_adapter(3),
                    device.export_adapter(),
                    device.load_adapter(device.export_adapter()),
                    device.read("training"),
                ]
            )
            if emulator is qemu:
                stats = device.stats()
                assert stats.stack_bytes == 4096
                assert 1200 < stats.stack_high_water < 4096  # the fake keeps 1200 bytes on its stack
                assert stats.guards_intact
                assert device.instructions() is None
                with pytest.raises(DeviceError, match="out of range"):
                    device.train_step(None, 3, 0.5)
    assert answers[0] == answers[1]
    assert answers[1][1].trace[3].crc32 == trace_crc32(WIDE, -7)


@pytest.mark.parametrize("name", QEMU_BOARDS)
def test_instruction_counts_are_exact_and_repeatable(qemu, firmware, name):
    def counts():
        with qemu.open(firmware(name), load_board(name), count_instructions=True) as device:
            if device.counter_reason is not None:
                pytest.skip(device.counter_reason)
            assert device.instructions() is None
            found = []
            for rounds in (0, 1, 255, 0):
                device.infer(bytes([0, rounds]) + bytes(14))
                found.append(device.instructions())
                assert device.instructions() == found[-1]
            device.train_step(None, 1, 0.5)
            found.append(device.instructions())
            device.update(0.5)
            return [*found, device.instructions()]

    first = counts()
    none, one, many, again, step, update = first
    # The fake spins 1000 times for each unit of its second input, at two instructions a round.
    assert (one - none, many - none, again - none) == (2000, 255 * 2000, 0)
    assert 5 < update <= step < none + 300  # the step adds floats, in software where there is no FPU
    assert counts() == first


def test_a_refused_plugin_gives_no_counts_but_a_reason(qemu, firmware, compile_c, monkeypatch, tmp_path):
    source = tmp_path / "other.c"
    source.write_text("extern int qemu_plugin_version;\nint qemu_plugin_version = 1000;\n")
    compile_c("gcc", "-shared", "-fPIC", source, "-o", tmp_path / "other.so")
    monkeypatch.setattr("tinypeft.emulators.qemu.build_plugin", lambda: (tmp_path / "other.so", None))
    name = QEMU_BOARDS[0]
    with qemu.open(firmware(name), load_board(name), count_instructions=True) as device:
        device.infer(bytes(16))
        assert device.instructions() is None
        assert "QEMU refused the counting plugin" in device.counter_reason


def test_without_a_compiler_there_is_no_plugin_but_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        reason = "the counting plugin needs a C compiler of this computer: apt install gcc"
        assert counting.build_plugin() == (None, reason)
    plugin, reason = counting.build_plugin()
    assert reason is None and plugin.is_relative_to(tmp_path)
    assert [path.name for path in plugin.parent.iterdir()] == [plugin.name]
    changed = plugin.stat().st_mtime_ns
    assert counting.build_plugin() == (plugin, None) and plugin.stat().st_mtime_ns == changed
    monkeypatch.setenv("XDG_CACHE_HOME", str(plugin))
    assert "could not be built" in counting.build_plugin()[1]


def processes_with(text: str) -> list[int]:
    """Processes with `text` on their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in arguments and int(entry.parent.name) != os.getpid():
            found.append(int(entry.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_qemu_is_gone_whatever_ends_the_session(qemu, firmware):
    name = QEMU_BOARDS[0]
    project = firmware(name)
    with pytest.raises(ZeroDivisionError), qemu.open(project, load_board(name)):
        assert len(processes_with(str(project))) == 1
        raise ZeroDivisionError
    assert processes_with(str(project)) == []
    with (
        pytest.raises(DeviceError, match="the emulator ended"),
        qemu.open(project, load_board(name)) as device,
    ):
        (process,) = processes_with(str(project))
        os.kill(process, 9)
        device.infer(bytes(16))
    assert processes_with(str(project)) == []


def test_qemu_that_cannot_start(qemu, firmware, make_board, tmp_path):
    project = firmware(QEMU_BOARDS[0])
    with pytest.raises(BoardError, match="does not run on qemu"), qemu.open(project, make_board()):
        pass
    with (
        pytest.raises(BoardError, match="lacks 'serial'"),
        qemu.open(project, make_board(emulators={"qemu": {"machine": "x"}})),
    ):
        pass
    unknown = make_board(emulators={"qemu": {"machine": "no-such-machine", "serial": 0}})
    with pytest.raises(ToolError, match="(?s)ended with code 1.*unsupported machine"), qemu.open(project, unknown):
        pass
    with pytest.raises(ToolError, match="firmware.elf does not exist"), qemu.open(tmp_path, load_board(QEMU_BOARDS[0])):
        pass


def test_firmware_whose_model_does_not_start_says_so(qemu, firmware):
    name = QEMU_BOARDS[0]
    with (
        pytest.raises(DeviceError, match=r"INFO\(\): .*not an adapter package"),
        qemu.open(firmware(name, "FAKE_BROKEN_START"), load_board(name)),
    ):
        pass


def test_firmware_that_stays_silent_is_given_up(qemu, firmware, monkeypatch):
    monkeypatch.setattr("tinypeft.emulators.qemu.READY_LIMIT", 1.0)
    settings = dict(load_board("mps2_an386").emulators["qemu"])
    board = type("Board", (), {"name": "other", "emulators": {"qemu": settings | {"serial": settings["serial"] + 1}}})
    started = time.monotonic()
    with pytest.raises(DeviceError, match="no answer to INFO within 1 s"), qemu.open(firmware("mps2_an386"), board):
        pass
    assert time.monotonic() - started < 10


def test_a_child_that_ignores_the_end_of_the_session_is_killed(tmp_path):
    with pytest.raises(KeyError), running(["sh", "-c", "trap '' TERM; sleep 100 & wait"], tmp_path / "log") as process:
        raise KeyError
    assert process.returncode is not None
    with pytest.raises(ToolError, match="cannot run"), running([str(tmp_path / "absent")], tmp_path / "log"):
        pass


# Renode


def test_renode_scripts(firmware):
    name = "stm32f4_discovery"
    renode, board, project = EMULATORS["renode"], load_board(name), firmware(name)
    resc, robot = renode.write_scripts(project, board)
    assert resc.read_text().splitlines()[1:] == [
        "$port?=3456",
        'mach create "stm32f4_discovery"',
        "machine LoadPlatformDescription @platforms/boards/stm32f4_discovery-kit.repl",
        "path add $ORIGIN",
        "sysbus LoadELF @firmware.elf",
        'emulation CreateServerSocketTerminal $port "term" false',
        "connector Connect sysbus.usart2 term",
        "start",
    ]
    assert "Create Terminal Tester  sysbus.usart2" in robot.read_text()
    assert "Wait For Line On Uart   tinypeft .+ ready  treatAsRegex=true" in robot.read_text()


def test_renode_counts_at_the_markers(firmware):
    project = firmware("stm32f4_discovery")
    resc, _ = EMULATORS["renode"].write_scripts(project, load_board("stm32f4_discovery"), count_instructions=True)
    hooks = [line.split() for line in resc.read_text().splitlines() if "AddHook" in line]
    elf = project / "build" / "firmware.elf"
    listing = subprocess.run(["arm-none-eabi-objdump", "-d", elf], capture_output=True, text=True, check=True).stdout
    markers = [
        int(line.split(":")[0], 16)
        for line in listing.splitlines()
        if "orr.w\tsl, sl, sl" in line or "orr.w\tfp, fp, fp" in line
    ]
    assert [int(words[2], 16) for words in hooks] == markers
    assert len(markers) == 8  # forward, evaluate, train_step, update


def test_a_renode_session(firmware):
    renode, name = EMULATORS["renode"], "stm32f4_discovery"
    reason = renode.missing()
    if reason is not None:
        pytest.skip(reason)
    with renode.open(firmware(name), load_board(name), count_instructions=True) as device:
        assert device.infer(bytes([4] * 16)).output == bytes([2] * 4)
        assert device.instructions() > 1000


FAKE_RENODE = """\
#!{python}
# Stands in for Renode: serves the project's twin on the TCP port that the command line names.
import base64, ctypes, re, socket, sys
twin = ctypes.CDLL("{twin}")
twin.tp_twin_exchange.restype = ctypes.c_size_t
twin.tp_twin_init()
port, script = re.search(r"\\$port=(\\d+); include @(.*)", sys.argv[-1]).groups()
assert "AddHook" in open(script).read()
server = socket.create_server(("127.0.0.1", int(port)))
connection, _ = server.accept()
buffer = ctypes.create_string_buffer(100000)
while data := connection.recv(4096):
    if data.startswith(b"\\x06\\x09") and base64.b64decode(data[2:18])[9] == 3:  # INFER
        print("12:00:00 [INFO] cpu: tinypeft begin 1000", flush=True)
        print("12:00:00 [INFO] cpu: tinypeft end 1501", flush=True)
    size = twin.tp_twin_exchange(ctypes.c_char_p(data), ctypes.c_size_t(len(data)), buffer, ctypes.c_size_t(100000))
    connection.sendall(buffer.raw[:size])
"""


def test_the_session_with_a_stand_in_for_renode(firmware, monkeypatch, tmp_path):
    project, name = firmware("stm32f4_discovery"), "stm32f4_discovery"
    program = tmp_path / "renode"
    program.write_text(FAKE_RENODE.format(python=sys.executable, twin=project / "build" / "libtwin.so"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with EMULATORS["renode"].open(project, load_board(name), count_instructions=True) as device:
        assert device.instructions() is None
        assert device.infer(bytes([4] * 16)).output == bytes([2] * 4)
        assert device.instructions() == 500
        assert len(processes_with(str(program))) == 1
    assert processes_with(str(program)) == []


def test_the_robot_test_runs_under_renode_test(firmware):
    name = "stm32f4_discovery"
    if shutil.which("renode-test") is None:
        pytest.skip("renode-test is not installed; it is part of Renode's portable archive")
    _, robot = EMULATORS["renode"].write_scripts(firmware(name), load_board(name))
    subprocess.run(["renode-test", robot.name], cwd=robot.parent, check=True, timeout=300)
