"""`tinypeft adapter pack`, `unpack`, `inspect`, `verify`, `sign`: packages for devices, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tinypeft.adapter_files import describe_adapter, read_adapter, read_package, write_adapter
from tinypeft.adapter_state import adapter_from_package
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.files import check_folder, write_file, write_folder
from tinypeft.generate import open_project
from tinypeft.package.delta import describe_delta, is_delta
from tinypeft.package.describe import describe_package
from tinypeft.package.format import Identity, parse, with_identity
from tinypeft.package.signing import check_signature, sign
from tinypeft.state import unpack_adapter

HEADER_FILE, PAYLOAD_FILE = "header.json", "payload.bin"


@click.command("pack")
@click.argument("adapter")
@click.argument("project", required=False)
@click.option("--id", "name", help="The adapter's id: 1 to 15 characters of a-z 0-9 . _ -. Default: what it has.")
@click.option("--version", type=int, metavar="N", help="The adapter's version. Default: what it has.")
@click.option("--security-counter", type=int, metavar="N", help="Devices refuse lower ones. Default: what it has.")
@click.option("--sign", "key", metavar="KEY.pem", help="Sign it with this Ed25519 key.")
@click.option("-o", "--output", required=True, metavar="FILE", help="The package to write.")
@json_option
def pack(
    adapter: str,
    project: str | None,
    name: str | None,
    version: int | None,
    security_counter: int | None,
    key: str | None,
    output: str,
    as_json: bool,
) -> None:
    """Write ADAPTER, a folder or a package, as the package of an adapter with an identity.

    With PROJECT it is checked whether its firmware takes it; a folder that PEFT alone wrote needs one.
    """
    path = Path(adapter)
    package = read_package(path) if project is None else read_adapter(path, open_project(project).model).package
    had = parse(package).header.identity
    identity = Identity(
        had.id if name is None else name,
        had.version if version is None else version,
        had.counter if security_counter is None else security_counter,
    )
    packed = with_identity(package, identity)
    _write(output, packed if key is None else sign(packed, key), as_json)


@click.command("unpack")
@click.argument("file")
@click.option("--project", metavar="DIR", help="Write PEFT's files, of the adapter of this project.")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write.")
@json_option
def unpack(file: str, project: str | None, output: str, as_json: bool) -> None:
    """Write what the package FILE holds into a folder: its header as header.json, its tensors as payload.bin."""
    package = read_package(Path(file))
    described = describe_package(package)
    if project is not None:
        model = open_project(project).model
        adapter = adapter_from_package(model, package)
        write_adapter(output, model, adapter.state, package, {})
    else:
        target = check_folder(output, {HEADER_FILE, PAYLOAD_FILE}, "an unpacked package")
        header = json.dumps(described, indent=2, sort_keys=True) + "\n"
        write_folder(target, {HEADER_FILE: header.encode(), PAYLOAD_FILE: parse(package).payload})
    _report({"output": output, **described}, f"written to {output}", as_json)


@click.command("inspect")
@click.argument("source")
@json_option
def inspect(source: str, as_json: bool) -> None:
    """Show what the adapter folder, package or delta SOURCE holds."""
    path = Path(source)
    if path.is_dir():
        _show_folder(describe_adapter(path), as_json)
        return
    data = read_package(path)
    described = describe_delta(data) if is_delta(data) else describe_package(data)
    if as_json:
        print_json(described)
        return
    for key, value in described.items():
        console().print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")


def _show_folder(described: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(described)
        return
    out = console()
    for key, value in sorted(described["config"].items()):
        if key != "tinypeft":
            out.print(f"{key}: {value}")
    ours = described["config"].get("tinypeft") or {}
    for key in ("model", "fingerprint", "version"):
        if key in ours:
            out.print(f"{key}: {ours[key]}")
    table = Table("tensor", "shape")
    for name, shape in described["tensors"].items():
        table.add_row(name, " x ".join(map(str, shape)))
    out.print(table)


@click.command("verify")
@click.argument("file")
@click.option("--project", metavar="DIR", help="Check that this project's firmware takes it.")
@click.option("--key", metavar="PUB.pem", help="Check its signature with this Ed25519 key.")
@json_option
def verify(file: str, project: str | None, key: str | None, as_json: bool) -> None:
    """Check the package FILE as a device does; exit code 1 and the reason where it is refused."""
    package = read_package(Path(file))
    described = describe_package(package)
    if project is not None:
        unpack_adapter(open_project(project).model, package)
    if key is not None:
        check_signature(package, key)
    checked = {"checksums": True, "fits": project is not None or None, "signature": key is not None or None}
    what = ["whole", *(["fits the project"] if project else []), *(["signed with the key"] if key else [])]
    _report({**described, "checked": checked}, f"{described['id']} {described['version']}: {', '.join(what)}", as_json)


@click.command("sign")
@click.argument("file")
@click.option("--key", required=True, metavar="KEY.pem", help="The Ed25519 key, as `openssl genpkey` writes one.")
@click.option("-o", "--output", required=True, metavar="FILE", help="The package to write.")
@json_option
def sign_package(file: str, key: str, output: str, as_json: bool) -> None:
    """Sign the package FILE; a signature that it has is replaced."""
    _write(output, sign(read_package(Path(file)), key), as_json)


def _write(output: str, package: bytes, as_json: bool) -> None:
    """Write a package and say what it is."""
    write_file(output, package)
    described = describe_package(package)
    signed = "signed" if described["signed"] else "unsigned"
    text = f"{described['id']} {described['version']}: {len(package):,} B, {signed}, written to {output}"
    _report({"output": output, **described}, text, as_json)


def _report(described: Mapping[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(described)
    else:
        console().print(text)
