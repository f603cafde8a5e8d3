"""Of which kind weights are, without torch and without running anything of them: what can be told is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from yolo_backend.detection.contents import network_class
from yolo_backend.detection.record import read_record
from yolo_backend.training.registry import ProjectModels, RegistryError

Kind = Literal["detect", "obb", "segment", "pose", "classify"]

TRAINED_NETWORKS: Mapping[str, Kind] = {
    "DetectionModel": "detect",
    "OBBModel": "obb",
    "SegmentationModel": "segment",
    "PoseModel": "pose",
    "ClassificationModel": "classify",
}
"""The networks that can be trained, by their classes."""

_KIND_OF_NETWORK: Mapping[str, Kind] = {
    **TRAINED_NETWORKS,
    "RTDETRDetectionModel": "detect",
    "WorldModel": "detect",
    "YOLOEModel": "detect",
    "YOLOESegModel": "segment",
}


def kind_of_file(path: Path) -> str | None:
    """The kind of a .pt file, by the class of its network; None of other files, and where that can't be told."""
    return _KIND_OF_NETWORK.get(network_class(path) or "") if path.suffix == ".pt" else None


def own_kind(models: ProjectModels) -> str | None:
    """The kind of the weights that serve a project alone: as their record says, their run, or their network.

    None where there are no such weights, and where none of the three says it, as of runs of earlier versions; those
    find boxes. What is wrong with them, or isn't there any more, is no reason to end a training.
    """
    try:
        record = read_record(models.file)
    except (OSError, ValueError):
        record = None
    if record and record.kind:
        return record.kind
    if record and record.project == models.key:
        try:
            if kind := models.run(record.run).kind:
                return kind
        except (OSError, RegistryError):  # somebody removed the run's folder
            pass
    return kind_of_file(models.file)
