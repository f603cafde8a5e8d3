"""A run: from a project's submitted work to weights that serve it, or to the reason why they don't."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import requests

from yolo_backend.detection.naming import DEMO, RELEASES
from yolo_backend.detection.record import TrainedRecord, add_record, read_record
from yolo_backend.detection.weights import find_weights
from yolo_backend.errors import UserError
from yolo_backend.label_studio.errors import explain
from yolo_backend.label_studio.projects import Project, open_project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.control import Control
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.messages import first_line
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings
from yolo_backend.training.base import find_base, known_classes
from yolo_backend.training.classes import Classes, choose_classes
from yolo_backend.training.dataset import write_dataset
from yolo_backend.training.diary import Diary
from yolo_backend.training.image_cache import ImageCache
from yolo_backend.training.labelled import LabelledBox, LabelledImage, Snapshot
from yolo_backend.training.launch import Order
from yolo_backend.training.lock import Holder, TrainingLock
from yolo_backend.training.records import (
    Comparison,
    ImageCounts,
    LabelScore,
    Manifest,
    Options,
    Result,
    Run,
    TaskSource,
)
from yolo_backend.training.registry import VALIDATION, WEIGHTS, ProjectModels, Registry
from yolo_backend.training.snapshot import manifest_rows, take_snapshot
from yolo_backend.training.split import Split, split_images

if TYPE_CHECKING:  # these come with torch
    from yolo_backend.training.finding import Findings
    from yolo_backend.training.fitting import FitProgress, Fitted
    from yolo_backend.training.gate import Judgement
    from yolo_backend.training.networks import Base

log = logging.getLogger(__name__)

LEAST_LABELLED = 10
"""Images with boxes, below which nothing is trained: there would be two or three to validate with."""

_WORK = "work"  # in a run's folder, for what goes when it ends
_PACKAGES = ("ultralytics-opencv-headless", "torch", "torchvision", "numpy")


class TrainingError(UserError):
    """A run that can't begin, or go on; the message says what to do."""


@dataclass(frozen=True)
class Collected:
    """What there is to train on, and what the model shall know: `labels` are those that are judged."""

    split: Split
    classes: Classes
    labels: tuple[str, ...]
    controls: tuple[Control, ...]


