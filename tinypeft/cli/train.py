"""`tinypeft train`: train the adapter on the host twin or an emulated board, and write it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import click
import numpy as np
from rich.table import Table

from tinypeft.adapter_files import check_adapter_folder, read_adapter, write_adapter
from tinypeft.cli.on_device import (
    check_learning_rate,
    device_options,
    load_samples,
    open_samples,
    progress_bars,
    running_device,
)
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.data import choose_split
from tinypeft.device.fit import End, FitResult, Score
from tinypeft.errors import AdapterError
from tinypeft.fit import FitConfig
from tinypeft.learners import ONE_Q16
from tinypeft.personalise import Trained, learned_count, train_adapter, update_count
from tinypeft.running import ran_on
from tinypeft.schedule import KINDS, scheduled

DEFAULT_HOLD_BACK = 0.2


@click.command("train")
@device_options
@click.option("--shots", type=click.IntRange(1), help="Train on K samples of each class.")
@click.option("--train-split", type=float, metavar="F", help="Train on this share of each class. Default 0.5.")
@click.option(
    "--epochs", type=click.IntRange(1), default=10, show_default=True, help="Times that each sample is learned from."
)
@click.option("--lr", "learning_rate", type=float, default=0.02, show_default=True, help="Learning rate.")
@click.option("--schedule", type=click.Choice(KINDS), default="constant", show_default=True, help="How the rate falls.")
@click.option(
    "--warmup", type=float, default=0.0, metavar="F", help="Updates in which the rate rises: their share, or number."
)
@click.option(
    "--final-fraction", type=float, default=0.0, show_default=True, metavar="F", help="The last rate over the highest."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of split, adapter and order."
)
@click.option("--adapter", metavar="ADAPTER_DIR", help="Go on from this adapter of `tinypeft train` or of PEFT.")
@click.option(
    "--guard/--no-guard",
    default=True,
    show_default=True,
    help="Undo steps that diverge, and keep the new adapter only if it is not worse on samples that are held back.",
)
@click.option(
    "--hold-back",
    metavar="N|F",
    type=float,
    help="Of the samples to train on, hold back N of each class, or the share F below 1. Default 0.2.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="End after so many epochs that are no better on what is held back, and keep the best; 0: train all epochs.",
)
@click.option(
    "--min-gain",
    type=click.FloatRange(0, 65535),
    default=0.0,
    show_default=True,
    metavar="LOSS",
    help="Keep the new adapter only if the loss of what is held back, summed, is lower by so much as well.",
)
@click.option(
    "--replay",
    metavar="F.npz:X:Y",
    help="Samples of others to learn from as well, so that the base's skills stay; never held back.",
)
@click.option("--on-device", is_flag=True, help="Give the board all samples, and let it train by itself.")
@click.option("-o", "--output", metavar="ADAPTER_DIR", help="The folder for the adapter's files.")
@json_option
def command(
    directory: str,
    on: str,
    data: str,
    shots: int | None,
    train_split: float | None,
    epochs: int,
    learning_rate: float,
    schedule: str,
    warmup: float,
    final_fraction: float,
    seed: int,
    adapter: str | None,
    guard: bool,
    hold_back: float | None,
    patience: int,
    min_gain: float,
    replay: str | None,
    on_device: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Train an adapter of the project DIRECTORY on some samples; how good it is is measured on the others."""
    if shots is not None and train_split is not None:
        raise click.UsageError("--shots and --train-split exclude each other.")
    check_learning_rate(learning_rate)
    guards = _guards(guard, hold_back, patience, min_gain, on_device)
    project, dataset = open_samples(directory, data, labels=True)
    if project.model.training is None:
        raise AdapterError(f"{project.model.name} was generated without adapters", "generate it with --adapter lora")
    if output is not None:
        check_adapter_folder(output)
    start = read_adapter(adapter, project.model).package if adapter is not None else None
    if shots is not None and (dataset.y is None or dataset.y.ndim > 1):
        raise click.UsageError("--shots counts samples of a class, and this loss has none; use --train-split.")
    train, test = choose_split(dataset, shots, train_split, seed)
    replayed = np.arange(0)
    if replay is not None:
        dataset, replayed = dataset.joined(load_samples(project.model, replay, labels=True, option="--replay"))
        train = np.concatenate([train, replayed])
    config = None if guards is None else FitConfig(epochs, learning_rate, seed, replayed=len(replayed), **guards)
    learned = len(train) if config is None else learned_count(project.model, dataset.y, train, config)
    updates = update_count(project.model, learned, epochs)
    rates = scheduled(learning_rate, schedule, warmup, final_fraction, updates)
    with running_device(project, on, count_instructions=True) as device, progress_bars() as show:
        trained = train_adapter(
            project.model,
            device,
            dataset.x,
            dataset.y,
            train,
            test,
            epochs=epochs,
            learning_rate=rates,
            seed=seed,
            start=start,
            progress=show,
            fit_config=None if config is None else replace(config, learning_rate=rates),
            on_device=on_device,
        )
    if output is not None:
        how = {"epochs": epochs, "learning_rate": learning_rate, "schedule": asdict(rates), "seed": seed}
        write_adapter(output, project.model, trained.state, trained.package, {**how, "steps": trained.steps})
    if as_json:
        print_json(
            {
                "accuracy_before": trained.accuracy_before,
                "accuracy_after": trained.accuracy_after,
                "error_before": trained.error_before,
                "error_after": trained.error_after,
                "steps": trained.steps,
                "adapter_sha256": trained.adapter_sha256,
                "instructions_per_step": trained.instructions_per_step,
                "instructions_per_encoding": trained.instructions_per_encoding,
                "samples_from_latents": trained.samples_from_latents,
                "loss_per_epoch": trained.losses,
                "stack_high_water": trained.stack_high_water,
                "guards_intact": trained.guards_intact,
                "fit": _facts(trained.fit) if trained.fit is not None else None,
                "ran_on": ran_on(project, on),
            }
        )
        return
    _print(trained, learned, on, output)


