"""The command line. A command is a module of this folder that defines `command`: supported_ops.py, `supported-ops`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

import click

from tinypeft import __version__
from tinypeft.errors import TinypeftError

#: Exit code after Ctrl-C, as shells give it: 128 + SIGINT
INTERRUPTED = 130


class CommandFolder(click.Group):
    """A group whose commands are the modules of this folder, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        names = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
        return [name for name in names if self.get_command(ctx, name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        module = cmd_name.replace("-", "_")
        if "_" in cmd_name or not any(module == found.name for found in pkgutil.iter_modules(__path__)):
            return None
        command = getattr(importlib.import_module(f"{__name__}.{module}"), "command", None)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest name for a command that does not exist."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            nearest = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {nearest[0]!r}?" if nearest else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a TinypeftError becomes `error: message` and `try: hint` on stderr, and its exit code."""
        try:
            return super().invoke(ctx)
        except TinypeftError as error:
            click.echo(f"error: {error.message}", err=True)
            if error.hint:
                click.echo(f"try: {error.hint.removeprefix('try ')}", err=True)
            raise click.exceptions.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=CommandFolder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tinypeft")
def main() -> None:
    """Compile a Keras model plus adapters into C that infers and trains on a Cortex-M."""
