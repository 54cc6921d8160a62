"""The command line's frame: errors, hints, exit codes, JSON."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import tinypeft.cli
from tinypeft.boards import board_names
from tinypeft.cli import main
from tinypeft.cli.output import json_option, print_json
from tinypeft.errors import FitError


def run(*arguments: str, **keywords):
    return CliRunner().invoke(main, arguments, **keywords)


def test_every_module_is_a_command_of_its_name():
    with click.Context(main) as ctx:
        for name in main.list_commands(ctx):
            assert main.get_command(ctx, name).name == name
    assert {"boards", "doctor"} <= set(main.list_commands(ctx)) and "output" not in main.list_commands(ctx)


def test_error_and_hint_on_stderr():
    result = run("boards", "show", "stm32f4")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: unknown board 'stm32f4'\ntry: did you mean stm32f4_discovery?\n"


def test_error_as_a_process_has_no_traceback():
    command = [sys.executable, "-m", "tinypeft", "boards", "show", "x", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown board 'x'\ntry: ")


@pytest.fixture
def command_that_raises(monkeypatch):
    def install(error: BaseException):
        @click.command("fail")
        def command():
            raise error

        monkeypatch.setattr(tinypeft.cli.CommandFolder, "get_command", lambda self, ctx, name: command)

    return install


def test_exit_code_of_the_error(command_that_raises):
    error = FitError("needs 5 B, has 4 B")
    error.exit_code = 7
    command_that_raises(error)
    result = run("fail")
    assert (result.exit_code, result.stderr) == (7, "error: needs 5 B, has 4 B\n")


def test_interrupt(command_that_raises):
    command_that_raises(KeyboardInterrupt())
    result = run("fail")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    "arguments", [["boards", "--nonsense"], ["bords"], ["boards", "show"], ["output"], ["no_such"]]
)
def test_usage_errors(arguments):
    result = run(*arguments)
    assert result.exit_code == 2 and "Traceback" not in result.stderr


def test_command_is_suggested():
    assert "Did you mean 'boards'?" in run("bords").stderr


def test_help_and_version():
    assert "boards" in run("--help").stdout
    assert run("--version").stdout == f"tinypeft, version {tinypeft.__version__}\n"


def test_boards_json():
    result = run("boards", "--json")
    boards = json.loads(result.stdout)["boards"]
    assert [board["name"] for board in boards] == board_names()
    assert json.loads(run("boards", "show", "mps2_an386", "--json").stdout) in boards


@pytest.mark.parametrize("name", board_names())
def test_boards_for_people(name):
    assert name in run("boards").stdout
    assert name in run("boards", "show", name).stdout


def test_print_json_converts():
    @dataclasses.dataclass
    class Point:
        x: int

    @click.command()
    @json_option
    def command(as_json: bool):
        assert as_json
        print_json({"a": np.float32(0.5), "b": np.arange(2), "c": Path("/x"), "d": Point(1), "e": np.bool_(True)})

    result = CliRunner().invoke(command, ["--json"])
    assert json.loads(result.stdout) == {"a": 0.5, "b": [0, 1], "c": "/x", "d": {"x": 1}, "e": True}
