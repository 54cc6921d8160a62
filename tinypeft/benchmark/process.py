"""Runs the training process: a job in, progress out; what it computes it leaves in the cache."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

from tinypeft import errors
from tinypeft.errors import TinypeftError, ToolError
from tinypeft.frontend.keras import has_tensorflow, no_tensorflow, tensorflow_command

#: Called with what is done now, and how many steps of how many.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def run_training(job: dict[str, Any], progress: Progress) -> None:
    """Run `job` (see benchmark.training) in a process of its own, so that TensorFlow is quiet and the same everywhere.

    ToolError: no TensorFlow, or the process failed; any error that it reports.
    """
    if not has_tensorflow():
        raise no_tensorflow()
    command, environment = tensorflow_command("tinypeft.benchmark.training")
    reported: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            encoding="utf-8",
        ) as process,
    ):
        try:
            _talk(process, job, progress, reported)
        except BaseException:
            process.kill()
            raise
        process.wait()
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
    if reported:
        kind: type[TinypeftError] = getattr(errors, reported["error"])
        raise kind(reported["message"], reported["hint"])
    if process.returncode != 0:
        raise ToolError(
            f"training for {job['dataset']} ended with exit code {process.returncode}: {lines[-1].strip()}",
            "check the installation of TensorFlow",
        )


def _talk(process: subprocess.Popen[str], job: dict[str, Any], progress: Progress, reported: dict[str, Any]) -> None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it ended; its exit code and log say why
        process.stdin.write(json.dumps(job))
        process.stdin.close()
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            reported |= message
        else:
            progress(message["what"], message["done"], message["total"])
