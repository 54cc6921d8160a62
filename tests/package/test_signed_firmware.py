"""Firmware that has a key, as a twin and under QEMU: it takes what is signed for it, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from emulation import need
from packages import changed
from projects import save_model
from trained import trained

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.emulators import EMULATORS
from tinypeft.errors import AdapterError, DeviceError, ToolError
from tinypeft.fitting import DEFAULT_STACK
from tinypeft.generate import build_for_emulator, generate_project, open_project
from tinypeft.package import monocypher
from tinypeft.package.format import SIGNATURE_BYTES, parse
from tinypeft.package.monocypher import monocypher_files
from tinypeft.package.signing import sign
from tinypeft.package.verifier import Verifier, load_verifier
from tinypeft.project import build_twin

BOARD = "mps2_an386"


@pytest.fixture(scope="session")
def monocypher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Monocypher's sources, as a user's own copy."""
    try:
        files = monocypher_files()
    except ToolError as error:
        pytest.skip(f"no Monocypher: {error.message}")
    folder = tmp_path_factory.mktemp("monocypher")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """(name) -> the PEM files of a private key and of its public one."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder = tmp_path_factory.mktemp("keys")

    def make(name: str) -> tuple[Path, Path]:
        private, public = folder / f"{name}.pem", folder / f"{name}_pub.pem"
        if not private.exists():
            key = Ed25519PrivateKey.generate()
            pem, raw = serialization.Encoding.PEM, serialization.NoEncryption()
            private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, raw))
            public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
        return private, public

    return make


@pytest.fixture(scope="session")
def firmware(
    tmp_path_factory: pytest.TempPathFactory,
    monocypher_folder: Path,
    keys: Callable[[str], tuple[Path, Path]],
) -> Path:
    """The project of `plain` for a board that QEMU runs, which has the public key `own`."""
    folder = tmp_path_factory.mktemp("signed")
    verifier = load_verifier(keys("own")[1], monocypher_folder)
    generate_project(save_model("plain", folder), load_board(BOARD), folder / "project", verifier=verifier)
    build_twin(folder / "project")
    return folder / "project"


@pytest.mark.parametrize("emulator", ["host", "qemu"])
def test_what_is_signed_is_taken(firmware: Path, keys: Callable[[str], tuple[Path, Path]], emulator: str) -> None:
    need("qemu", BOARD)
    made, board = trained("plain"), load_board(BOARD)
    package = made.adapter.package
    signed = sign(package, keys("own")[0])
    payload, broken = parse(package).payload, "the signature is missing or wrong"
    flipped = bytes([payload[5] ^ 1])
    forged = changed(signed[:-SIGNATURE_BYTES], 85, flipped) + signed[-SIGNATURE_BYTES:]
    refusals = [
        (package, broken, -11),
        (sign(package, keys("other")[0]), broken, -11),
        (signed[:-1] + bytes([signed[-1] ^ 1]), broken, -11),
        (signed[:-40] + bytes([signed[-40] ^ 1]) + signed[-39:], broken, -11),
        (forged, broken, -11),
        (signed[:85] + flipped + signed[86:], "checksum", -3),
        (signed[: -SIGNATURE_BYTES - 1] + b"\0" + signed[-SIGNATURE_BYTES:], "SHA-256", -10),
        (signed[:-SIGNATURE_BYTES], "incomplete", -13),
    ]
    with EMULATORS[emulator].open(firmware, board) as device:
        kept = device.read("adapter")
        for refused, text, code in refusals:
            with pytest.raises(DeviceError, match=rf"{text}.*\(status {code}\)"):
                device.load_adapter(refused)
            assert device.read("adapter") == kept, "a refused package left its traces"
        device.load_adapter(signed)
        assert device.read("adapter") == payload != kept
        stats = device.stats()
        assert stats.guards_intact and stats.stack_high_water < DEFAULT_STACK
        x = np.ascontiguousarray(made.samples.x[0])
        assert device.infer(x.tobytes()).output
        assert device.export_adapter() == package, "what a device exports is unsigned"


def test_the_project_opens_and_is_built_for_another_machine(firmware: Path) -> None:
    project = open_project(firmware)
    assert len(project.verify_key) == 32
    header = (firmware / "src" / "plain_key.h").read_text()
    assert ", ".join(f"0x{byte:02x}" for byte in project.verify_key[:8]) in header
    assert (firmware / "firmware" / "monocypher" / "monocypher.c").is_file()
    folder, _ = build_for_emulator(firmware, load_board(BOARD), "qemu")
    assert (folder / "build" / "firmware.elf").is_file()


def test_a_project_without_adapters_needs_no_key(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="a key is of no use: residual has no adapter"):
        generate_project(
            save_model("residual", tmp_path),
            load_board(BOARD),
            tmp_path / "project",
            adapter=AdapterConfig(adapter="none"),
            verifier=Verifier(bytes(32), {}),
        )
    assert not (tmp_path / "project").exists()


def test_a_copy_of_monocypher_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"holds no monocypher\.c and monocypher\.h"):
        monocypher_files(tmp_path)
    for name in monocypher.FILES:
        (tmp_path / name).write_text("int crypto_check(void);")
    with pytest.raises(ToolError, match=r"lacks crypto_eddsa_check_equation\(\)"):
        monocypher_files(tmp_path)


def test_a_registry_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(ToolError, match=r"pip could not download pymonocypher-\S+tar.gz") as error:
        monocypher_files()
    assert "--monocypher DIR" in str(error.value.hint)
    assert not list((tmp_path / "tinypeft").iterdir())


def test_an_archive_that_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache it is downloaded anew; from the registry it is refused."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tinypeft").mkdir()
    (tmp_path / "tinypeft" / monocypher.ARCHIVE).write_bytes(b"changed")

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        (Path(command[-1]) / monocypher.ARCHIVE).write_bytes(b"another")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(ToolError, match="is not the one that was checked"):
        monocypher_files()