class TrainingRun:
    """One run of one project, in a process of its own that holds the lock."""

    def __init__(self, order: Order, settings: Settings, project: Project, models: ProjectModels, diary: Diary) -> None:
        self.diary = diary
        self.folder = models.folder_of(diary.run.run)
        self._options, self._may_be_path = order.options, order.may_be_path
        self._settings, self._project, self._models = settings, project, models

    @classmethod
    @contextmanager
    def begin(cls, order: Order, settings: Settings) -> Iterator[TrainingRun]:
        """A new run, with the lock held while it is under way. Raises UserError, requests.Timeout, OSError."""
        find_base(order.options.base, settings, may_be_path=order.may_be_path)
        key = settings.label_studio_api_key
        if not settings.label_studio_url or not key:
            raise TrainingError("Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: where are the labels?")
        project = open_project(Studio(settings.label_studio_url, key.get_secret_value()), order.project)
        models = Registry(settings.model_dir).project(project.key)
        with TrainingLock(settings.model_dir).held(models.key) as tell:
            end_cut_off(models)
            run = models.begin_run(order.options)
            tell(Holder(models.key, run.run))
            training = cls(order, settings, project, models, Diary(models, run))
            try:
                yield training
            finally:
                shutil.rmtree(training.folder / _WORK, ignore_errors=True)

    def work(self) -> None:
        """All stages; how it ended is in its run.json. Raises nothing that a person may be told."""
        try:
            self._work()
        except Exception as error:
            if not isinstance(error, UserError):
                log.exception("The run failed")
            self.diary.end("failed", failure=told_of(error))

    def _work(self) -> None:
        from yolo_backend.training.networks import read_base  # with torch

        self.diary.progress("collecting")
        base = read_base(find_base(self._options.base, self._settings, may_be_path=self._may_be_path))
        collected = self._collect()
        self._note_manifest(collected, base)
        present = self._present(collected)
        if reason := self._why_distrusted(collected, present):
            self._end(collected, reason, "refuse")
            return
        self._write_validation(collected)
        fitted = self._fit(collected, base)
        judgement = self._judge(collected, base, fitted, present)
        self._finish(collected, judgement)

    # Collecting

    def _collect(self) -> Collected:
        project, models = self._project, self._models
        controls = [
            control for control in parse_labeling_config(project.label_config).controls if not control.model_path
        ]
        cache = ImageCache(self._settings.model_dir / "trained" / "images", self._settings.max_image_megapixels)
        with closing(Predictor(self._settings)) as predictor:
            snapshot = take_snapshot(
                project,
                lambda task, controls: predictor.files(task, controls, str(project.id)),
                cache,
                self._options.group_by,
                lambda done, of: self.diary.progress("collecting", epoch=done, epochs=of),
            )
        self.diary.remark(*snapshot.remarks)
        self._check_enough(snapshot)
        split = split_images(snapshot.images, models.split())
        models.add_to_split(split.sides)
        classes = choose_classes(split.train, snapshot.labels, models.classes())
        models.append_classes(classes.order)
        self.diary.remark(*_remarks_on(split, classes))
        validated = {box.label for image in split.val for box in image.boxes}
        labels = tuple(
            label
            for label in classes.order
            if label in classes.names or (label in snapshot.labels and label in validated)
        )
        return Collected(split, classes, labels, tuple(controls))

    def _check_enough(self, snapshot: Snapshot) -> None:
        """Raises TrainingError."""
        labelled = sum(bool(image.boxes) for image in snapshot.images)
        if labelled < LEAST_LABELLED:
            raise TrainingError(
                f"A training needs at least {LEAST_LABELLED} labelled images with boxes, and project "
                f"{self._project.id} has {labelled}: label and submit {LEAST_LABELLED - labelled} more, and train again"
            )

    def _note_manifest(self, collected: Collected, base: Base) -> None:
        images = (*collected.split.train, *collected.split.val)
        self.diary.change(
            manifest=Manifest(
                tasks=tuple(
                    TaskSource(row["task"], row["annotation"], row["image"], row["labels"])
                    for row in manifest_rows(images)
                ),
                base=base.fingerprint,
                versions={package: version(package) for package in _PACKAGES},
            )
        )

    # The labels, before the model

    def _present(self, collected: Collected) -> Findings | None:
        """What serves the project now finds in the validation images; None where it knows none of their labels."""
        file = self._models.file
        if file.exists():
            return self._found(file, collected, is_of_project=True)
        settings = self._settings
        return self._found(find_weights(settings.model_name, settings.model_root, may_download=True), collected)

    def _found(self, weights: Path, collected: Collected, *, is_of_project: bool = False) -> Findings | None:
        """What weights find in the validation images; the classes of the project's own are its labels."""
        from yolo_backend.training.finding import find_boxes, open_as_served

        engine = open_as_served(weights, self._settings)
        names = engine.info.class_names
        labels_of_class: dict[int, list[str]] = {}
        if is_of_project:
            labels_of_class = {number: [name] for number, name in names.items() if name in collected.labels}
        else:
            for label, class_ids in known_classes(collected.controls, names).items():
                for class_id in class_ids:
                    labels_of_class.setdefault(class_id, []).append(label)
        if not labels_of_class:
            return None
        megapixels = self._settings.max_image_megapixels
        return find_boxes(engine, collected.split.val, labels_of_class, max_megapixels=megapixels)

    def _why_distrusted(self, collected: Collected, present: Findings | None) -> str | None:
        """Why the labels can't be trusted; a person who promotes in any case says that they can."""
        from yolo_backend.training.gate import check_labels

        then = self._boxes_then()
        if present is None or not then or self._options.promote == "always":
            return None
        return check_labels(collected.split.val, then, present, collected.labels, seed=self._options.seed)

    def _boxes_then(self) -> Mapping[str, Sequence[LabelledBox]]:
        """By the images' digests: the validation boxes of the last run whose labels were trusted enough to serve."""
        for run in self._models.runs():
            path = self._models.folder_of(run.run) / VALIDATION
            if run.verdict in {"promote", "aside"} and path.is_file():
                return msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[LabelledBox, ...]])
        return {}

    def _write_validation(self, collected: Collected) -> None:
        from yolo_backend.training.files import write_json

        write_json(self.folder / VALIDATION, {image.digest: image.boxes for image in collected.split.val})

    # Fitting

    def _fit(self, collected: Collected, base: Base) -> Fitted:
        from yolo_backend.detection.engine import pick_device
        from yolo_backend.training.fitting import FitSpec, fit

        self.diary.progress("fitting")
        work = self.folder / _WORK
        split, classes = collected.split, collected.classes
        data = write_dataset(work / "data", split.train, split.val, classes.names, rotated=base.kind == "obb")
        spec = FitSpec(
            data=data,
            base=base,
            known=known_classes(collected.controls, base.class_names),
            weights=work / WEIGHTS,
            budget_s=60 * self._options.minutes,
            device=pick_device(self._settings.device),
            image_size=self._options.image_size or self._settings.model_image_size,
            seed=self._options.seed,
        )
        fitted = fit(spec, self._tell_fitting)
        shutil.rmtree(work / "data", ignore_errors=True)
        manifest = self.diary.run.manifest
        if manifest:
            self.diary.change(
                manifest=replace(manifest, epochs=fitted.epochs, batch=fitted.batch, threads=fitted.threads)
            )
        return fitted

    def _tell_fitting(self, now: FitProgress) -> None:
        self.diary.progress(
            "fitting", epoch=now.epoch, epochs=now.epochs, score=now.score, seconds_left=now.seconds_left
        )

    # Judging

    def _judge(self, collected: Collected, base: Base, fitted: Fitted, present: Findings | None) -> Judgement:
        from yolo_backend.training.gate import judge
        from yolo_backend.training.thresholds import ThresholdRule

        self.diary.progress("judging", score=fitted.score)
        models, options = self._models, self._options
        candidate = self._found(fitted.weights, collected, is_of_project=True)
        assert candidate is not None  # noqa: S101  its classes are the project's labels
        best = models.best()
        best_weights = models.weights_of(best.run) if best and best.run != models.promoted() else None
        own = {
            label.value: threshold
            for control in reversed(collected.controls)
            for label in control.labels
            if (threshold := control.score_threshold if label.score_threshold is None else label.score_threshold)
            is not None
        }
        return judge(
            collected.split.val,
            collected.labels,
            candidate,
            present,
            self._found(best_weights, collected, is_of_project=True) if best_weights else None,
            is_first=not models.promotions(),
            rule=ThresholdRule(options.precision, own, self._settings.model_score_threshold),
            may_have_seen=self._may_have_seen(base),
            seed=options.seed,
        )

    def _may_have_seen(self, base: Base) -> str | None:
        """The base's name, if nobody here knows on which images it was trained."""
        if base.name in RELEASES or self._options.base == DEMO:
            return None
        try:
            record = read_record(base.path)
        except ValueError:
            record = None
        # One of this project's own: what is validation stays so.
        return None if record and record.project == self._models.key else base.name

    # Exporting, and the swap

    def _finish(self, collected: Collected, judgement: Judgement) -> None:
        weights, name = self.folder / _WORK / WEIGHTS, self.diary.run.run
        add_record(weights, TrainedRecord(judgement.thresholds, name, self._models.key))
        weights.replace(self.folder / WEIGHTS)
        self.diary.remark(*judgement.remarks)
        promote = self._options.promote
        is_promoted = promote == "always" or (promote == "auto" and judgement.verdict == "promote")
        reason = judgement.reason
        if promote == "never" and judgement.verdict == "promote":
            reason = f"It was not to be promoted (--promote never); but for that: {reason}"
        elif promote == "always" and judgement.verdict != "promote":
            reason = f"It was to be promoted in any case (--promote always), though: {reason}"
        model_version = self._promote(name) if is_promoted else None
        verdict = "promote" if is_promoted else "aside" if judgement.verdict == "promote" else judgement.verdict
        self._end(collected, reason, verdict, judgement, model_version)
        self._models.prune()

    def _promote(self, name: str) -> str:
        """Export the weights, so that nobody waits for it, let them serve, and return their model_version."""
        from yolo_backend.training.finding import open_as_served

        self.diary.progress("exporting")
        engine = open_as_served(self.folder / WEIGHTS, self._settings)
        if engine.runtime.fallback:
            raise TrainingError(
                f"The model of run {name} can't be exported, and was not promoted: {engine.runtime.fallback}"
            )
        del engine
        self._models.promote(name)
        with closing(Predictor(self._settings)) as predictor:
            return predictor.plan(self._project.label_config, wait_s=None, project=self._project.reference).model_version

    def _end(
        self,
        collected: Collected,
        reason: str,
        verdict: str,
        judgement: Judgement | None = None,
        model_version: str | None = None,
    ) -> None:
        scores = judgement.as_json() if judgement else {}
        result = Result(
            run=self.diary.run.run,
            promoted=verdict == "promote",
            reason=reason,
            model_version=model_version,
            images=ImageCounts(len(collected.split.train), len(collected.split.val)),
            labels=msgspec.convert(scores.get("labels", {}), dict[str, LabelScore]),
            map50=msgspec.convert(scores.get("map50", {}), Comparison),
            map50_95=msgspec.convert(scores.get("map50_95", {}), Comparison),
        )
        self.diary.end("ended", result=result, verdict=verdict)


