"""A run of a project: begun while nobody else trains, and its end is written down in any case."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from yolo_backend.label_studio.projects import Project, open_project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.protocol import project_key
from yolo_backend.settings import Settings
from yolo_backend.training.base import find_base, unnamed_base
from yolo_backend.training.diary import Diary
from yolo_backend.training.errors import TrainingError
from yolo_backend.training.launch import Order
from yolo_backend.training.lock import TrainingLock
from yolo_backend.training.records import Options
from yolo_backend.training.registry import MANIFEST, ProjectModels, Registry

CUT_OFF = "It was cut off, because its process or its machine stopped: train again"

_WORK = "work"  # in a run's folder, for what goes when it ends
_KEPT_ROOM_BYTES = 256 * 1024


@dataclass(frozen=True)
class TrainingRun:
    """One run of one project, in a process of its own that holds the lock. `base` is the file that it begins with."""

    options: Options
    base: Path
    settings: Settings
    project: Project
    models: ProjectModels
    diary: Diary

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.models.folder_of(self.diary.run.run)

    @property
    def work_folder(self) -> Path:
        """Where files are that nobody needs when it has ended."""
        return self.folder / _WORK

    @property
    def group_by(self) -> str | None:
        """The field of the tasks' data whose images stay together, None if there is none; "" asks for none.

        A run that names none goes on with that of an earlier one, whose images were put on their sides by it: not with
        one that no task has, by which nothing was collected. Raises OSError.
        """
        asked = [self.options] + [
            run.options
            for run in self.models.runs()
            if run.options and (self.models.folder_of(run.run) / MANIFEST).exists()
        ]
        return next((options.group_by for options in asked if options.group_by is not None), None) or None


@contextmanager
def begin_run(order: Order, settings: Settings) -> Iterator[TrainingRun]:
    """A new run, with the lock held while it is under way. Raises UserError, requests.Timeout, OSError."""
    is_named = order.may_be_path or len(settings.model_names) == 1
    options = order.options
    base = find_base(options.base, settings, may_be_path=order.may_be_path) if is_named else None
    token = settings.label_studio_api_key
    if not settings.label_studio_url or not token:
        raise TrainingError("The labels are in Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    project = open_project(Studio(settings.label_studio_url, token.get_secret_value()), order.project)
    key = project_key(project.studio.url, project.sent_as)
    if key is None:
        raise TrainingError(f"Label Studio doesn't say when project {project.id} was made: update Label Studio")
    models = Registry(settings.model_dir).project(key)
    if base is None or not order.may_be_path:
        name, base = unnamed_base(options.base if is_named else None, project, models, settings)
        options = replace(options, base=name)  # to go on with, or to begin it again
    with TrainingLock(settings.model_dir).held(key) as tell:
        end_cut_off(models)
        begun = models.begin_run(options)
        tell(begun.run)
        run = TrainingRun(options, base, settings, project, models, Diary(models, begun))
        try:
            _keep_room(run.work_folder)
        except OSError:
            shutil.rmtree(run.folder, ignore_errors=True)  # it never began
            raise
        try:
            yield run
        finally:
            shutil.rmtree(run.work_folder, ignore_errors=True)


def _keep_room(work_folder: Path) -> None:
    """Take some room on the disk, which goes with the folder: so there is some to say that the disk is full."""
    work_folder.mkdir()
    with (work_folder / "room").open("xb") as file:
        file.write(bytes(_KEPT_ROOM_BYTES))
        file.flush()
        os.fsync(file.fileno())  # of some disks, what is full is only seen then


def end_cut_off(models: ProjectModels) -> None:
    """Set right what is told of runs that were cut off; only for who holds the lock. Raises OSError."""
    models.tidy_up()
    models.settle()
    for run in models.runs():
        shutil.rmtree(models.folder_of(run.run) / _WORK, ignore_errors=True)
        if not run.is_over:
            Diary(models, run).fail(CUT_OFF)
