"""Of which kind weights are, without torch and without running anything of them: what can be told is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yolo_backend.detection.contents import network_class
from yolo_backend.detection.record import read_record
from yolo_backend.training.registry import ProjectModels, RegistryError

_KIND_OF_NETWORK: Mapping[str, str] = {
    "DetectionModel": "detect",
    "RTDETRDetectionModel": "detect",
    "WorldModel": "detect",
    "YOLOEModel": "detect",
    "OBBModel": "obb",
    "SegmentationModel": "segment",
    "YOLOESegModel": "segment",
    "PoseModel": "pose",
    "ClassificationModel": "classify",
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
