"""A C program that uses a generated model as an application would, and what the interpreter says it must print."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from projects import Built

from tinypeft.interpreter import run_graph
from tinypeft.ir import Tensor
from tinypeft.losses import target_argument
from tinypeft.resources import resource_path
from tinypeft.state import pack_tensors

#: The arena and both structs are allocated with exactly their size, so that AddressSanitizer sees every overrun.
_PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "NAME.h"
#include "samples.h"

static void show(const char *what, const void *data, size_t bytes) {
  printf("%s ", what);
  for (size_t i = 0; i < bytes; i++) printf("%02x", ((const unsigned char *)data)[i]);
  printf("\n");
}

#define CHECK(call) do { \
  const tp_status s = (call); \
  if (s != TP_OK) { printf("%s: %d\n", #call, s); return 1; } \
} while (0)

int main(void) {
  NAME m;
  uint8_t *arena = malloc(UPPER_ARENA_BYTES);
  memset(arena, 0xA5, UPPER_ARENA_BYTES);
#ifdef UPPER_ADAPTER_BYTES
  NAME_adapter *adapter = malloc(sizeof *adapter);
  NAME_training *training = malloc(sizeof *training);
  memset(adapter, 0x5A, sizeof *adapter);
  memset(training, 0x5A, sizeof *training);
  CHECK(NAME_init(&m, arena, adapter, training));
  CHECK(NAME_reset_adapter(&m, 3));
#else
  CHECK(NAME_init(&m, arena));
#endif
  for (int i = 0; i < COUNT; i++) {
    memcpy(NAME_input(&m), samples[i], UPPER_INPUT_BYTES);
    CHECK(NAME_forward(&m));
    show("output", NAME_output(&m), UPPER_OUTPUT_BYTES);
#ifdef UPPER_ADAPTER_BYTES
    float loss;
    int32_t evaluated[2];
    memcpy(NAME_input(&m), samples[i], UPPER_INPUT_BYTES);
    CHECK(NAME_evaluate(&m, TARGET(i) &evaluated[0], &evaluated[1]));
    show("evaluated", evaluated, sizeof evaluated);
    memcpy(NAME_input(&m), samples[i], UPPER_INPUT_BYTES);
#ifdef UPPER_LATENT_BYTES
    if (i % 2 == 1) { /* the same step in two parts */
      uint8_t *latents = malloc(UPPER_LATENT_BYTES);
      CHECK(NAME_encode(&m, latents));
      memset(arena, 0xA5, UPPER_ARENA_BYTES);
      CHECK(NAME_train_latents(&m, latents, TARGET(i) RATE, &loss));
      free(latents);
    } else
#endif
    CHECK(NAME_train_step(&m, TARGET(i) RATE, &loss));
    show("loss", &loss, sizeof loss);
#if BATCH > 1
    if (i % BATCH == BATCH - 1) CHECK(NAME_update(&m, RATE));
#endif
    show("adapter", adapter, UPPER_ADAPTER_BYTES);
    show("training", training, UPPER_TRAINING_BYTES);
#endif
  }
#ifdef UPPER_ADAPTER_BYTES
  unsigned char *package = malloc(UPPER_PACKAGE_BYTES);
  if (NAME_export_adapter(&m, NULL, package, UPPER_PACKAGE_BYTES - 1) != TP_ERR_SIZE) return 2;
  CHECK(NAME_export_adapter(&m, NULL, package, UPPER_PACKAGE_BYTES));
  memset(training, 0x77, sizeof *training);
  CHECK(NAME_load_adapter(&m, package, UPPER_PACKAGE_BYTES));
  show("restored", training, UPPER_TRAINING_BYTES);
  show("kept", adapter, UPPER_ADAPTER_BYTES);
  float loss;
  int32_t evaluated[2];
#ifdef BAD_TARGET
  if (NAME_evaluate(&m, BAD_TARGET &evaluated[0], &evaluated[1]) != TP_ERR_ARGUMENT) return 9;
  if (NAME_evaluate(&m, ANOTHER_BAD_TARGET &evaluated[0], &evaluated[1]) != TP_ERR_ARGUMENT) return 10;
  if (NAME_train_step(&m, BAD_TARGET RATE, &loss) != TP_ERR_ARGUMENT) return 3;
  if (NAME_train_step(&m, ANOTHER_BAD_TARGET RATE, &loss) != TP_ERR_ARGUMENT) return 4;
#endif
  if (NAME_train_step(&m, TARGET(0) RATE, NULL) != TP_ERR_ARGUMENT) return 5;
  if (NAME_evaluate(&m, TARGET(0) NULL, &evaluated[1]) != TP_ERR_ARGUMENT) return 11;
  if (NAME_evaluate(&m, TARGET(0) &evaluated[0], NULL) != TP_ERR_ARGUMENT) return 12;
#ifdef UPPER_LATENT_BYTES
  uint8_t *latents = malloc(UPPER_LATENT_BYTES);
  if (NAME_encode(&m, NULL) != TP_ERR_ARGUMENT) return 13;
  CHECK(NAME_encode(&m, latents));
  if (NAME_train_latents(&m, NULL, TARGET(0) RATE, &loss) != TP_ERR_ARGUMENT) return 14;
  if (NAME_train_latents(&m, latents, TARGET(0) RATE, NULL) != TP_ERR_ARGUMENT) return 15;
#ifdef BAD_TARGET
  if (NAME_train_latents(&m, latents, BAD_TARGET RATE, &loss) != TP_ERR_ARGUMENT) return 16;
#endif
  free(latents);
#endif
  CHECK(NAME_init(&m, arena, adapter, NULL));  /* a device that only infers */
  CHECK(NAME_load_adapter(&m, package, UPPER_PACKAGE_BYTES));
  if (NAME_train_step(&m, TARGET(0) RATE, &loss) != TP_ERR_ARGUMENT) return 6;
  if (NAME_reset_adapter(&m, 0) != TP_ERR_ARGUMENT || NAME_requantize(&m) != TP_ERR_ARGUMENT) return 7;
  if (NAME_init(&m, arena + 4, adapter, training) != TP_ERR_ARGUMENT) return 8;
  free(package), free(adapter), free(training);
#endif
  free(arena);
  return 0;
}
"""


