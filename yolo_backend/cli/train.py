"""`train`: what a project's people have labelled becomes weights for it, if these are better than what serves."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.progress import Progress as Bar
from rich.progress import TaskID
from rich.table import Table

from yolo_backend.cli.common import (
    FAILED,
    INTERRUPTED,
    UNUSABLE,
    AsJson,
    CommandError,
    ProjectName,
    Token,
    Url,
    err,
    find_project,
    open_studio,
    out,
    print_json,
    progress_bar,
    read_settings,
    remark,
)
from yolo_backend.cores import has_full_share
from yolo_backend.settings import Settings
from yolo_backend.training.launch import Training, cancel_running, start
from yolo_backend.training.records import Comparison, LabelScore, Options, Result, Run
from yolo_backend.training.things import Things, things_of

_STAGES = {
    "collecting": "Collecting",
    "fitting": "Fitting",
    "judging": "Judging",
    "exporting": "Exporting",
}


def train(
    *,
    project_name: ProjectName,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="The weights to begin with: a name in `MODEL_ROOT`, `demo`, or the path of a .pt that you trust.",
            show_default="MODEL_NAME",
            rich_help_panel="How",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            min=0.1,
            max=10_000,
            help="How long it may fit: CPU minutes on a CPU, minutes on a GPU.",
            show_default="TRAIN_MINUTES",
            rich_help_panel="How",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            min=64,
            max=8192,
            help="The longer side of the images, in pixels, as the model is shown them.",
            show_default="the base's own",
            rich_help_panel="How",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Another number, another training.", rich_help_panel="How")
    ] = 0,
    promote: Annotated[
        Literal["auto", "always", "never"],
        typer.Option("--promote", help="Whether the new model serves: if it is better.", rich_help_panel="How"),
    ] = "auto",
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="A field of the tasks' data: images with the same value stay together, such as those of a patient, "
            'also in later runs; "" ends that.',
            rich_help_panel="How",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            "--precision",
            min=0,
            max=1,
            help="What part of the boxes above the thresholds should be right.",
            show_default="best F1",
            rich_help_panel="How",
        ),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the training of this project that runs.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Train a model on a project's submitted work, and let it serve if it is better than what does.

    Nothing changes where it isn't better, fails, or is ended by Ctrl-C. A server that uses the same `MODEL_DIR`
    switches to a new model by itself. Exit code 0 says that the run came to its verdict: a model was trained, whether
    it serves or not, or none, because the labels were refused first. 2 says that it couldn't begin, 1 that it failed
    on its way.

    For ten minutes, from the first of `MODEL_NAME` that can be trained:

        yolo-backend train --project 7 --minutes 10

    A script reads what came out:

        yolo-backend train --project 7 --json
    """
    settings = read_settings(url, token)
    if cancel:
        _cancel(project_name, settings)
        return
    project = find_project(open_studio(settings), project_name)
    if has_full_share():
        remark(
            "In this container, the training takes as much of the cores as the server in another one. With Docker "
            f"Compose, `docker compose run --rm train --project {project.id}` gives way"
        )
    options = Options(
        base=base or settings.model_names[0],
        minutes=minutes or settings.train_minutes,
        image_size=image_size,
        seed=seed,
        promote=promote,
        group_by=group_by,
        precision=precision,
    )
    with err.status("Starting the training"):
        training = start(project.id, options, settings, may_be_path=base is not None)
    run = _watched(training)
    if run.state == "cancelled":
        raise CommandError(run.failure or "The training was cancelled")
    if run.state == "failed" or run.result is None:
        err.print(run.failure or "The training failed", style="red", markup=False, soft_wrap=True)
        could_begin = run.progress is not None and run.progress.stage != "collecting"
        raise typer.Exit(FAILED if could_begin else UNUSABLE)
    if as_json:
        print_json(msgspec.to_builtins(run.result))
    else:
        _tell(run.result, things_of(run.kind))


def _cancel(project_name: str, settings: Settings) -> None:
    number = project_name.strip()
    if not re.fullmatch(r"\d{1,18}", number):
        number = str(find_project(open_studio(settings), project_name).id)
    cancelled = cancel_running(settings.model_dir, lambda holder: holder.project.partition("-")[0] == number)
    out.print(f"Cancelled {cancelled}", markup=False, soft_wrap=True)


def _watched(training: Training) -> Run:
    """The run as it ended, its progress shown meanwhile. Ctrl-C, or SIGTERM, cancels it."""
    told = 0

    with progress_bar() as progress, _interrupted_by_sigterm():
        bar = progress.add_task("Collecting", total=None)

        def tell(run: Run) -> None:
            nonlocal told
            for sentence in run.remarks[told:]:
                remark(sentence)
            told = len(run.remarks)
            _show(run, progress, bar)

        try:
            return training.wait(tell)
        except KeyboardInterrupt:
            progress.update(bar, description="Cancelling")
            training.cancel()
            ended = training.run()
            if ended.state == "cancelled":
                remark("The training was cancelled, and what serves is as before")
            else:
                remark(ended.failure or f"It was too late to cancel: run {ended.run} serves")
            raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(run: Run, progress: Bar, bar: TaskID) -> None:
    now = run.progress
    if now is None:
        return
    scored = "right" if run.kind == "classify" else "mAP50"
    score = "" if now.score is None else f", {scored} {now.score:.2f} so far"
    progress.update(bar, description=_STAGES[now.stage] + score, total=now.epochs, completed=now.epoch or 0)


def _tell(result: Result, things: Things) -> None:
    became = "serves" if result.promoted else "does not serve" if result.has_model else "trained nothing"
    out.print(
        f"Run {result.run} {became}. {result.reason[:1].upper()}{result.reason[1:]}",
        style="green" if result.promoted else "yellow",
        markup=False,
        soft_wrap=True,
    )
    train, val = f"{result.images.train:,}", f"{result.images.val:,}"
    out.print(
        f"{train} images trained on, {val} validated"
        if result.has_model
        else f"{train} images to train on, {val} to validate with",
        markup=False,
    )
    for name, compared in (("mAP50", result.map50), ("mAP50-95", result.map50_95)):
        if compared.candidate is not None:
            out.print(f"{name} {_compared(compared)}", markup=False, soft_wrap=True)
    if result.labels:
        table = Table("Label", *_columns(f"Validation {things.several}", "AP50", "Recall", "Threshold"), box=None)
        for label, score in result.labels.items():
            table.add_row(label, *_cells(score))
        out.print(table)


def _columns(*titles: str) -> Iterator[Any]:
    from rich.table import Column

    return (Column(title, justify="right") for title in titles)


def _cells(score: LabelScore) -> list[str]:
    numbers = (score.ap50, score.recall, score.threshold)
    return [f"{score.boxes:,}", *("" if number is None else f"{number:.2f}" for number in numbers)]


def _compared(compared: Comparison) -> str:
    text = f"{compared.candidate:.3f}"
    if compared.current is not None:
        text += f", {compared.current:.3f} of the model that serves"
    if compared.difference is not None and compared.interval is not None:
        low, high = compared.interval
        text += f": {compared.difference:+.3f} ({low:+.3f} to {high:+.3f})"
    return text
