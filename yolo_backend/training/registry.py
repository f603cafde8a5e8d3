"""What was trained: a folder for each project in MODEL_DIR/trained, for any number of processes.

What serves a project is the file that its servers look at, and nothing else: it says itself of which run it is. So one
rename promotes a model. If something breaks before or after it, what is told of it and what serves stay the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from yolo_backend.detection.record import read_record
from yolo_backend.detection.trained import publish_trained, trained_file, withdraw_trained
from yolo_backend.errors import UserError
from yolo_backend.files import remove_half_written, write_json, write_whole
from yolo_backend.messages import first_line, shortened
from yolo_backend.protocol import is_key
from yolo_backend.training.records import (
    Manifest,
    Options,
    Run,
    Side,
    State,
    are_judged_alike,
    run_from_json,
    run_to_json,
)

log = logging.getLogger(__name__)

WEIGHTS, VALIDATION, REPORT, LOG = "weights.pt", "validation.json", "report.html", "training.log"
MANIFEST = "manifest.json"
_RUN, _CLASSES, _SPLIT, _PROMOTIONS = "run.json", "classes.json", "split.json", "promotions.json"
_LATEST_KEPT = 5
_SHOWN_RUNS = 10
_ABANDONED_AFTER_S = 3600.0  # where other processes write, too, such as a server that is asked for a training

_Value = TypeVar("_Value")


class RegistryError(UserError):
    """What was asked of trained models can't be done; the message says what to do."""


@dataclass(frozen=True)
class Promotion:
    """A run that began to serve, and whether a person took that back; times are times of day."""

    run: str
    at: float
    taken_back_at: float | None = None


