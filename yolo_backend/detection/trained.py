"""Trained weights of projects: where they lie, beside those of MODEL_ROOT, and how they are published.

Their names hold slashes, which no `model_path` may: a labeling config can't name another project's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from yolo_backend.detection.weights import WeightsError, WeightsFolder, check_file, put_weights

_NAME = re.compile(r"trained/(?P<id>\d+)-[0-9a-f]{8}/project-(?P=id)\.pt")


def trained_name(key: str) -> str:
    """The name under which a project's trained weights serve, by the project's key (`protocol.project_key`)."""
    return f"trained/{key}/project-{key.partition('-')[0]}.pt"


def trained_file(key: str, model_dir: Path) -> Path:
    """Where these weights are, if a model was promoted."""
    return model_dir / trained_name(key)


def publish_trained(path: Path, key: str, model_dir: Path) -> str:
    """Let a finished .pt serve the project, whole or not at all; returns its fingerprint.

    Servers see it by themselves. Raises WeightsError, and has changed nothing then.
    """
    file = trained_file(key, model_dir)
    return put_weights(path, file.name, file.parent, "MODEL_DIR")


def withdraw_trained(key: str, model_dir: Path) -> None:
    """Let the weights serve the project again that serve untrained ones. Raises OSError."""
    trained_file(key, model_dir).unlink(missing_ok=True)


@dataclass(frozen=True)
class Shelves:
    """All weights by their names: those of MODEL_ROOT, and the trained ones of projects in MODEL_DIR."""

    folder: WeightsFolder
    model_dir: Path

    def missing(self, name: str) -> str | None:
        """As that of `WeightsFolder`."""
        if not _NAME.fullmatch(name):
            return self.folder.missing(name)
        if os.path.lexists(self.model_dir / name):
            return None
        folder, _, file = name.rpartition("/")
        return (
            f"There are no trained weights {file} in {self.model_dir / folder}: is this the MODEL_DIR of the backend "
            "that trained them?"
        )

    def find(self, name: str) -> Path:
        """As that of `WeightsFolder`. Raises WeightsError."""
        if not _NAME.fullmatch(name):
            return self.folder.find(name)
        if problem := self.missing(name):
            raise WeightsError(problem)
        return check_file(self.model_dir / name)
