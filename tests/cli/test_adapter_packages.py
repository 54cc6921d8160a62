"""`tinypeft adapter pack, unpack, inspect, verify, sign, diff, apply-diff`: what they write, and what they refuse."""

from __future__ import annotations

import builtins
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from invocation import invoke, refused, succeeded
from projects import BOARD, Built, save_model
from trained import compiled, trained

from tinypeft.adapter_files import read_adapter, write_adapter
from tinypeft.adapters import AdapterConfig
from tinypeft.package.format import Identity, PackageHeader, pack, parse
from tinypeft.package.signing import sign
from tinypeft.state import pack_adapter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter of `plain` as `train` writes it."""
    made = trained("plain")
    write_adapter(tmp_path / "a", made.model, made.adapter.state, made.adapter.package, {})
    return tmp_path / "a"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    made = trained("plain")
    file = tmp_path / "adapter.bin"
    file.write_bytes(pack_adapter(made.model, made.adapter.state, Identity("bell", 2, 1)))
    return file


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key.pem, pub.pem, other.pem and other_pub.pem, which openssl made."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = tmp_path_factory.mktemp("keys")
    for name, public in (("key", "pub"), ("other", "other_pub")):
        openssl("genpkey", "-algorithm", "ed25519", "-out", made / f"{name}.pem")
        openssl("pkey", "-in", made / f"{name}.pem", "-pubout", "-out", made / f"{public}.pem")
    openssl("genpkey", "-algorithm", "ed25519", "-aes-256-cbc", "-pass", "pass:x", "-out", made / "encrypted.pem")
    openssl("genpkey", "-algorithm", "x25519", "-out", made / "x25519.pem")
    openssl("pkey", "-in", made / "x25519.pem", "-pubout", "-out", made / "x25519_pub.pem")
    return made


def openssl(*arguments: str | Path) -> str:
    run = subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True)
    return run.stdout


def test_pack_names_an_adapter(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "named.bin"
    said = succeeded(
        *("adapter", "pack", folder, "-o", out, "--id", "bell", "--version", "9", "--security-counter", "3")
    )
    parsed = parse(out.read_bytes())
    assert parsed.header.identity == Identity("bell", 9, 3) and not parsed.signature
    assert parsed.payload == parse(trained("plain").adapter.package).payload
    assert (said["id"], said["version"], said["security_counter"], said["signed"]) == ("bell", 9, 3, False)
    assert said["rank"] == 4 and said["adapters"] == ["lora", "modules_to_save"]
    again = tmp_path / "again.bin"
    succeeded("adapter", "pack", out, "-o", again, "--version", "10")
    assert parse(again.read_bytes()).header.identity == Identity("bell", 10, 3)
    assert "bell 10" in invoke("adapter", "inspect", again).stdout.replace("id: bell\nversion: 10", "bell 10")
    (folder / "adapter.bin").write_bytes(again.read_bytes())
    assert read_adapter(folder, trained("plain").model).package == again.read_bytes(), (
        "a named one counts as the folder's"
    )


def test_pack_of_a_project(project: Callable[[str], Built], folder: Path, tmp_path: Path) -> None:
    built, out = project("plain"), tmp_path / "named.bin"
    (folder / "adapter.bin").unlink()
    refused(invoke("adapter", "pack", folder, "-o", out, "--id", "bell"), "cannot read the adapter")
    succeeded("adapter", "pack", folder, built.directory, "-o", out, "--id", "bell")
    assert parse(out.read_bytes()).payload == parse(trained("plain").adapter.package).payload
    smaller = tmp_path / "smaller.bin"
    smaller.write_bytes(compiled("plain", AdapterConfig(r=1)).adapter.package)
    succeeded("adapter", "pack", smaller, built.directory, "-o", out)
    assert succeeded("adapter", "verify", out, "--project", built.directory)["checked"]["fits"] is True
    smaller.write_bytes(compiled("plain", AdapterConfig(r=5)).adapter.package)
    refused(invoke("adapter", "verify", smaller, "--project", built.directory), "rank 5, the project takes up to 4")
    for options in (["--project", built.directory], []):
        succeeded("adapter", "unpack", out, "-o", tmp_path / f"unpacked{len(options)}", *options)
    files = {file.name for file in (tmp_path / "unpacked2").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "adapter.bin"}
    assert read_adapter(tmp_path / "unpacked2", built.model).package == out.read_bytes()


def test_unpack(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeeded("adapter", "unpack", package, "-o", out)
    assert (out / "payload.bin").read_bytes() == parse(package.read_bytes()).payload
    assert json.loads((out / "header.json").read_text())["id"] == "bell"
    succeeded("adapter", "unpack", package, "-o", out)
    (out / "mine.txt").write_text("mine")
    refused(invoke("adapter", "unpack", package, "-o", out), "something other than an unpacked package")


def test_signatures_are_openssls(package: Path, keys: Path, tmp_path: Path) -> None:
    signed = tmp_path / "signed.bin"
    assert succeeded("adapter", "sign", package, "--key", keys / "key.pem", "-o", signed)["signed"] is True
    parsed = parse(signed.read_bytes())
    (tmp_path / "digest").write_bytes(parsed.digest)
    (tmp_path / "signature").write_bytes(parsed.signature)
    check = ("pkeyutl", "-verify", "-pubin", "-rawin", "-in", tmp_path / "digest", "-sigfile", tmp_path / "signature")
    assert "Signature Verified Successfully" in openssl(*check, "-inkey", keys / "pub.pem")
    packed = tmp_path / "packed.bin"
    succeeded("adapter", "pack", package, "-o", packed, "--sign", keys / "key.pem")
    assert packed.read_bytes() == signed.read_bytes() == sign(signed.read_bytes(), keys / "key.pem")
    checked = succeeded("adapter", "verify", signed, "--key", keys / "pub.pem")["checked"]
    assert checked == {"checksums": True, "fits": None, "signature": True}
    wrong = invoke("adapter", "verify", signed, "--key", keys / "other_pub.pem")
    refused(wrong, r"the signature of the adapter package is not one of \S+other_pub\.pem")
    refused(invoke("adapter", "verify", package, "--key", keys / "pub.pem"), "has no signature")
    changed = bytearray(signed.read_bytes())
    changed[-1] ^= 1
    signed.write_bytes(changed)
    refused(invoke("adapter", "verify", signed, "--key", keys / "pub.pem"), "the signature of the adapter package")


@pytest.mark.parametrize(
    ("command", "key", "message"),
    [
        ("sign", "absent.pem", "cannot read the key .*: No such file"),
        ("sign", "pub.pem", "holds no private key in PEM"),
        ("sign", "encrypted.pem", "is encrypted"),
        ("sign", "x25519.pem", "is no Ed25519 key"),
        ("verify", "key.pem", "holds no public key in PEM"),
        ("verify", "x25519_pub.pem", "is no Ed25519 key"),
        ("verify", ".", "cannot read the key .*: Is a directory"),
    ],
)
def test_keys_that_are_none(package: Path, keys: Path, tmp_path: Path, command: str, key: str, message: str) -> None:
    output = ["-o", tmp_path / "out.bin"] if command == "sign" else []
    refused(invoke("adapter", command, package, "--key", keys / key, *output), message)
    assert not (tmp_path / "out.bin").exists()


def test_without_cryptography(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, *rest: object, **options: object) -> object:
        if name.split(".")[0] == "cryptography":
            raise ImportError(name)
        return importing(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    result = invoke("adapter", "sign", package, "--key", "key.pem", "-o", tmp_path / "out.bin")
    refused(result, "signatures need the package cryptography")
    assert "pip install 'tinypeft[ota]'" in result.stderr


def test_deltas(package: Path, tmp_path: Path) -> None:
    made = trained("plain")
    state = {name: values.copy() for name, values in made.adapter.state.items()}
    state["stem_lora_A"][0] += 1
    new, delta, back = (tmp_path / name for name in ("new.bin", "x.delta", "back.bin"))
    new.write_bytes(pack_adapter(made.model, state, Identity("bell", 3, 1)))
    said = succeeded("adapter", "diff", package, new, "-o", delta)
    assert said["kind"] == "delta" and said["delta_bytes"] == delta.stat().st_size < new.stat().st_size
    assert succeeded("adapter", "inspect", delta) == {key: said[key] for key in said if key != "output"}
    assert succeeded("adapter", "apply-diff", package, delta, "-o", back)["version"] == 3
    assert back.read_bytes() == new.read_bytes()
    refused(invoke("adapter", "apply-diff", new, delta, "-o", tmp_path / "no.bin"), "the delta is for a package of")
    (tmp_path / "cut").write_bytes(delta.read_bytes()[:-2])
    refused(invoke("adapter", "apply-diff", package, tmp_path / "cut", "-o", tmp_path / "no.bin"), "is incomplete")
    refused(invoke("adapter", "diff", package, delta, "-o", tmp_path / "no.bin"), "are no adapter package")
    refused(invoke("adapter", "diff", package, package, "-o", tmp_path / "absent" / "no"), "cannot write")
    assert not (tmp_path / "no.bin").exists()


def test_a_delta_that_is_no_smaller_is_refused(tmp_path: Path) -> None:
    old, new, rng = tmp_path / "old.bin", tmp_path / "new.bin", np.random.default_rng(0)
    for file in (old, new):
        file.write_bytes(pack(PackageHeader(Identity(), bytes(32), 1, 1, 4), rng.bytes(3000)))
    result = invoke("adapter", "diff", old, new, "-o", tmp_path / "no")
    refused(result, r"the delta has [0-9,]+ B, the new package itself 3,116 B")
    assert "send the new package" in result.stderr and not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--id", "Bell"], "'Bell' is no adapter id"),
        (["--id", "a" * 16], "is no adapter id"),
        (["--version", "-1"], "the version is -1"),
        (["--security-counter", "4294967296"], "the security counter is 4294967296"),
    ],
)
def test_identities_that_are_none(package: Path, tmp_path: Path, options: list[str], message: str) -> None:
    refused(invoke("adapter", "pack", package, "-o", tmp_path / "out.bin", *options), message)
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.parametrize("command", ["pack", "unpack", "inspect", "verify", "sign"])
def test_files_that_are_no_packages(command: str, package: Path, keys: Path, tmp_path: Path) -> None:
    extra = {"sign": ["--key", keys / "key.pem"]}.get(command, [])
    extra += [] if command in ("inspect", "verify") else ["-o", tmp_path / "out"]
    data = package.read_bytes()
    cases = {
        "are no adapter package": b"something else",
        "is incomplete": data[:-1],
        "checksum does not match": data[:99] + bytes([data[99] ^ 1]) + data[100:],
    }
    for message, content in cases.items():
        (tmp_path / "bad.bin").write_bytes(content)
        refused(invoke("adapter", command, tmp_path / "bad.bin", *extra), message)
    refused(invoke("adapter", command, tmp_path / "absent.bin", *extra), "cannot read the adapter")
    assert not (tmp_path / "out").exists()


def test_generate_with_a_key(tmp_path: Path, keys: Path) -> None:
    """What is missing or wrong is told before anything is compiled."""
    model, out = save_model("plain", tmp_path), tmp_path / "out"
    common = ("generate", model, "--board", BOARD, "-o", out)
    refused(invoke(*common, "--monocypher", tmp_path), "of use with --verify-key alone", code=2)
    refused(invoke(*common, "--verify-key", keys / "key.pem"), "holds no public key in PEM")
    refused(invoke(*common, "--verify-key", keys / "pub.pem", "--monocypher", tmp_path), r"holds no monocypher\.c")
    assert not out.exists()