@dataclass(frozen=True)
class ProjectModels:
    """The runs of a project, by its key (`protocol.project_key`), and which of them serves."""

    key: str
    model_dir: Path

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.file.parent

    @property
    def file(self) -> Path:
        """The weights that serve the project, where a run was promoted."""
        return trained_file(self.key, self.model_dir)

    def folder_of(self, run: str) -> Path:
        """The folder of a run: it holds weights.pt, manifest.json, validation.json, report.html and training.log."""
        return self.folder / "runs" / run

    def weights_of(self, run: str) -> Path | None:
        """The weights of a run, None where it made none or they were removed."""
        path = self.folder_of(run) / WEIGHTS
        return path if path.is_file() else None

    def begin_run(self, options: Options) -> Run:
        """A new run with the next number. Raises OSError."""
        (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        number = max((int(name) for name in self._numbers()), default=0)
        while True:
            number += 1
            try:
                self.folder_of(str(number)).mkdir()
                break
            except FileExistsError:
                continue
        run = Run(str(number), self.key, "collecting", time.time(), options=options)
        try:
            self.write(run)
        except OSError:  # such as on a full disk: a run that never began leaves nothing behind
            self.folder_of(run.run).rmdir()
            raise
        return run

    def write(self, run: Run) -> None:
        """Write a run as it is now, whole or not at all. Raises OSError."""
        write_whole(self.folder_of(run.run) / _RUN, run_to_json(run))

    def manifest_of(self, run: str) -> Manifest | None:
        """What a run was made from, None if it ended before that was written. Raises RegistryError, OSError."""
        path = self.folder_of(run) / MANIFEST
        return _read_json(path, Manifest, Manifest((), "")) if path.exists() else None

    def write_manifest(self, run: str, manifest: Manifest) -> None:
        """Write down what a run is made from. Raises OSError."""
        write_json(self.folder_of(run) / MANIFEST, manifest)

    def runs(self, most: int | None = None) -> list[Run]:
        """All runs, or so many, the newest first; one whose run.json is broken was cut off."""
        return [self._read(name) for name in sorted(self._numbers(), key=int, reverse=True)[:most]]

    def ended(self, run: Run, state: State, failure: str) -> Run:
        """The run as something ended it before it could say so: if its model serves already, it was promoted.

        Raises OSError.
        """
        now = time.time()
        if run.result and self.promoted() == run.run:
            result = replace(run.result, promoted=True)
            return replace(run, state="ended", ended_at=now, verdict="promote", result=result)
        return replace(run, state=state, ended_at=now, failure=failure)

    def run(self, name: str) -> Run:
        """The run of this number. Raises RegistryError."""
        if name not in self._numbers():
            known = ", ".join(sorted(self._numbers(), key=int, reverse=True)[:_SHOWN_RUNS])
            instead = f"name one of {known}" if known else "train one first"
            raise RegistryError(f"This project has no run {shortened(name)}: {instead}")
        return self._read(name)

    def promoted(self) -> str | None:
        """The run whose model serves the project, None where the untrained weights do. Raises OSError.

        The file says so itself. One that is broken, or was published by hand, is of no run: "".
        """
        if not self.file.exists():
            return None
        try:
            record = read_record(self.file)
        except ValueError:
            record = None
        return record.run if record and record.project == self.key else ""

    def promotions(self) -> list[Promotion]:
        """Which runs began to serve: those that were taken back, then the others in order. Raises OSError."""
        try:
            return list(_read_json(self.folder / _PROMOTIONS, tuple[Promotion, ...], ()))
        except RegistryError as error:  # what serves is seen without it
            log.warning("%s", error)
            return []

    def best(self, kind: str | None = None) -> Run | None:
        """The run with the best mAP50 of those that ever served and weren't taken back, if its weights are there, and
        if it is judged by the same as models of this kind.
        """
        served = {each.run for each in self._serving_promotions()}
        runs = [
            run
            for run in self.runs()
            if run.run in served and are_judged_alike(run.kind, kind) and self.weights_of(run.run)
        ]
        return max(runs, key=lambda run: -1.0 if run.map50 is None else run.map50, default=None)

    def promote(self, run: str) -> str:
        """Let a run's model serve the project from now on; returns the fingerprint of its weights.

        Raises RegistryError for a run without weights, WeightsError where they can't be put there, and OSError.
        """
        weights = self.weights_of(self.run(run).run)
        if weights is None:
            raise RegistryError(f"Run {run} has no weights any more, or never had: choose another, or train again")
        serving = self._serving_promotions()
        fingerprint = publish_trained(weights, self.key, self.model_dir)
        if not serving or serving[-1].run != run:
            # Noted after it serves, so that nothing is noted that never came to serve. If this is missing, the file
            # that serves says of which run it is.
            try:
                self._note([*serving, Promotion(run, time.time())])
            except OSError as error:
                log.warning("Run %s serves, but that can't be noted: %s", run, first_line(error))
        return fingerprint

    def roll_back(self) -> str | None:
        """Let the model serve that served before; returns its run, None where that are the untrained weights.

        Raises RegistryError where no trained model serves, WeightsError and OSError.
        """
        promoted = self.promoted()
        if promoted is None:
            raise RegistryError("No trained model serves this project: there is nothing to roll back")
        others = [each.run for each in reversed(self._serving_promotions()) if each.run != promoted]
        before = next((run for run in others if self.weights_of(run)), None)
        weights = self.weights_of(before) if before else None
        if weights:
            publish_trained(weights, self.key, self.model_dir)
        else:
            withdraw_trained(self.key, self.model_dir)
        self._note(self._serving_promotions())
        return before

    def classes(self) -> tuple[str, ...]:
        """The classes in their order, none before the first training. Raises RegistryError, OSError."""
        return _read_json(self.folder / _CLASSES, tuple[str, ...], ())

    def append_classes(self, names: Iterable[str]) -> tuple[str, ...]:
        """Put those that are new behind the others; returns all. Raises RegistryError, OSError."""
        known = self.classes()
        classes = tuple(dict.fromkeys((*known, *names)))
        if classes != known:
            write_json(self.folder / _CLASSES, classes)
        return classes

    def split(self) -> dict[str, Side]:
        """On which side each image is, by its digest. Raises RegistryError, OSError."""
        return _read_json(self.folder / _SPLIT, dict[str, Side], {})

    def add_to_split(self, sides: Mapping[str, Side]) -> None:
        """Note the sides of new images; one that is known stays where it is. Raises RegistryError, OSError."""
        known = self.split()
        together: dict[str, Side] = {**sides, **known}
        if together != known:
            write_json(self.folder / _SPLIT, together)

    def prune(self) -> None:
        """Remove the weights of runs, except what serves, what served before it, the best one, and the latest five.

        Of the validation boxes, to which later runs look back, the latest trusted ones of each kind are kept. What is
        told of a run stays. Raises OSError.
        """
        serving = [each.run for each in self._serving_promotions()]
        runs = self.runs()
        best = [self.best(kind) for kind in {run.kind for run in runs}]
        latest = [run.run for run in runs[:_LATEST_KEPT]]
        kept = {*latest, *serving[-2:], self.promoted(), *(run.run for run in best if run)}
        for name in self._numbers():
            if name not in kept:
                (self.folder_of(name) / WEIGHTS).unlink(missing_ok=True)
        looked_back_to = {run.kind: run.run for run in reversed(runs) if run.is_trusted}
        for run in runs:
            if run.is_over and run.run != looked_back_to.get(run.kind):
                (self.folder_of(run.run) / VALIDATION).unlink(missing_ok=True)

    def settle(self) -> None:
        """Note what serves, if whoever let it serve was killed before that. Raises OSError."""
        serving = self._serving_promotions()
        if self.promoted() != "" and serving != [each for each in self.promotions() if each.taken_back_at is None]:
            self._note(serving)

    def tidy_up(self) -> None:
        """Remove what a process that was killed left half-written; only for who holds the lock. Raises OSError."""
        for name in self._numbers():
            remove_half_written(self.folder_of(name))
        remove_half_written(self.folder, _ABANDONED_AFTER_S)

    def _numbers(self) -> list[str]:
        try:
            return [path.name for path in (self.folder / "runs").iterdir() if path.name.isdecimal()]
        except FileNotFoundError:
            return []

    def _read(self, name: str) -> Run:
        path = self.folder_of(name) / _RUN
        try:
            run = run_from_json(path.read_bytes())
        except (OSError, ValueError):
            began_at = self.folder_of(name).stat().st_mtime
            return Run(name, self.key, "collecting", began_at, remarks=(f"{path} can't be read",))
        return replace(run, run=name, project=self.key)  # also where somebody copied a folder

    def _serving_promotions(self) -> list[Promotion]:
        """Those that led to what serves now, which is the last; those after it were taken back, or never came to serve.

        A model that serves and isn't noted, such as one that was published by hand, is noted at the end.
        """
        promoted = self.promoted()
        noted = [each for each in self.promotions() if each.taken_back_at is None]
        if promoted is None:
            return []
        last = next((place for place, each in reversed(list(enumerate(noted))) if each.run == promoted), None)
        if last is None:
            return [*noted, Promotion(promoted, self.file.stat().st_mtime)]
        return noted[: last + 1]

    def _note(self, serving: list[Promotion]) -> None:
        """Note which promotions led to what serves; the others were taken back."""
        now = time.time()
        others = [each for each in self.promotions() if each not in serving]
        taken_back = [replace(each, taken_back_at=each.taken_back_at or now) for each in others]
        write_json(self.folder / _PROMOTIONS, (*taken_back, *serving))


@dataclass(frozen=True)
class Registry:
    """All that was trained in a MODEL_DIR."""

    model_dir: Path

    def project(self, key: str) -> ProjectModels:
        """The models of the project with this key, trained or not."""
        return ProjectModels(key, self.model_dir)

    def projects(self) -> list[ProjectModels]:
        """All projects for which a training was begun, or asked."""
        return [self.project(path.name) for path in sorted(self.model_dir.glob("trained/*-*")) if is_key(path.name)]


def _read_json(path: Path, kind: type[_Value], default: _Value) -> _Value:
    """The content of a file, the default where there is none. Raises RegistryError for a broken one, OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return default
    except ValueError:
        raise RegistryError(
            f"{path} is broken: take it from a backup, or remove the folder {path.parent} to begin anew"
        ) from None