def _guards(
    guard: bool, hold_back: float | None, patience: int, min_gain: float, on_device: bool
) -> dict[str, Any] | None:
    """Settings of a FitConfig; None where the host trains without guard rails."""
    if not guard:
        if hold_back is not None or patience or min_gain:
            raise click.UsageError(
                "--hold-back, --patience and --min-gain are of the guard rails, --no-guard leaves them out."
            )
        return {"do_no_harm": False, "undo": False} if on_device else None
    held_back = DEFAULT_HOLD_BACK if hold_back is None else hold_back
    if not (0 < held_back < 1 or (held_back >= 1 and held_back.is_integer())):
        raise click.UsageError(
            f"--hold-back is {held_back:g}, neither a share between 0 and 1 nor a number of samples."
        )
    share = {"held_back_share": held_back} if held_back < 1 else {"held_back": int(held_back)}
    return {"patience": patience, "min_gain": min_gain, **share}


def _facts(result: FitResult) -> dict[str, Any]:
    """The result for programs; losses are means, None with nothing held back."""
    held_back = result.held_back

    def score(score: Score) -> dict[str, Any]:
        return {"right": score.right, "loss": score.loss / ONE_Q16 / held_back if held_back else None}

    names = ("learned", "held_back", "epochs", "steps", "updates", "undone", "kept", "epoch")
    facts = {name: getattr(result, name) for name in names}
    return {**facts, "end": result.end.name.lower(), "before": score(result.before), "after": score(result.after)}


def _print(trained: Trained, samples: int, on: str, output: str | None) -> None:
    """For a person, of a training with so many samples."""
    out = console()
    table = Table("epoch", "loss")
    for epoch, loss in enumerate(trained.losses, 1):
        table.add_row(str(epoch), f"{loss:.4f}")
    out.print(table)
    if trained.accuracy_before is not None and trained.accuracy_after is not None:
        out.print(f"accuracy on other samples: {trained.accuracy_before:.2%} -> [bold]{trained.accuracy_after:.2%}[/]")
    if trained.error_before is not None and trained.error_after is not None:
        out.print(
            f"mean squared error on other samples: {trained.error_before:.6g} -> [bold]{trained.error_after:.6g}[/]"
        )
    if trained.fit is not None and trained.fit.held_back:
        _print_fit(trained.fit, decides=trained.accuracy_after is not None)
    counted = f", {trained.instructions_per_step:,} instructions a step" if trained.instructions_per_step else ""
    if trained.instructions_per_encoding:
        counted += f", {trained.instructions_per_encoding:,} to encode a sample once"
    out.print(f"{trained.steps} steps on {on}{counted}; adapter's SHA-256 {trained.adapter_sha256}")
    if learned := trained.samples_from_latents:
        few = "" if learned == samples else f"; for all of them: tinypeft generate --samples {samples}"
        out.print(f"{learned} of {samples} samples were learned from their latents, which the device had room for{few}")
    if trained.stack_high_water:
        out.print(f"most stack used: {trained.stack_high_water:,} B; guard words around the arena intact")
    if output is not None:
        out.print(f"adapter written to {output}")


def _print_fit(result: FitResult, *, decides: bool) -> None:
    """What the guard rails saw and decided."""
    out, held_back = console(), result.held_back
    scores = (result.before, result.after)
    right = f"right decisions {result.before.right} -> {result.after.right}, " if decides else ""
    loss = " -> ".join(f"{score.loss / ONE_Q16 / held_back:.4f}" for score in scores)
    verdict = "kept" if result.kept else "[bold]not kept: the adapter from before is back[/]"
    out.print(f"{held_back} samples held back: {right}mean loss {loss}; new adapter {verdict}")
    if result.undone:
        stopped = ", with which training ended" if result.end is End.TOO_MANY_UNDONE else ""
        out.print(f"{result.undone} updates diverged and were undone{stopped}; try a lower --lr")
    if result.end is End.OUT_OF_PATIENCE:
        out.print(f"ended after epoch {result.epochs}, the best was {result.epoch}")