def end_cut_off(models: ProjectModels) -> None:
    """Note of runs that were cut off that they were; only for who holds the lock. Raises OSError."""
    for run in models.runs():
        shutil.rmtree(models.folder_of(run.run) / _WORK, ignore_errors=True)
        if not run.is_over:
            Diary(models, run).end("failed", failure="It was cut off, with its process or its machine: train again")


def interrupted_runs(registry: Registry) -> list[Run]:
    """The runs that were cut off, the newest of each project: they may be begun anew. None while one is under way."""
    if TrainingLock(registry.model_dir).holder() is not None:
        return []
    newest = (models.runs()[:1] for models in registry.projects())
    return [run for runs in newest for run in runs if not run.is_over]


def told_of(error: Exception) -> str:
    """An error that ended a run, in a sentence that says what to do."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, requests.Timeout):
        return f"{explain(error)}: train again when it does"
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"The disk is full{where}: make room in MODEL_DIR, and train again"
        return f"MODEL_DIR can't be used{where}: {error.strerror}: let the server's user write there, and train again"
    return f"The training failed ({type(error).__name__}: {first_line(error)}): its training.log says more"


def _remarks_on(split: Split, classes: Classes) -> Iterator[str]:
    for left in split.left_out:
        yield f"Task {left.image.task_id}: its image is used on neither side, because {left.reason}"
    if classes.without_box:
        names = ", ".join(classes.without_box)
        yield f"No training image has a box with these labels, which the model won't know: {names}"
