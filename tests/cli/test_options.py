"""The command line as a whole: every option is declared once, and says what it is."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from tinypeft.cli import main


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


COMMANDS = dict(commands(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_declared_once(name: str) -> None:
    declared = [flag for each in COMMANDS[name].params for flag in [*each.opts, *each.secondary_opts]]
    assert len(declared) == len(set(declared)), sorted(flag for flag in declared if declared.count(flag) > 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_a_help(name: str) -> None:
    assert COMMANDS[name].help
    options = [each for each in COMMANDS[name].params if isinstance(each, click.Option) and not each.hidden]
    assert not [each.name for each in options if not each.help]
