"""`sample`: what to label next, by uncertainty."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import requests
import typer
from rich.progress import Progress

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
    plan_of,
    print_json,
    progress_bar,
    read_settings,
    remark,
    standard_output_for_scripts,
    stream_by,
    told_progress,
)
from yolo_backend.cli.sample_options import (
    AggregateName,
    ControlName,
    Count,
    Diverse,
    Empty,
    Floor,
    How,
    MeasureName,
    ReportFolder,
    Seed,
    Sources,
    StrategyName,
    ToRegister,
)
from yolo_backend.cli.sample_output import Delivered, SampleOutput
from yolo_backend.label_studio.errors import StudioError, explain
from yolo_backend.label_studio.patience import PatientStudio
from yolo_backend.label_studio.projects import Project
from yolo_backend.labels.plans import UNTRAINED, ProjectPlan
from yolo_backend.registering.finding import FileOrAddress, find_images
from yolo_backend.registering.items import RegisterError
from yolo_backend.registering.target import choose_control
from yolo_backend.sampling.choosing import Choice, Sample, candidates_for
from yolo_backend.sampling.chosen import register_chosen, write_to_tasks
from yolo_backend.sampling.diversity import Extract, Load, diversify
from yolo_backend.sampling.pool import Pool, new_images, unlabelled_tasks
from yolo_backend.sampling.report import write_report
from yolo_backend.sampling.scoring import PoolPredictor, Scoring, empty_by_default
from yolo_backend.serving.project_predictor import ProjectPredictor
from yolo_backend.serving.request import Predictor


def sample(
    *,
    sources: Sources = None,
    project_name: ProjectName,
    count: Count = 100,
    strategy: StrategyName = "uncertainty",
    measure: MeasureName = "entropy",
    aggregate: AggregateName = "sum",
    floor: Floor = 0.1,
    empty: Empty = None,
    diverse: Diverse = False,
    seed: Seed = 0,
    to_register: ToRegister = False,
    how: How = "upload",
    control_name: ControlName = None,
    report_folder: ReportFolder = None,
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
    pool = _find_pool(project, images, control_name, document_root)
    studio = project.studio
    project = replace(project, studio=PatientStudio(studio.url, studio.token, remark, threading.Event()))
    choice = Choice(count, strategy, is_diverse=diverse, seed=seed)
    # What needs no boxes works before there is a class for any label, as it does before a first training.
    needs_boxes = strategy == "uncertainty" and not diverse
    predictor = Predictor(settings if needs_boxes else settings.model_copy(update={"training": "on"}))
    try:
        with err.status("Loading the weights"):
            plan = _plan_for(pool, predictor, project, needs_boxes=needs_boxes)
            extract = _features_by(plan, predictor) if diverse else None
        if plan.model_version == UNTRAINED:
            remark(f"No label of {project.title} is a class of {settings.model_name}, so nothing is predicted")
        empty = empty_by_default(measure, floor, plan) if empty is None else empty
        scoring = Scoring(measure, aggregate, floor, round(empty, 6))
        stream = stream_by(predictor, workers, address)
        pool_predictor = PoolPredictor(ProjectPredictor(plan, str(project.id), stream, predictor.images), pool.control)
        with told_progress(settings, "sample", project) as progress:
            found = _choose(choice, pool, pool_predictor, scoring, progress)
        if extract:
            with err.status("Looking which of them are alike"):
                found = diversify(found, count, pool_predictor.load, extract)
        delivered = _deliver(project, found, pool) if to_register else Delivered()
        remarks = _report(found, report_folder, f"{measure}, {aggregate}", pool_predictor.load) if report_folder else []
    finally:
        predictor.close()
    output = SampleOutput(project, plan.model_version, choice, scoring, pool, found, delivered)
    if as_json:
        print_json(output.to_json())
    else:
        output.print()
    for line in remarks:
        remark(line)
    if found.unscored or remarks or delivered.rejected:
        raise typer.Exit(FAILED)


def _find_pool(
    project: Project, images: Sequence[FileOrAddress], control_name: str | None, document_root: Path | None
) -> Pool:
    if images:
        control = choose_control(project.label_config, control_name, for_labels=False)
        with err.status("Looking for what isn't registered yet"):
            pool = new_images(project, images, control, document_root)
        if not pool.size:
            raise CommandError("Nothing to choose from: all of it is registered already")
        return pool
    pool = unlabelled_tasks(project)
    if not pool.size:
        raise CommandError(f"Nothing to choose from: every task of {project.title} is labelled or skipped")
    return pool


def _plan_for(pool: Pool, predictor: Predictor, project: Project, *, needs_boxes: bool) -> ProjectPlan:
    """The project's plan; one that predicts nothing, where that is enough.

    Raises CommandError where it can't serve the control that images are to be made tasks for.
    """
    if needs_boxes:
        plan = plan_of(project, predictor)
    else:
        plan = predictor.plan(project.label_config, None, project=project.sent_as)
        if plan.is_untrained:
            return replace(plan, controls=plan.without_class)
    name = pool.control.from_name
    if pool.is_new and name not in {served.control.from_name for served in plan.controls}:
        raise CommandError(f'The control "{name}" can\'t be served: {"; ".join(plan.not_served)}')
    return plan


def _choose(choice: Choice, pool: Pool, predictor: PoolPredictor, scoring: Scoring, progress: Progress) -> Sample:
    """The chosen; with --diverse, the candidates for it."""
    with standard_output_for_scripts():
        if predictor.predictor.plan.model_version == UNTRAINED:
            return choice.of_unseen(progress.track(pool.images, pool.size, description="Looking"))
        outcomes = progress.track(predictor.score(pool.images, scoring), pool.size, description="Scoring")
        found = choice.of(outcomes, pool.size)
    if choice.is_diverse and candidates_for(choice.count, pool.size) == choice.count < pool.size:
        remark(_no_choice(choice.count, pool.size))
    return found


def _no_choice(count: int, pool_size: int) -> str:
    """Why a diverse choice is no other than the most uncertain ones."""
    return (
        f"--diverse chose nothing: it chooses among the most uncertain half of the {pool_size:,}, and {count:,} were "
        f"asked for. Ask for fewer than {pool_size // 2:,} with --count"
    )


def _features_by(plan: ProjectPlan, predictor: Predictor) -> Extract:
    from yolo_backend.detection.features import FeatureExtractor

    served = plan.controls[0]
    path = predictor.catalog.find(served.weights_name)
    return FeatureExtractor(path, device=predictor.settings.device, image_size=max(served.weights.image_size)).extract


def _deliver(project: Project, found: Sample, pool: Pool) -> Delivered:
    chosen = found.chosen
    delivered = Delivered()
    with progress_bar() as progress:
        bar = progress.add_task("Registering", total=len(chosen))
        try:
            for image, task_id in register_chosen(project, chosen, pool.control):
                delivered.registered[image] = task_id
                progress.advance(bar)
        except RegisterError as error:
            left = len(chosen) - len(delivered.registered)
            reason = str(error).partition(". Run it again")[0]  # which would choose as many once more
            raise CommandError(f"{reason}. {error.again} with --count {left} for the rest") from None
        try:
            for written in write_to_tasks(project, chosen):
                delivered.predicted += written.predicted
                delivered.rejected += written.rejected
                if written.task_id is not None:
                    delivered.written.append(written.task_id)
                    progress.advance(bar)
        except (StudioError, requests.Timeout) as error:
            raise CommandError(
                f"{len(delivered.written):,} of {len(chosen):,} tasks got their uncertainty, and "
                f"{delivered.predicted:,} got a new prediction, then it failed: {explain(error)}. "
                "Run it again for the rest"
            ) from None
    return delivered


def _report(found: Sample, folder: Path, label: str, load: Load) -> list[str]:
    """What couldn't be drawn, in lines for a person."""
    with err.status("Drawing the report"):
        try:
            return [f"{lost} (not on the contact sheet)" for lost in write_report(found, folder, label, load)]
        except OSError as error:
            why = error.strerror or type(error).__name__
            return [f"The report in {folder} can't be written: {why}: make room there, or name another --report"]
