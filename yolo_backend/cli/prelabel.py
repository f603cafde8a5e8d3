"""`prelabel`: a whole project predicted, without the page and its time limit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import requests
import typer

from yolo_backend.cli.common import (
    FAILED,
    INTERRUPTED,
    AsJson,
    ClusterAddress,
    ProjectName,
    Token,
    Url,
    Workers,
    err,
    find_project,
    make_folder,
    open_studio,
    out,
    plan_of,
    print_json,
    read_settings,
    remark,
    standard_output_for_scripts,
    stream_by,
    told_progress,
)
from yolo_backend.cli.selecting import (
    Limit,
    MaxScore,
    MinScore,
    ModelVersion,
    Newest,
    WithoutAnnotations,
    WithoutPredictions,
)
from yolo_backend.failures import Failure
from yolo_backend.label_studio.errors import StudioError, explain
from yolo_backend.label_studio.filters import lacks
from yolo_backend.label_studio.patience import PatientStudio
from yolo_backend.label_studio.projects import HeldVersion, Project
from yolo_backend.label_studio.selection import Selection, count_selected
from yolo_backend.prelabeling.model_versions import other_versions
from yolo_backend.prelabeling.pictures import with_pictures
from yolo_backend.prelabeling.prelabeling import Prelabeling, Report
from yolo_backend.serving.project_predictor import OutcomesOf, ProjectPredictor
from yolo_backend.serving.request import Predictor

_SHOWN_OF_A_REASON = 20


def prelabel(
    *,
    project_name: ProjectName,
    without_predictions: WithoutPredictions = False,
    without_annotations: WithoutAnnotations = False,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    model_version: ModelVersion = None,
    newest: Newest = False,
    limit: Limit = None,
    replaces_older: Annotated[
        bool,
        typer.Option("--replace", help="Then delete the predictions of this backend's other versions."),
    ] = False,
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="With --replace: don't ask before it begins.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many tasks it would be, and end.")] = False,
    pictures: Annotated[
        Path | None,
        typer.Option("--out", file_okay=False, help="Write a picture of each task here, with its boxes drawn."),
    ] = None,
    workers: Workers = "threads",
    address: ClusterAddress = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Predict a whole project: every task without a prediction by the current weights and settings.

    Those are the ones that a click on Retrieve Predictions would ask for, with the same result. Killed or
    interrupted, run it again: it goes on where it was, and nothing is stored twice. Exit code 1 says that some tasks
    failed; they are listed at the end.

    All that the model hasn't seen yet:

        yolo-backend prelabel --project 7

    After a training, with new weights; the boxes of the old ones go:

        MODEL_NAME=best.pt yolo-backend prelabel --project 7 --replace

    A look at ten of them first:

        yolo-backend prelabel --project 7 --limit 10 --out pictures
    """
    settings = read_settings(url, token)
    studio = open_studio(settings)
    project = find_project(studio, project_name)
    make_folder(pictures, "--out")
    selection = Selection(
        without_predictions=without_predictions,
        without_annotations=without_annotations,
        min_score=min_score,
        max_score=max_score,
        model_version=model_version,
        newest_first=newest,
        limit=limit,
    )
    predictor = Predictor(settings)
    try:
        with err.status("Loading the weights"):
            plan = plan_of(project, predictor)
        if dry_run:
            _tell_outlook(project, selection, plan.model_version, replaces_older=replaces_older, as_json=as_json)
            return
        if replaces_older:
            _ask_to_delete(other_versions(project, plan.model_version), plan.model_version, is_sure=is_sure)
        stop = threading.Event()
        stream = stream_by(predictor, workers, address)
        of_project = ProjectPredictor(plan, str(project.id), stream, predictor.images)
        outcomes_of = _drawn(of_project, pictures) if pictures else of_project.outcomes_of
        with (
            standard_output_for_scripts(),
            told_progress(settings, "prelabel", project) as progress,
            _stopped_by_signals(stop),
        ):
            bar = progress.add_task("Predicting", total=None)
            work = Prelabeling(
                replace(project, studio=PatientStudio(studio.url, studio.token, remark, stop)),
                plan.model_version,
                lambda label_config: predictor.plan(label_config, None, project=project.sent_as).model_version,
                stop=stop,
                advanced=lambda: progress.update(bar, completed=work.report.done, total=work.report.total),
                remark=remark,
            )
            try:
                work.run(selection, outcomes_of, replaces_older=replaces_older)
            except (StudioError, requests.Timeout) as error:
                if not stop.is_set():
                    raise
                remark(explain(error))
            finally:
                progress.stop()
                _tell(work.report, as_json=as_json)
    finally:
        predictor.close()
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)
    if work.report.failures:
        raise typer.Exit(FAILED)