_FLAGS = ["gcc", "-std=c11", "-O1", "-g", "-ffp-contract=off"]


def compile_library(folder: Path, flags: list[str]) -> list[Path]:
    """Object files of all kernels and of what else a model links, compiled with gcc and `flags`."""
    root = resource_path("firmware")
    sources = [
        *(root / "kernels").glob("*.c"),
        *(root / "runtime" / f"tp_{part}.c" for part in ("crc", "id", "package", "sha256", "status")),
    ]
    command = [*_FLAGS, *flags, f"-I{root / 'include'}", "-c", *map(str, sources)]
    subprocess.run(command, check=True, timeout=300, cwd=folder)
    return sorted(folder.glob("*.o"))


def run_program(built: Built, folder: Path, library: list[Path], flags: list[str], count: int) -> list[str]:
    """Compile the model with gcc and `flags`, link it with `library` into a program; the lines it prints."""
    dataset, name = built.samples(count), built.model.name
    rows = [np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8) for x in dataset.x]
    values = ", ".join(f"{{{', '.join(map(str, row))}}}" for row in rows)
    batch = built.model.training_config.batch_size
    (folder / "samples.h").write_text(
        f"#define COUNT {count}\n#define BATCH {batch}\n#define RATE {built.learning_rate}f\n"
        f"static const unsigned char samples[{count}][{name.upper()}_INPUT_BYTES] = {{{values}}};\n"
        + _targets(built.model.target, dataset.y, built.model.output.shape[-1])
    )
    (folder / "main.c").write_text(_PROGRAM.replace("UPPER", name.upper()).replace("NAME", name))
    sources = [folder / "main.c", *(built.directory / "src" / f"{name}{part}.c" for part in ("", "_weights")), *library]
    include = [f"-I{built.directory / 'firmware' / 'include'}", f"-I{built.directory / 'src'}", f"-I{folder}"]
    command = [*_FLAGS, *flags, *include, *map(str, sources), "-o", str(folder / "program")]
    subprocess.run(command, check=True, timeout=120)
    run = subprocess.run([str(folder / "program")], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout[-300:] + run.stderr[:3000]
    return run.stdout.splitlines()


def _targets(target: Tensor | None, y: np.ndarray | None, classes: int) -> str:
    """What the program gives to training steps, right and wrong, each with the comma behind it."""
    if target is None:
        return "#define TARGET(i)\n"
    assert y is not None
    if not target.shape:
        bad = f"#define BAD_TARGET {classes},\n#define ANOTHER_BAD_TARGET -1,\n"
        return f"static const int labels[] = {{{', '.join(map(str, y))}}};\n#define TARGET(i) labels[i],\n{bad}"
    rows = ", ".join(f"{{{', '.join(f'TP_Q16({v:.17g})' for v in row)}}}" for row in y)
    bad = "#define BAD_TARGET NULL,\n#define ANOTHER_BAD_TARGET NULL,\n"
    return f"static const int32_t targets[][{target.size}] = {{{rows}}};\n#define TARGET(i) targets[i],\n{bad}"


def expected_lines(built: Built, count: int) -> list[str]:
    """What the interpreter computes for the same calls."""
    model, dataset = built.model, built.samples(count)
    state, lines = model.fresh_state(3), []
    rate, sample = np.float32(built.learning_rate), model.inference.inputs[0].name

    def show(what: str, data: bytes) -> None:
        lines.append(f"{what} {data.hex()}")

    for i, x in enumerate(dataset.x):
        show("output", run_graph(model.inference, {sample: x}, state)[0].tobytes())
        if model.training is None:
            continue
        target = target_argument(model.target, None if dataset.y is None else dataset.y[i])
        arguments = {sample: x, **target, "learning_rate": rate}
        assert model.evaluate is not None
        alone, *right = run_graph(model.evaluate, {sample: x, **target}, state)
        show("evaluated", np.array([alone[0], right[0][0] if right else 0], "<i4").tobytes())
        loss = run_graph(model.training, arguments, state)[0].astype(np.float32) / np.float32(65536)
        show("loss", loss.tobytes())
        batch = model.training_config.batch_size
        if model.update is not None and i % batch == batch - 1:
            run_graph(model.update, {"learning_rate": rate, "count": np.int32(batch)}, state)
        show("adapter", pack_tensors(model.adapter_weights, state))
        show("training", pack_tensors(model.training_state, state))
    if model.restore is not None:
        run_graph(model.restore, {}, state)
        show("restored", pack_tensors(model.training_state, state))
        show("kept", pack_tensors(model.adapter_weights, state))
    return lines
