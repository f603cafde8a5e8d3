"""A Label Studio whose scenes somebody has labelled, a MODEL_DIR, and trainings in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.fakes.labelled_label_studio import CREATED_AT, LABELS, PROJECT, TOKEN, LabelStudio
from tests.harness.command import Done, run_process
from tests.harness.http_server import StartServer
from tests.harness.waiting import wait_for
from yolo_backend.detection.models import load_checkpoint
from yolo_backend.detection.record import TrainedRecord, add_record
from yolo_backend.detection.weights import file_fingerprint
from yolo_backend.protocol import project_key, sent_project
from yolo_backend.settings import load_settings
from yolo_backend.training.launch import Order, Training, start
from yolo_backend.training.records import Options, Run
from yolo_backend.training.registry import WEIGHTS, ProjectModels, Registry
from yolo_backend.training.run import begin_run

OPTIONS = Options("bccd.pt", minutes=20, image_size=160)
ALWAYS_PROMOTED = Options("bccd.pt", minutes=0.05, image_size=160, promote="always")
"""Three CPU seconds of fitting."""
COMES_S = 600.0  # on a machine that is busy with something else, a training comes last


class House:
    """A Label Studio, and a MODEL_DIR beside it."""

    def __init__(self, serve: StartServer, weights: Path, model_dir: Path, studio: LabelStudio | None = None) -> None:
        self.studio = studio or LabelStudio(scenes=14)
        self.settings = load_settings(
            label_studio_url=serve(self.studio).url,
            label_studio_api_key=TOKEN,
            model_name=weights.name,
            model_root=weights.parent,
            model_dir=model_dir,
            device="cpu",
            engine="torch",
        )
        self.environment = {
            "LABEL_STUDIO_URL": str(self.settings.label_studio_url),
            "LABEL_STUDIO_API_KEY": TOKEN,
            "MODEL_NAME": weights.name,
            "MODEL_ROOT": str(weights.parent),
            "MODEL_DIR": str(model_dir),
            "DEVICE": "cpu",
            "ENGINE": "torch",  # an export takes longer than all that is tested here
        }
        self.started: list[Training] = []

    def start(self, options: Options = OPTIONS) -> Training:
        self.started.append(start(PROJECT, options, self.settings))
        return self.started[-1]

    def started_until(self, is_so: Callable[[Run], Any]) -> Training:
        """A training that has come so far."""
        training = self.start()
        wait_for(lambda: is_so(training.run()) or training.process.poll() is not None)
        assert training.process.poll() is None, training.run()
        return training

    def train_here(self, options: Options) -> Run:
        """A whole run in this process, which gives way to nobody; how it ended."""
        from yolo_backend.training.stages import work

        with begin_run(Order(PROJECT, options, {}), self.settings) as run:
            work(run)
        return run.models.run(run.diary.run.run)

    @property
    def models(self) -> ProjectModels:
        (models,) = Registry(self.settings.model_dir).projects()
        return models

    def train(self, *options: str) -> Done:
        command = ("train", "--project", str(PROJECT), "--image-size", "160", *options)
        return run_process(*command, environment=self.environment, cwd=self.settings.model_dir)


def is_fitting(run: Run) -> bool:
    return run.state == "fitting" and run.progress is not None and run.progress.epoch is not None


def serve_something(house: House) -> None:
    """A model of a first run, as if it had been trained: that takes less time."""
    key = project_key(str(house.settings.label_studio_url), sent_project(PROJECT, CREATED_AT))
    assert key
    models = Registry(house.settings.model_dir).project(key)
    run = models.begin_run(ALWAYS_PROMOTED)
    yolo = load_checkpoint(house.settings.model_root / house.settings.model_name)
    yolo.model.names = dict(enumerate(LABELS))
    path = models.folder_of(run.run) / WEIGHTS
    torch.save({"model": yolo.model.half(), "train_args": {}}, path)
    add_record(path, TrainedRecord(dict.fromkeys(LABELS, 0.5), run.run, models.key))
    models.write(replace(run, state="ended", verdict="promote"))
    models.promote(run.run)


def are_over(models: ProjectModels) -> bool:
    return all(run.is_over for run in models.runs())


def check(models: ProjectModels, served: Sequence[str], *, is_settled: bool = True) -> None:
    """The last of these runs serves, whole, and nothing else is told to have served.

    Not `is_settled`: that it serves may not be noted before something is trained again.
    """
    told = [each.run for each in models.promotions()]
    assert told == list(served) or (told == list(served[:-1]) and not is_settled)
    assert models.promoted() == (served[-1] if served else None)
    if served:
        weights = models.weights_of(served[-1])
        assert weights
        assert file_fingerprint(models.file) == file_fingerprint(weights)
        assert set(load_checkpoint(models.file).names.values()) == set(LABELS)


def check_nothing_half_written(models: ProjectModels) -> None:
    """No run that is over has files that nobody finished."""
    over = [models.folder_of(run.run) for run in models.runs() if run.is_over]
    left = [path for folder in over for path in folder.iterdir() if path.name.startswith(".") or path.name == "work"]
    assert left == []
