"""`sample`: what to label next, by uncertainty."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import requests
import typer
from rich.markup import escape
from rich.table import Table

from yolo_backend.cli.common import (
    FAILED,
    AsJson,
    ClusterAddress,
    CommandError,
    ProjectName,
    Token,
    Url,
    Workers,
    err,
    find_project,
    make_folder,
    open_studio,
    out,
    print_json,
    progress_bar,
    read_settings,
    remark,
    stream_by,
)
from yolo_backend.detection.weights import find_weights
from yolo_backend.label_studio.patience import PatientStudio
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.storing import explain
from yolo_backend.label_studio.studio import StudioError
from yolo_backend.labels.control import Control
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.labels.regions import count_boxes
from yolo_backend.registering import registration
from yolo_backend.registering.finding import Image, find_images
from yolo_backend.sampling.chosen import register_chosen, write_report, write_to_tasks
from yolo_backend.sampling.sampling import (
    UNLABELLED,
    Extract,
    ImagesOf,
    PoolImage,
    Sample,
    Scored,
    Scoring,
    at_random,
    candidates_for,
    diversify,
    empty_by_default,
    most_uncertain,
    sample_of,
    score_pool,
    unlabelled_tasks,
    unregistered,
)
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings

_SHOWN_FAILURES = 20
_HOW = "How to choose"
_THEN = "What becomes of the chosen"


def sample(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders, globs, images, addresses, lists of images or addresses, or - for standard input: of these, "
            "what isn't registered yet.",
            show_default="the project's tasks without annotations",
        ),
    ] = None,
    project_name: ProjectName,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many to choose.")] = 100,
    strategy: Annotated[
        Literal["uncertainty", "random"],
        typer.Option(help="The most uncertain; or any, to compare with.", rich_help_panel=_HOW),
    ] = "uncertainty",
    measure: Annotated[
        Literal["least-confidence", "margin", "entropy", "threshold"],
        typer.Option(
            help="How uncertain a box is by its score; threshold: how near it is to its score threshold.",
            rich_help_panel=_HOW,
        ),
    ] = "entropy",
    aggregate: Annotated[
        Literal["max", "mean", "sum"],
        typer.Option(help="What the boxes of an image make together.", rich_help_panel=_HOW),
    ] = "sum",
    floor: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Look at boxes that score above this, below the thresholds, too.", rich_help_panel=_HOW
        ),
    ] = 0.1,
    empty: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="What an image without boxes counts.",
            show_default="one box on the floor",
            rich_help_panel=_HOW,
        ),
    ] = None,
    diverse: Annotated[
        bool,
        typer.Option(
            "--diverse",
            help="Of more of the most uncertain, those that look least alike.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="With another one, --strategy random chooses others.", rich_help_panel=_HOW)
    ] = 0,
    to_register: Annotated[
        bool,
        typer.Option(
            "--register",
            help="Register the chosen with their predictions, and write data.uncertainty.",
            rich_help_panel=_THEN,
        ),
    ] = False,
    how: Annotated[
        Literal["upload", "local-files"],
        typer.Option(
            help="What becomes of files; local-files: an address below LOCAL_FILES_DOCUMENT_ROOT.",
            rich_help_panel=_THEN,
        ),
    ] = "upload",
    control_name: Annotated[
        str | None,
        typer.Option(
            "--control", help="The RectangleLabels of these images, where there are several.", rich_help_panel=_THEN
        ),
    ] = None,
    report_folder: Annotated[
        Path | None,
        typer.Option(
            "--report",
            file_okay=False,
            help="Write a histogram and a contact sheet into this folder.",
            rich_help_panel=_THEN,
        ),
    ] = None,
    workers: Workers = "threads",
    address: ClusterAddress = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Choose what to label next: the images that the detector is least sure of.

    Without paths, it chooses among the project's tasks that have no annotations. Without --register, Label Studio is
    left as it is. Exit code 1: some images couldn't be scored, listed at the end.

    Of the project's tasks; then order the Data Manager by `uncertainty`:

        yolo-backend sample --project 7 --register

    Of a folder, of which only the chosen become tasks; with a look at them:

        yolo-backend sample photos --project "Blood cells" --count 50 --register --report report

    Of a video, and not a hundred frames of one scene:

        yolo-backend sample "frames/*.jpg" --project 7 --diverse --register

    As many at random, to compare with:

        yolo-backend sample --project 7 --strategy random --seed 1 --json
    """
    if diverse and strategy == "random":
        raise CommandError("--diverse is about the most uncertain: it doesn't go with --strategy random")
    settings = read_settings(url, token)
    document_root = settings.local_files_document_root if how == "local-files" else None
    if how == "local-files" and document_root is None:
        raise CommandError("Set LOCAL_FILES_DOCUMENT_ROOT to the folder that Label Studio serves, as it is here")
    make_folder(report_folder, "--report")
    images = find_images(sources, sys.stdin) if sources else []
    project = find_project(open_studio(settings), project_name)
    if images:
        control = registration.choose_control(project.label_config, control_name, for_labels=False)
    else:  # tasks have their images where they belong
        control = parse_labeling_config(project.label_config).controls[0]
    pool, size = _find_pool(project, images, control, document_root)
    studio = project.studio
    project = replace(project, studio=PatientStudio(studio.url, studio.token, remark, threading.Event()))
    predictor = Predictor(settings)
    try:
        with err.status("Loading the weights"):
            plan = _plan_for(control if images else None, predictor, project)
            extract = _features_by(plan, settings) if diverse else None
        empty = empty_by_default(measure, floor, plan) if empty is None else empty
        scoring = Scoring(measure, aggregate, floor, round(empty, 6))
        stream = partial(stream_by(predictor, workers, address), project=str(project.id))
        images_of = partial(predictor.images, plan=plan, project=str(project.id))
        with progress_bar() as progress:
            scored = progress.track(score_pool(pool, plan, control, stream, scoring), size, description="Scoring")
            if strategy == "random":
                found = sample_of(scored, partial(at_random, count=count, seed=seed))
            else:
                candidates = candidates_for(count, size) if diverse else count
                found = sample_of(scored, partial(most_uncertain, count=candidates))
        if extract:
            with err.status("Looking which of them are alike"):
                found = diversify(found, count, control, images_of, extract)
        delivered = _deliver(project, found.chosen, plan, control) if to_register else _Delivered()
        remarks = _report(found, report_folder, f"{measure}, {aggregate}", control, images_of) if report_folder else []
    finally:
        predictor.close()
    told = {
        "project": project.id,
        "url": project.url,
        "model_version": plan.model_version,
        "strategy": strategy,
        **asdict(scoring),
        "diverse": diverse,
        "seed": seed,
        "pool": size,
        **_told_of(found, delivered),
    }
    if as_json:
        print_json(told)
    else:
        _tell(told, f"{project.title} ({project.url})", is_new=bool(images))
    for line in remarks:
        remark(line)
    if found.unscored or remarks or delivered.rejected:
        raise typer.Exit(FAILED)


