"""Weights that differ, and show it: one class has another name in each, and where that is wished, other scores."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import requests

from tests.harness import waiting
from tests.harness.stack import BackendServer

wait_for = partial(waiting.wait_for, timeout_s=60.0, every_s=0.1)  # a switch to new weights takes some seconds
CELLS = "RBC"


def renamed_weights(
    original: Path, name: str, folder: Path, *, renames: str = CELLS, less_sure_by: float = 0.0
) -> Path:
    """A copy of weights in which the class that `renames` says is called `name`; it finds what the original finds.

    With `less_sure_by`, in logits, all its scores are lower, so that its boxes are told from the original's. That holds
    for weights that detect a few classes: other layers of the head must not have as many channels as there are classes
    (4 in heads without distributions, else 16 and more).
    """
    from ultralytics import YOLO

    yolo = YOLO(original)
    names = {number: name if known == renames else known for number, known in yolo.names.items()}
    yolo.model.names = names
    for path, bias in yolo.model.model[-1].named_parameters():
        if path.endswith("bias") and bias.shape == (len(names),):  # of the head's scores
            bias.data -= less_sure_by
    path = folder / f"{name}.pt"
    yolo.save(path)
    return path


def labels_for(names: list[str]) -> str:
    """A labeling config in which each of these classes has a label."""
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    return (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        f"{labels}</RectangleLabels></View>"
    )


def version_of(server: BackendServer, label_config: str) -> str:
    """The model_version that a backend's /setup answers."""
    body = {"project": "1.1700000000", "schema": label_config, "hostname": "", "access_token": ""}
    answer = requests.post(f"{server.url}/setup", json=body, timeout=10)
    answer.raise_for_status()
    return str(answer.json()["model_version"])
