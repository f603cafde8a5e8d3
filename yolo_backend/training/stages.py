"""The stages of a run: from a project's submitted work to weights that serve it, or to the reason why they don't."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from yolo_backend.detection.engine import Engine, pick_device
from yolo_backend.detection.families import hand_over_export
from yolo_backend.detection.naming import DEMO, RELEASES
from yolo_backend.detection.record import TrainedRecord, add_record, read_record
from yolo_backend.detection.trained import trained_name
from yolo_backend.detection.weights import WeightsError, file_fingerprint, find_weights
from yolo_backend.errors import UserError
from yolo_backend.files import write_whole
from yolo_backend.labels.label_map import by_name
from yolo_backend.labels.plans import make_plan
from yolo_backend.serving.request import Predictor, open_catalog
from yolo_backend.settings import Settings
from yolo_backend.training.base import known_classes, serving_name
from yolo_backend.training.checks import check_classes, check_enough, check_kind
from yolo_backend.training.class_folders import write_class_folders
from yolo_backend.training.collected import Collected
from yolo_backend.training.corrections import check_labels
from yolo_backend.training.dataset import write_dataset
from yolo_backend.training.errors import TrainingError, told_of
from yolo_backend.training.finding import SCORE_FLOOR, find_boxes, labels_of_classes
from yolo_backend.training.fitting import FitProgress, FitSpec, Fitted, fit
from yolo_backend.training.found import Findings
from yolo_backend.training.gate import MIN_IMAGES, Judgement, judge
from yolo_backend.training.image_cache import ImageCache
from yolo_backend.training.kinds import Kind, kind_of_file, own_kind
from yolo_backend.training.labelled import LabelledBox
from yolo_backend.training.learnt import map_classes
from yolo_backend.training.networks import Base, read_base
from yolo_backend.training.outcome import decide
from yolo_backend.training.records import (
    Comparison,
    ImageCounts,
    LabelScore,
    Manifest,
    Options,
    Result,
    TaskSource,
    are_judged_alike,
)
from yolo_backend.training.registry import REPORT, VALIDATION, WEIGHTS
from yolo_backend.training.report import write_report
from yolo_backend.training.run import TrainingRun
from yolo_backend.training.snapshot import manifest_rows, take_snapshot, trained_controls
from yolo_backend.training.things import things_of
from yolo_backend.training.thresholds import ThresholdRule

log = logging.getLogger(__name__)

_TELL_EVERY_S = 1.0
_PACKAGES = ("ultralytics-opencv-headless", "torch", "torchvision", "numpy")


def work(run: TrainingRun) -> None:
    """All stages of a run. How it ended is in its run.json, also if it failed."""
    stages = _Stages(run)
    try:
        stages.work()
    except Exception as error:
        if not isinstance(error, UserError):
            log.exception("The run failed")
        shutil.rmtree(run.work_folder, ignore_errors=True)  # which makes room for saying so on a full disk
        run.diary.fail(told_of(error))
    finally:
        with suppress(OSError):
            stages.tidy_up()


class _Stages:
    """What is done in a run, one after the other."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._options, self._settings = run.options, run.settings
        self._project, self._models, self._diary = run.project, run.models, run.diary
        self._told_at = float("-inf")
        self._serving_kind: str | None = None  # of the project's own weights

    def work(self) -> None:
        """All of them. Raises UserError, requests.Timeout, OSError, and whatever Ultralytics raises."""
        self._diary.progress("collecting")
        base = read_base(self._run.base)
        self._diary.change(kind=base.kind)
        self._serving_kind = own_kind(self._models) if self._models.file.exists() else base.kind
        collected = self._collect(base.kind)
        if base.kind == "pose" and collected.points > base.points:
            self._diary.remark(
                f"{base.name} finds {base.points} key points of a thing, and the labels have {collected.points}: what "
                "it knows of points can't be used, so all are learned from the beginning, which takes more images and "
                "minutes"
            )
        self._note_manifest(collected, base)
        check_kind(base.kind, collected.controls)
        check_classes(collected)
        present = self._present(collected, base)
        if reason := self._why_distrusted(collected, base, present):
            self._diary.remark(
                "If the labels were changed on purpose, train once with `yolo-backend train --project "
                f"{self._project.id} --promote always`"
            )
            self._diary.end("ended", result=self._result(collected, reason), verdict="refuse")
            return
        self._write_validation(collected)
        fitted = self._fit(collected, base)
        candidate, judgement = self._judge(collected, base, fitted, present)
        self._finish(collected, base, fitted, candidate, judgement)

    # Collecting

    def _collect(self, kind: Kind) -> Collected:
        project, models = self._project, self._models
        controls = trained_controls(project.label_config, kind)
        with closing(Predictor(self._settings)) as predictor:
            snapshot = take_snapshot(
                project,
                lambda task, controls: predictor.files(task, controls, str(project.id)),
                _image_cache(self._settings),
                self._run.group_by,
                self._tell_collecting,
                kind=kind,
            )
        self._diary.remark(*snapshot.remarks)
        check_enough(snapshot, things_of(kind), project)
        collected = Collected.of(snapshot, controls, models.split(), models.classes(), kind)
        models.add_to_split(collected.split.sides)
        models.append_classes(collected.classes.order)
        self._diary.remark(*collected.remarks())
        return collected

    def _tell_collecting(self, done: int, of: int) -> None:
        if done == of or time.monotonic() - self._told_at > _TELL_EVERY_S:
            self._told_at = time.monotonic()
            self._diary.progress("collecting", epoch=done, epochs=of)

    def _note_manifest(self, collected: Collected, base: Base, fitted: Fitted | None = None) -> None:
        images = (*collected.split.train, *collected.split.val)
        manifest = Manifest(
            tasks=tuple(
                TaskSource(row["task"], row["annotation"], row["image"], row["labels"]) for row in manifest_rows(images)
            ),
            base=base.fingerprint,
            versions={package: version(package) for package in _PACKAGES},
        )
        if fitted:
            manifest = replace(
                manifest, epochs=fitted.epochs, steps=fitted.steps, batch=fitted.batch, threads=fitted.threads
            )
        self._models.write_manifest(self._diary.run.run, manifest)

    # The labels, before the model

    def _present(self, collected: Collected, base: Base) -> Findings | None:
        """What serves the project now finds in the validation images; None where it knows none of their labels."""
        file, settings = self._models.file, self._settings
        if not are_judged_alike(self._serving_kind, base.kind) or not file.exists():
            try:
                name = serving_name(self._project.label_config, settings, base.kind)
                file = find_weights(name, settings.model_root, may_download=True)
            except WeightsError as error:
                self._diary.remark(f"No model serves yet that could be compared with the new one: {error}")
                return None
            if file.samefile(base.path) and not known_classes(collected.controls, base.class_names):
                return None  # without an export, which takes longer than all the rest
        return self._found(file, collected, base)

    def _found(self, weights: Path, collected: Collected, base: Base) -> Findings | None:
        """What weights find in the validation images; None where none of their classes is a label, or where they are
        of a kind that finds something else than models of the base do.
        """
        # Before it is loaded, and perhaps exported, if the file says it; an export says it only then.
        if (kind := kind_of_file(weights)) and not are_judged_alike(kind, base.kind):
            return None
        engine = Engine.as_set(weights, self._settings)
        if not are_judged_alike(engine.info.kind, base.kind):
            return None
        # The candidate has no thresholds yet, and the same classes as what will serve.
        is_trained = engine.info.thresholds or weights.parent == self._run.work_folder
        controls = [by_name(control) for control in collected.controls] if is_trained else collected.controls
        names = engine.info.class_names
        labels_of_class = labels_of_classes(map_classes(control, names, SCORE_FLOOR) for control in controls)
        if not labels_of_class:
            return None
        settings = self._settings
        found = find_boxes(
            engine,
            collected.split.val,
            labels_of_class,
            max_megapixels=settings.max_image_megapixels,
            decode=settings.decode,
            points=_points(collected, base),
        )
        return replace(found, is_single=collected.is_single)

    def _why_distrusted(self, collected: Collected, base: Base, present: Findings | None) -> str | None:
        """Why the labels can't be trusted; a person who promotes in any case says that they can."""
        then = self._boxes_then(base)
        if present is None or not then or self._options.promote == "always":
            return None
        return check_labels(collected.split.val, then, present, collected.labels, seed=self._options.seed)

    def _boxes_then(self, base: Base) -> Mapping[str, Sequence[LabelledBox]]:
        """By the images' digests: the validation boxes of the last run whose labels were trusted enough to serve."""
        for run in self._models.runs():
            path = self._models.folder_of(run.run) / VALIDATION
            if run.is_trusted and are_judged_alike(run.kind, base.kind) and path.is_file():
                return msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[LabelledBox, ...]])
        return {}

    def _write_validation(self, collected: Collected) -> None:
        # Without line breaks: outlines of masks would be ten times as large.
        boxes = msgspec.json.encode({image.digest: image.boxes for image in collected.split.val})
        write_whole(self._run.folder / VALIDATION, boxes)

    # Fitting

    def _fit(self, collected: Collected, base: Base) -> Fitted:
        self._diary.progress("fitting")
        work = self._run.work_folder
        split, classes = collected.split, collected.classes
        if base.kind == "classify":
            data = write_class_folders(work / "data", split.train, split.val, classes.names)
        else:
            data = write_dataset(
                work / "data", split.train, split.val, classes.names, kind=base.kind, points=_points(collected, base)
            )
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
        self._note_manifest(collected, base, fitted)
        return fitted

    def _tell_fitting(self, now: FitProgress) -> None:
        self._diary.progress(
            "fitting", epoch=now.epoch, epochs=now.epochs, score=now.score, seconds_left=now.seconds_left
        )

    # Judging

    def _judge(
        self, collected: Collected, base: Base, fitted: Fitted, present: Findings | None
    ) -> tuple[Findings, Judgement]:
        """What the model found in the validation images, and what the gate says."""
        self._diary.progress("judging", score=fitted.score)
        models, options = self._models, self._options
        candidate = self._found(fitted.weights, collected, base)
        assert candidate is not None  # noqa: S101  its classes are the project's labels
        best = models.best(base.kind)
        best_weights = models.weights_of(best.run) if best and best.run != models.promoted() else None
        judgement = judge(
            collected.split.val,
            collected.labels,
            candidate,
            present,
            self._found(best_weights, collected, base) if best_weights else None,
            # With enough images, too few of which were drawn without help, a model that serves isn't replaced unseen.
            is_first=not models.promotions() and (present is None or len(collected.split.val) < MIN_IMAGES),
            rule=replace(self._rule, own=collected.own_thresholds),
            may_have_seen=self._may_have_seen(base),
            seed=options.seed,
            things=collected.things,
        )
        return candidate, judgement

    @property
    def _rule(self) -> ThresholdRule:
        return ThresholdRule(self._options.precision, default=self._settings.model_score_threshold)

    def _may_have_seen(self, base: Base) -> str | None:
        """The base's name, if nobody here knows on which images it was trained."""
        if base.name in RELEASES or self._run.options.base == DEMO:
            return None
        try:
            record = read_record(base.path)
        except ValueError:
            record = None
        # One of this project's own: what is validation stays so.
        return None if record and record.project == self._models.key else base.name

    # Exporting, and the swap

    def _finish(
        self, collected: Collected, base: Base, fitted: Fitted, candidate: Findings, judgement: Judgement
    ) -> None:
        weights, name = self._run.work_folder / WEIGHTS, self._diary.run.run
        before = file_fingerprint(weights)
        # Those of the labeling config apply where it serves, and only as long as they stand there.
        thresholds = collected.learnt_thresholds(candidate, judgement.judged, self._rule)
        add_record(weights, TrainedRecord(thresholds, name, self._models.key, base.kind))
        # It was exported to be judged, and its network is the same.
        hand_over_export(Engine.wish_of(before, self._settings), file_fingerprint(weights))
        weights.replace(self._run.folder / WEIGHTS)
        self._diary.remark(*judgement.remarks)
        is_other = self._models.file.exists() and not are_judged_alike(self._serving_kind, base.kind)
        decided = decide(
            judgement,
            self._options.promote,
            other_kind=(self._serving_kind or "detect") if is_other else None,
            run=name,
            project_id=self._project.id,
        )
        result = self._result(collected, decided.reason, decided)
        facts = _facts(collected, base, fitted, self._options)
        report = partial(self._write_report, decided, collected, candidate, facts)
        if decided.verdict == "promote":
            try:
                result = self._promote(result)
            except Exception as error:
                with suppress(OSError):
                    report(failure=told_of(error))
                raise
        report()
        self._diary.end("ended", result=result, verdict=decided.verdict)
        self._models.prune()

    def _promote(self, result: Result) -> Result:
        """Let the model serve; how the run ends then. Raises UserError, OSError."""
        self._diary.progress("exporting")
        self._check_export()
        # Before it serves, so that the file that serves is always of a run whose result is written down.
        self._diary.change(result=result)
        self._models.promote(result.run)
        return replace(result, promoted=True, model_version=self._model_version())

    def _write_report(
        self,
        decided: Judgement,
        collected: Collected,
        candidate: Findings,
        facts: Mapping[str, str],
        failure: str | None = None,
    ) -> None:
        try:
            write_report(
                self._run.folder / REPORT,
                decided,
                collected.split.val,
                candidate,
                title=f"Run {self._diary.run.run} of {self._project.title}",
                facts=facts,
                max_megapixels=self._settings.max_image_megapixels,
                things=collected.things,
                failure=failure,
            )
        except Exception as error:  # which costs no model
            log.exception("The report can't be written")
            self._diary.remark(f"The report can't be written: {told_of(error)}")

    def tidy_up(self) -> None:
        """Keep no more images than the cache may hold, now that no run needs them."""
        _image_cache(self._settings).make_room()

    def _check_export(self) -> None:
        """Export the weights and hold the export against them, so that no server has to. Raises UserError."""
        engine = Engine.as_set(self._run.folder / WEIGHTS, self._settings)
        if engine.runtime.fallback:
            raise TrainingError(
                f"The model can't be exported, and was not promoted: {engine.runtime.fallback}. If MODEL_DIR is full, "
                "make room there. Then train again"
            )

    def _model_version(self) -> str:
        with closing(open_catalog(self._settings)) as catalog:
            trained = trained_name(self._models.key)
            return make_plan(self._project.label_config, self._settings, catalog, None, trained=trained).model_version

    def _result(self, collected: Collected, reason: str, judgement: Judgement | None = None) -> Result:
        """What is told of the run, while its model doesn't serve yet."""
        scores = judgement.as_json() if judgement else {}
        return Result(
            run=self._diary.run.run,
            promoted=False,
            reason=reason,
            model_version=None,
            images=ImageCounts(len(collected.split.train), len(collected.split.val)),
            labels=msgspec.convert(scores.get("labels", {}), dict[str, LabelScore]),
            map50=msgspec.convert(scores.get("map50", {}), Comparison),
            map50_95=msgspec.convert(scores.get("map50_95", {}), Comparison),
        )


def _image_cache(settings: Settings) -> ImageCache:
    return ImageCache(settings.model_dir / "trained" / "images", settings.max_image_megapixels)


def _points(collected: Collected, base: Base) -> int:
    """How many key points the model has: as the base, unless people drew more, and then its layers begin anew."""
    return max(base.points, collected.points)


def _facts(collected: Collected, base: Base, fitted: Fitted, options: Options) -> dict[str, str]:
    """What a report says of how the model was made."""
    return {
        "Base": base.name,
        "Images": f"{len(collected.split.train):,} to train on, {len(collected.split.val):,} to validate with",
        "Budget": f"{options.minutes:g} minutes",
        "Made in": f"{fitted.epochs:,} epochs, {fitted.steps:,} steps of {fitted.batch} images",
        "Image size": f"{fitted.image_size} px",
        "Seed": str(options.seed),
    }
