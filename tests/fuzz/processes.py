"""Processes that may crash: one compares models, one converts Keras models. Whoever asks them survives, and is told."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Seconds after which an answer is given up
TIME_LIMIT = 180.0
#: Questions after which a process is replaced, since the libraries that it loads keep memory
LIFETIME = 400

_CONTEXT = multiprocessing.get_context("spawn")


class Crashed(Exception):
    """The process ended or hung; `stage` is what it had begun, `said` the end of what it wrote to stderr."""

    def __init__(self, stage: str, said: str):
        super().__init__(f"{stage}: {said}")
        self.stage, self.said = stage, said


class Server:
    """A process that answers questions by `make(folder)(question, stage)`, started when it is first asked."""

    def __init__(self, make: Callable[[Path], Callable[[Any, Callable[[str], None]], Any]], folder: Path):
        self._make, self._folder = make, folder
        self._process: Any = None
        self._pipe: Any = None
        self._asked = 0
        self._log = folder / "log"

    def ask(self, question: Any) -> Any:
        """The answer; raises Crashed, and the next question goes to a new process."""
        if self._asked >= LIFETIME:
            self.stop()
        if self._process is None:
            self._start()
        self._asked += 1
        stage = "starting"
        try:
            self._pipe.send(question)
            while self._pipe.poll(TIME_LIMIT):
                kind, value = self._pipe.recv()
                if kind == "answer":
                    return value
                stage = value
            said = f"no answer within {TIME_LIMIT:g} s"
        except (EOFError, OSError):
            self._process.join(10)
            said = f"exit code {self._process.exitcode}: {self._last_words()}"
        self.stop()
        raise Crashed(stage, said)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._pipe.close()
            self._process.join(0.2)
            self._process.kill()
            self._process.join()
        self._process, self._asked = None, 0

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, self._make, self._folder, self._log), daemon=True)
        self._process.start()
        theirs.close()

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        lines = [line for line in text.splitlines() if "runtime error" in line] or text.strip().splitlines()[-3:]
        return " / ".join(lines)[-600:]


def _serve(pipe: Any, make: Callable[[Path], Any], folder: Path, log: Path) -> None:
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    answer = make(folder)
    while True:
        try:
            question = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            os.ftruncate(2, 0)
            pipe.send(("answer", answer(question, lambda stage: pipe.send(("stage", stage)))))
        except BrokenPipeError:
            return
        except Exception:  # a defect of the fuzzer itself
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(3)


class Comparer:
    """Makes the function that compares cases; `shared` holds the compiled firmware."""

    def __init__(self, shared: Path):
        self.shared = shared

    def __call__(self, folder: Path) -> Callable[[Any, Callable[[str], None]], Any]:
        from comparing import compare
        from twins import Toolbox

        toolbox = Toolbox(self.shared, folder)
        return lambda case, stage: compare(case, toolbox, stage)


def converter(folder: Path) -> Callable[[Any, Callable[[str], None]], Any]:
    """The function that converts Keras models: a specification to (tflite, layers)."""
    from tinypeft.frontend.keras import tensorflow_command

    os.environ.update(tensorflow_command("none")[1])
    tempfile.tempdir = str(folder)
    from keras_models_of_layers import convert

    return lambda specification, stage: convert(specification, folder)