@dataclass
class _Delivered:
    """What of the chosen is in Label Studio now: files and addresses with their tasks, and tasks with their measure."""

    registered: dict[Image, int] = field(default_factory=dict)
    written: list[int] = field(default_factory=list)
    predicted: int = 0
    rejected: int = 0

    def task_id_of(self, item: Scored) -> int | None:
        source = item.image.source
        return int(source["id"]) if isinstance(source, Mapping) else self.registered.get(source)


def _told_of(found: Sample, delivered: _Delivered) -> dict[str, Any]:
    return {
        "chosen": [
            {
                "image": item.image.name,
                "task": delivered.task_id_of(item),
                "uncertainty": item.uncertainty,
                "boxes": count_boxes(item.prediction["result"]),
                "above_threshold": item.above_threshold,
            }
            for item in found.chosen
        ],
        "registered": len(delivered.registered),
        "written": len(delivered.written),
        "predicted": delivered.predicted,
        "rejected": delivered.rejected,
        "failed": [
            {"image": one.image.name, "task": one.image.task_id, "kind": one.kind, "reason": one.reason}
            for one in found.unscored
        ],
    }


def _plan_for(control: Control | None, predictor: Predictor, project: Project) -> ProjectPlan:
    """The project's plan. Raises CommandError where it can't serve the control that images are to be made tasks for."""
    plan = predictor.plan(project.label_config, wait_s=None)
    if control and control.from_name not in {served.control.from_name for served in plan.controls}:
        raise CommandError(f'The control "{control.from_name}" can\'t be served: {"; ".join(plan.not_served)}')
    return plan


