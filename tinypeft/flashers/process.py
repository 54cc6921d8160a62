"""Run a tool: its output passed on while it runs, and it and all it started ended at a time limit or Ctrl-C."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinypeft.errors import ToolError

#: Characters of a tool's output that are kept
_KEPT = 1 << 20
#: Seconds between asking a tool to end and ending it
_GRACE = 2.0


@dataclass(frozen=True)
class Finished:
    """How a tool ended: its exit code and the end of what it said on stdout and stderr."""

    code: int
    output: str


def run_tool(command: list[str], *, limit: float, echo: Callable[[str], None]) -> Finished:
    """Run `command` without input for at most `limit` seconds; `echo` is called with its output as it comes.

    ToolError where it cannot be started or is not done in time.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(
            f"cannot run {command[0]}: {error.strerror}", "tinypeft doctor lists what is installed"
        ) from error
    output = ""
    try:
        for text in _read(process, time.monotonic() + limit):
            echo(text)
            output = (output + text)[-_KEPT:]
        return Finished(process.wait(), output)
    except _TimeOut:
        raise ToolError(
            f"{command[0]} did not end within {limit:g} s{last_lines(output)}",
            "look at the board's power and cable; give it more time with --timeout",
        ) from None
    finally:
        _end(process)


def last_lines(output: str, count: int = 5) -> str:
    """The end of what a tool said, as a suffix of an error message; empty where it said nothing."""
    lines = [line.rstrip() for line in output.replace("\r", "\n").splitlines() if line.strip()][-count:]
    return "; it said:\n" + "\n".join(lines) if lines else "; it said nothing"


class _TimeOut(Exception):
    pass


def _read(process: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """The process's output in pieces, until it has ended; _TimeOut at `deadline`."""
    assert process.stdout is not None
    stream, decoder = process.stdout.fileno(), codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        ready, _, _ = select.select([stream], [], [], 0.1)
        if ready:
            data = os.read(stream, 65536)
            yield decoder.decode(data, final=not data)
            if not data:
                break
        elif process.poll() is not None:
            break  # what it started and left behind holds the pipe open
        if time.monotonic() > deadline:
            raise _TimeOut
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(deadline - time.monotonic(), 0.0))
    if process.returncode is None:
        raise _TimeOut


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group: asked first, since a tool that is cut off can leave its probe hanging."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
