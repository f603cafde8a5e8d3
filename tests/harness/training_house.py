"""A Label Studio whose scenes somebody has labelled, a MODEL_DIR, and trainings in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.labelled_label_studio import PROJECT, TOKEN, LabelStudio
from tests.harness.command import Done, run_process
from tests.harness.http_server import StartServer
from yolo_backend.settings import load_settings
from yolo_backend.training.launch import Training, start
from yolo_backend.training.records import Options, Run
from yolo_backend.training.registry import ProjectModels, Registry

OPTIONS = Options("bccd.pt", minutes=20, image_size=160)


class House:
    """A Label Studio, and a MODEL_DIR beside it."""

    def __init__(self, serve: StartServer, weights: Path, model_dir: Path) -> None:
        self.studio = LabelStudio(scenes=14)
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

    @property
    def models(self) -> ProjectModels:
        (models,) = Registry(self.settings.model_dir).projects()
        return models

    def train(self, *options: str) -> Done:
        command = ("train", "--project", str(PROJECT), "--image-size", "160", *options)
        return run_process(*command, environment=self.environment, cwd=self.settings.model_dir)


def wait_for(is_so: Callable[[], Any], timeout_s: float = 120) -> Any:
    ends_at = time.monotonic() + timeout_s
    while not (found := is_so()):
        assert time.monotonic() < ends_at, "it doesn't come"
        time.sleep(0.05)
    return found


def is_fitting(run: Run) -> bool:
    return run.state == "fitting" and run.progress is not None and run.progress.epoch is not None