def _drawn(predictor: ProjectPredictor, folder: Path) -> OutcomesOf:
    labels = [label.value for served in predictor.plan.controls for label in served.control.labels]
    return lambda tasks: with_pictures(predictor.outcomes_of(tasks), folder, predictor.images_of, labels, remark)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C, or SIGTERM, sets `stop`; the second one ends the process."""

    def note(*_: Any) -> None:
        if stop.is_set():
            err.show_cursor()
            os._exit(INTERRUPTED)  # threads that wait for an image or the model would hold up an orderly end
        stop.set()
        remark("Stopping: what is ready is stored. Ctrl-C again leaves at once")

    before = {sign: signal.signal(sign, note) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _tell_outlook(
    project: Project, selection: Selection, model_version: str, *, replaces_older: bool, as_json: bool
) -> None:
    to_predict = count_selected(project, selection, [lacks(model_version)])
    others = other_versions(project, model_version) if replaces_older else []
    if as_json:
        older = {held.model_version: held.predictions for held in others}
        print_json({"to_predict": to_predict, "model_version": model_version, "older": older})
        return
    out.print(f"{to_predict:,} tasks would be predicted, as {model_version}", markup=False)
    for held in others:
        out.print(
            f"{held.predictions:,} predictions of {held.model_version} would be deleted as new ones are stored",
            markup=False,
        )


def _ask_to_delete(others: Sequence[HeldVersion], model_version: str, *, is_sure: bool) -> None:
    """Say which predictions go, also those that are newer than this version, and ask whoever sits at a terminal."""
    if not others:
        return
    remark(f"Where a task has a prediction of {model_version}, these are deleted:")
    for held in others:
        remark(f"  {held.predictions:,} of {held.model_version}, the newest of {held.newest_at[:16].replace('T', ' ')}")
    if not is_sure and sys.stdin.isatty() and err.is_terminal:
        typer.confirm("Go on?", abort=True, err=True)


def _tell(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "predicted": report.predicted,
                "stored": report.stored,
                "already": report.already,
                "deleted": report.deleted,
                "failed": [
                    {"task": one.task_id, "kind": one.kind, "reason": one.reason, "address": one.address}
                    for one in report.failures
                ],
                "model_version": report.model_version,
            }
        )
        return
    out.print(
        f"{report.predicted:,} of {report.total:,} tasks predicted, {report.stored:,} predictions stored as "
        f"{report.model_version}; {report.already:,} tasks had one already"
        + (f"; {report.deleted:,} predictions of other versions deleted" if report.deleted else ""),
        markup=False,
        soft_wrap=True,
    )
    _tell_failures(report.failures)


def _tell_failures(failures: list[Failure]) -> None:
    """Those of one reason together, the most frequent first."""
    by_reason: dict[str, list[Failure]] = defaultdict(list)
    for failure in failures:
        by_reason[failure.reason].append(failure)
    for reason, group in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        count = "1 task is" if len(group) == 1 else f"{len(group):,} tasks are"
        out.print(f"{count} not predicted: {reason}", style="red", markup=False, soft_wrap=True)
        for failure in group[:_SHOWN_OF_A_REASON]:
            out.print(f"  {failure.task_id}  {failure.address or ''}".rstrip(), markup=False, soft_wrap=True)
        if len(group) > _SHOWN_OF_A_REASON:
            out.print(f"  and {len(group) - _SHOWN_OF_A_REASON:,} more, which --json lists", markup=False)
