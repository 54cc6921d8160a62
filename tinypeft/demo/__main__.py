"""`python -m tinypeft.demo [FOLDER]`: a digit recogniser learns, on an emulated STM32F4, how its own sensor sees."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tinypeft.adapter_files import write_adapter
from tinypeft.boards import load_board
from tinypeft.cli.generate import print_report
from tinypeft.cli.on_device import progress_bars, running_device
from tinypeft.cli.output import console, progress_console
from tinypeft.cli.test import describe
from tinypeft.data import Dataset, choose_shots, load_array, load_dataset
from tinypeft.demo import DemoFiles, make_model
from tinypeft.errors import TinypeftError
from tinypeft.generate import Project, generate_project, open_project
from tinypeft.parity import check_parity
from tinypeft.personalise import Trained, train_adapter

BOARD = "stm32f4_discovery"
SHOTS, EPOCHS, LEARNING_RATE, SEED = 10, 12, 0.02, 0
TEST_SAMPLES, PARITY_SAMPLES, PARITY_STEPS = 200, 20, 20


def main(folder: Path) -> int:
    """Run the demo in `folder`; 0 where parity holds and the accuracy grew."""
    out = console()
    out.rule("1. a base model: handwritten digits, upright")
    with progress_console().status("training a small CNN with Keras"):
        files = make_model(folder)
    out.print(
        f"{files.model}, trained on upright digits; the device's sensor is mounted rotated, with its own contrast"
    )

    out.rule(f"2. LoRA and a new head, compiled for {BOARD}")
    directory = folder / "firmware"
    with progress_console().status("converting") as status:
        report = generate_project(
            files.model,
            load_board(BOARD),
            directory,
            calibration=load_array(f"{files.data}:x_base"),
            progress=status.update,
        )
    project = open_project(directory)
    print_report(report, project.board, directory)

    out.rule("3. the same numbers everywhere")
    parity = _parity(project, files)

    out.rule("4. the device learns its own view")
    trained, twin = _train(project, files)
    assert trained.accuracy_before is not None and trained.accuracy_after is not None
    same = trained.package == twin.package
    write_adapter(folder / "adapter", project.model, trained.state, trained.package, {"seed": SEED, "epochs": EPOCHS})
    out.print(
        f"accuracy on {TEST_SAMPLES} digits it did not learn from: {trained.accuracy_before:.1%} -> "
        f"[bold]{trained.accuracy_after:.1%}[/], from {SHOTS} examples a digit, {trained.steps} steps under QEMU"
    )
    if trained.instructions_per_step is not None:
        out.print(f"{trained.instructions_per_step:,} instructions a training step")
    out.print(f"most stack used: {trained.stack_high_water:,} B; guard words around the arena intact")
    verdict = "[bold green]identical[/]" if same else "[bold red]different[/]"
    out.print(f"adapter trained under QEMU and on the host twin: {verdict}, SHA-256 {trained.adapter_sha256[:16]}…")

    out.rule("5. what there is now")
    out.print(f"{directory}  firmware project: build/firmware.elf, src/, and a Makefile that needs no tinypeft")
    out.print(f"{folder / 'adapter'}  PEFT files, and adapter.bin ({len(trained.package):,} B) for the device")
    return 0 if parity and same and trained.accuracy_after > trained.accuracy_before else 1


def _parity(project: Project, files: DemoFiles) -> bool:
    samples = load_dataset(f"{files.data}:x:y", project.model.inference.inputs[0], 10)
    assert samples.y is not None
    subset = Dataset(samples.x[:PARITY_SAMPLES], samples.y[:PARITY_SAMPLES])
    with running_device(project, "qemu", count_instructions=False) as device, progress_bars() as show:
        report = check_parity(
            project.model, project.source.tflite, device, "qemu", subset, train_steps=PARITY_STEPS, progress=show
        )
    compared = f"{report.layers_compared:,} outputs of operations, {report.steps_compared} training steps"
    if report.first_divergence is not None:
        console().print(f"[bold red]no parity[/]: {describe(report.first_divergence)}")
    else:
        console().print(f"[bold green]parity[/]: LiteRT = interpreter = QEMU, bit for bit; {compared}")
    return report.parity


def _train(project: Project, files: DemoFiles) -> tuple[Trained, Trained]:
    """The same training under QEMU and on the host twin."""
    samples = load_dataset(f"{files.data}:x:y", project.model.inference.inputs[0], 10)
    assert samples.y is not None
    train, others = choose_shots(samples.y, SHOTS, SEED)
    test = np.sort(np.random.RandomState(SEED).permutation(others)[:TEST_SAMPLES])
    results = []
    for on in ("qemu", "host"):
        with running_device(project, on, count_instructions=True) as device, progress_bars() as show:
            results.append(
                train_adapter(
                    project.model,
                    device,
                    samples.x,
                    samples.y,
                    train,
                    test,
                    epochs=EPOCHS,
                    learning_rate=LEARNING_RATE,
                    seed=SEED,
                    progress=lambda phase, done, total, on=on: show(f"{on}: {phase}", done, total),  # type: ignore[misc]
                )
            )
    return results[0], results[1]


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("build") / "demo"))
    except TinypeftError as error:
        sys.exit(f"error: {error.message}" + (f"\ntry: {error.hint}" if error.hint else ""))