def _find_pool(
    project: Project, images: Sequence[Image], control: Control, document_root: Path | None
) -> tuple[Iterable[PoolImage], int]:
    if images:
        with err.status("Looking for what isn't registered yet"):
            pool = unregistered(project, images, control, document_root)
        if not pool:
            raise CommandError("Nothing to choose from: all of it is registered already")
        return pool, len(pool)
    size = project.count(UNLABELLED)
    if not size:
        raise CommandError(f"Nothing to choose from: {project.title} has no task that is neither labelled nor skipped")
    return unlabelled_tasks(project), size


def _features_by(plan: ProjectPlan, settings: Settings) -> Extract:
    from yolo_backend.detection.features import FeatureExtractor

    served = plan.controls[0]
    path = find_weights(served.weights_name, settings.model_root)
    return FeatureExtractor(path, device=settings.device, image_size=max(served.weights.image_size)).extract


def _deliver(project: Project, chosen: Sequence[Scored], plan: ProjectPlan, control: Control) -> _Delivered:
    delivered = _Delivered()
    with progress_bar() as progress:
        bar = progress.add_task("Registering", total=len(chosen))
        try:
            for image, task_id in register_chosen(project, chosen, plan, control):
                delivered.registered[image] = task_id
                progress.advance(bar)
        except registration.RegisterError as error:
            left = len(chosen) - len(delivered.registered)
            reason = str(error).partition(". Run it again")[0]  # which would choose as many once more
            raise CommandError(f"{reason}. {error.again} with --count {left} for the rest") from None
        try:
            for written in write_to_tasks(project, chosen, plan):
                delivered.predicted += written.predicted
                delivered.rejected += written.rejected
                if written.task_id is not None:
                    delivered.written.append(written.task_id)
                    progress.advance(bar)
        except (StudioError, requests.Timeout) as error:
            raise CommandError(
                f"{len(delivered.written):,} of {len(chosen):,} tasks have their uncertainty, and "
                f"{delivered.predicted:,} a new prediction, then: {explain(error)}. Run it again, and it does the rest"
            ) from None
    return delivered


def _report(found: Sample, folder: Path, label: str, control: Control, images_of: ImagesOf) -> list[str]:
    """What couldn't be drawn, in lines for a person."""
    with err.status("Drawing the report"):
        try:
            return [
                f"{lost} (not on the contact sheet)" for lost in write_report(found, folder, label, control, images_of)
            ]
        except OSError as error:
            why = error.strerror or type(error).__name__
            return [f"The report in {folder} can't be written: {why}: make room there, or name another --report"]


def _tell(told: Mapping[str, Any], project: str, *, is_new: bool) -> None:
    table = Table("", "task", "image", "uncertainty", "boxes", "above threshold")
    for column in (table.columns[index] for index in (0, 1, 3, 4, 5)):
        column.justify = "right"
    for rank, item in enumerate(told["chosen"], 1):
        numbers = f"{item['uncertainty']:.3f}", str(item["boxes"]), str(item["above_threshold"])
        table.add_row(str(rank), str(item["task"] or ""), escape(item["image"]), *numbers)
    if told["chosen"]:
        out.print(table)
    by = "at random" if told["strategy"] == "random" else f"by {told['measure']}, {told['aggregate']}"
    what = "images that aren't registered yet" if is_new else "tasks without annotations"
    out.print(
        f"Chosen: {len(told['chosen']):,} of {told['pool']:,} {what}, {by}{', diverse' if told['diverse'] else ''}, "
        f"of {project}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    if told["registered"]:
        out.print(f"Registered: {told['registered']:,}, with predictions as {told['model_version']}", soft_wrap=True)
    if told["written"]:
        out.print(
            f"Written: data.uncertainty of {told['written']:,} tasks, and {told['predicted']:,} predictions as "
            f"{told['model_version']} where there were none",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    if told["rejected"]:
        out.print(
            f"Label Studio doesn't take {told['rejected']:,} predictions: were the project's labels changed meanwhile?",
            style="red", markup=False, soft_wrap=True,
        )  # fmt: skip
    for failure in told["failed"][:_SHOWN_FAILURES]:
        out.print(f"Not scored: {failure['image']}: {failure['reason']}", style="red", markup=False, soft_wrap=True)
    if len(told["failed"]) > _SHOWN_FAILURES:
        out.print(f"and {len(told['failed']) - _SHOWN_FAILURES:,} more, which --json lists", style="red")
