"""Training by the device itself: tp_fit in C on the fake model; the commands FIT and EVALUATE through the client."""

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest

from tinypeft.device.fit import DO_NO_HARM, UNDO, End, FitProgress, FitRequest, FitResult, Score
from tinypeft.device.framing import WRITE, Message, encode
from tinypeft.device.protocol import Command
from tinypeft.errors import DeviceError
from tinypeft.resources import resource_path

SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
TARGET = struct.pack("<2i", 0, 1 << 16)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_every_rule_in_c(compile_c, compiler, tmp_path):
    """fit_program.c: each guard rail with it and without, early stopping, errors, and what is left after each."""
    here, program = Path(__file__).parent, tmp_path / "program"
    names = "fit crc status server_fit schedule request response cbor frame".split()  # the fake refers to the server
    runtime = [resource_path("firmware", "runtime", f"tp_{name}.c") for name in names]
    runtime.append(resource_path("firmware", "kernels", "tp_arithmetic.c"))
    flags = [*SANITIZERS, "-fno-sanitize=float-divide-by-zero"] if compiler == "gcc" else ["-O2"]
    compile_c(compiler, *flags, *runtime, here / "fake_model.c", here / "fit_program.c", "-o", program)
    run = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), f"fit_program.c:{run.stdout}{run.stderr}"


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb"])
def test_it_compiles_without_a_warning(compile_c, compiler, tmp_path):
    program, *flags = compiler.split()
    source = resource_path("firmware", "runtime", "tp_fit.c")
    for latents in ([], ["-DTP_LATENTS=1"]):
        options = [*flags, *latents, "-O2", "-ffp-contract=off"]
        compile_c(program, *options, "-c", source, "-o", tmp_path / "object.o")


def fill(device, count: int = 12) -> None:
    """Samples of three classes in turn; a sample of the fake is a label, two targets, and an input."""
    for index in range(count):
        label = struct.pack("<i", index % 3)
        device.store_sample(index, bytes([index] * 2 + [0] * 14), label + TARGET)


def request(**changes: float) -> FitRequest:
    settings = {"samples": 12, "epochs": 2, "seed": 5, "held_back": 1, "held_back_share": 0, "patience": 0}
    settings |= {"guards": DO_NO_HARM | UNDO, "max_undone": 3, "replayed": 0, "min_gain": 0}
    settings |= {"schedule": 0, "learning_rate": 0.0625, "warmup_steps": 0, "total_steps": 0, "final_fraction": 0.0}
    return FitRequest(**(settings | changes))


def test_fit_from_latents(latent_device):
    """Each sample that is learned from is encoded once, and all steps begin behind that."""
    fill(latent_device)
    heard: list[FitProgress] = []
    latent_device.reset_adapter(1)
    result = latent_device.fit(request(epochs=3), heard.append)
    assert (result.learned, result.steps) == (9, 27)
    assert struct.unpack("<3f", latent_device.read("training", 0, 12)) == (0.5625, 0.5625, 0.5625)
    loss = 9 * 16384 + 3 * (0 + 1 + 2) * 65536  # 0.25 + the label
    assert [p.loss for p in heard if p.ended] == [loss] * 3
    assert struct.unpack("<6i", latent_device.read("adapter"))[4] == 9


def test_fit(device):
    fill(device)
    heard: list[FitProgress] = []
    result = device.fit(request(), heard.append)
    before, after = Score(0, 3 * 65536), Score(0, 3 * 40960)
    assert result == FitResult(9, 3, 2, 18, 18, 0, End.ALL_EPOCHS, True, 2, before, after)
    assert struct.unpack("<3f", device.read("training", 0, 12)) == (0.375, 0.375, 0.375)
    loss = 9 * 98304 + 3 * (0 + 1 + 2) * 65536  # of the fake: 0.5 + the label + the target
    assert [(p.epoch, p.steps, p.total, p.loss) for p in heard if p.ended] == [(1, 9, 18, loss), (2, 18, 18, loss)]
    assert sum(not p.ended for p in heard) == (3 + 18 + 3) // 16
    assert device.stats().guards_intact


def test_fewer_samples_than_there_is_room_for(device):
    fill(device)
    assert device.fit(request(samples=6)).learned == 3


def test_the_store_is_read_as_it_was_written(device):
    fill(device)
    sample = device.info().sample_bytes
    assert device.read("samples", 5 * sample, sample) == struct.pack("<i", 2) + TARGET + bytes([5] * 2 + [0] * 14)
    assert len(device.read("samples")) == 20 * sample


def test_evaluate(device):
    device.write("training", struct.pack("<2f", 0.75, 2.0))
    assert device.evaluate(bytes(16), 0).evaluated == (16384, 1)
    assert device.evaluate(None, 1).evaluated == (65536, 0)
    assert device.read("training", 0, 8) == struct.pack("<2f", 0.75, 2.0), "nothing is learned"
    assert len(device.evaluate(bytes(16), 0, trace=True).trace) == 100


def test_training_steps_say_whether_masters_are_sane(device):
    assert device.train_step(bytes(16), 0, 0.5).masters_sane
    assert device.update(0.5).masters_sane
    assert not device.train_step(bytes(16), 0, 1e30).masters_sane
    assert not device.update(0.5).masters_sane


ERRORS = {
    "too many samples": (
        lambda d: d.fit(request(samples=21)),
        "21 samples are more than the 20 that fake has room for",
    ),
    "no room for a sample": (lambda d: d.store_sample(20, bytes(16), bytes(12)), "21 samples are more than the 20"),
    "input": (lambda d: d.store_sample(0, bytes(15), bytes(12)), "the input has 15 bytes, fake takes 16"),
    "target": (lambda d: d.store_sample(0, bytes(16), bytes(8)), "the target has 8 bytes, fake takes 12"),
    "nothing held back": (lambda d: d.fit(request(held_back=0)), r"FIT\(samples=12, .*out of range \(status -1\)"),
    "no epochs": (lambda d: d.fit(request(epochs=0)), r"FIT\(samples=12, epochs=0, .*out of range"),
    "rate": (lambda d: d.fit(request(learning_rate=float("inf"))), r"FIT\(.*learning_rate=inf\): .*out of range"),
    "kind of schedule": (lambda d: d.fit(request(schedule=3)), r"FIT\(.*out of range"),
    "warm-up": (lambda d: d.fit(request(schedule=1, warmup_steps=9, total_steps=8)), r"FIT\(.*out of range"),
    "updates": (lambda d: d.fit(request(schedule=2, total_steps=2**31)), r"FIT\(.*out of range"),
    "last rate": (lambda d: d.fit(request(schedule=2, total_steps=9, final_fraction=1.1)), r"FIT\(.*out of range"),
    "huge rate": (lambda d: d.fit(request(learning_rate=1e300)), "cannot be sent"),
    "evaluated label": (lambda d: d.evaluate(None, 3), r"EVALUATE\(label=3\): .*out of range"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(device, case):
    fill(device)
    call, message = ERRORS[case]
    with pytest.raises(DeviceError, match=message):
        call(device)
    assert device.read("training") == bytes(40) and device.stats().guards_intact


def test_a_label_that_is_none(device):
    fill(device)
    device.write("samples", struct.pack("<i", 3), 4 * device.info().sample_bytes)
    with pytest.raises(DeviceError, match="out of range"):
        device.fit(request())


def test_firmware_that_only_infers(inference_wire):
    for command, fields in ((Command.FIT, {"samples": 1, "epochs": 1, "rate": 0.5}), (Command.EVALUATE, {})):
        assert inference_wire.ask(WRITE, command, fields) == {"err": {"group": 64, "rc": 7}}, command


def test_a_device_without_a_store_is_named(device):
    device._info = replace(device.info(), samples=0)
    for call in (lambda: device.fit(request()), lambda: device.store_sample(0, bytes(16), 0)):
        with pytest.raises(DeviceError, match="fake has no store of samples") as caught:
            call()
        assert "--samples N" in caught.value.hint


def test_a_result_that_lacks_something_is_reported(device):
    transport = device._link.transport
    send = transport.send

    def cut(data: bytes) -> None:
        send(data)
        answer = Message(WRITE + 1, Command.FIT, device._link._sequence, cbor2.dumps({"learned": 1, "epochs": 1}))
        transport._received = encode(answer)

    device.info()
    transport.send = cut
    with pytest.raises(DeviceError, match="FIT: an answer without held_back, steps"):
        device.fit(request())
