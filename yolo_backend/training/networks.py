"""The network that a training begins with: whether one can, and how its classes become those of the project."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from yolo_backend.detection.models import load_checkpoint
from yolo_backend.detection.networks import named, points_of
from yolo_backend.detection.weights import WeightsError, file_fingerprint
from yolo_backend.messages import first_line, shortened
from yolo_backend.training.kinds import TRAINED_NETWORKS, Kind

_NEEDED = (
    "name a .pt for detection, OBB, segmentation, pose or classification, such as yolo26n.pt (--base, or MODEL_NAME)"
)
_BRANCHES = ("cv3", "one2one_cv3")  # where a head tells classes; the second one in networks that need no NMS
_IMAGE_SIZE = 640  # Ultralytics' own, in which it counts how rare objects are


@dataclass(frozen=True)
class Base:
    """Weights to begin with: their kind, class names by number, image size, and the network itself.

    `points` is how many key points they find in a box.
    """

    path: Path
    fingerprint: str
    kind: Kind
    class_names: Mapping[int, str]
    image_size: int
    network: Any
    points: int = 0

    @property
    def name(self) -> str:
        return self.path.name


def read_base(path: Path) -> Base:
    """Open the weights. Raises WeightsError for those that can't be trained."""
    fingerprint = file_fingerprint(path)
    try:
        yolo = load_checkpoint(path)
        network: Any = yolo.model
    except Exception as error:  # Ultralytics raises anything
        raise WeightsError(f"{shortened(path.name)} can't be opened ({first_line(error)}): {_NEEDED}") from None
    architecture = type(network).__name__
    kind = TRAINED_NETWORKS.get(architecture)
    if kind is None:
        what = getattr(yolo, "task", None) or architecture
        if what in get_args(Kind):  # such as RT-DETR and YOLO-World, of which a training goes another way
            raise WeightsError(
                f"{shortened(path.name)} can't be trained here, because its network is a {architecture}: {_NEEDED}"
            )
        raise WeightsError(f"{shortened(path.name)} are weights for {what}, which aren't trained here: {_NEEDED}")
    tells_classes = "linear" if kind == "classify" else "cv3"
    if network.is_fused() or getattr(network.model[-1], tells_classes, None) is None:
        raise WeightsError(
            f"{shortened(path.name)} is fused for predicting, and can't be trained: name the best.pt that a training "
            "wrote (--base, or MODEL_NAME)"
        )
    if int(getattr(network, "yaml", {}).get("channels", 3)) != 3:
        raise WeightsError(f"{shortened(path.name)} doesn't take RGB images: {_NEEDED}")
    size = yolo.overrides.get("imgsz", _IMAGE_SIZE)
    image_size = max(size) if isinstance(size, Sequence) else int(size)
    points, _ = points_of(network) or (0, 0)
    return Base(path, fingerprint, kind, named(network.names), image_size, network, points)


def set_class_rows(network: Any, base: Any, known: Mapping[int, Sequence[int]]) -> None:
    """Let each class of a network begin with what the base knows of it: the mean of these classes' rows.

    `known` has the base's classes by the number of the network's. All others begin anew: Ultralytics copies rows by
    name, or by position where there are as many, so that a cat would begin as a dog.
    """
    head, base_head = network.model[-1], base.model[-1]
    with torch.no_grad():
        if (linear := getattr(head, "linear", None)) is not None:  # a classifier's
            linear.reset_parameters()
            _copy_rows(linear, base_head.linear, known)
        for branch in _BRANCHES:
            levels = getattr(head, branch, None)
            if levels is None:
                continue
            base_levels = getattr(base_head, branch, None)
            for level, (layers, stride) in enumerate(zip(levels, head.stride, strict=True)):
                last = layers[-1]
                last.reset_parameters()
                # As `bias_init` of Ultralytics' head does: so rare are objects among all places.
                last.bias.fill_(math.log(5 / head.nc / (_IMAGE_SIZE / float(stride)) ** 2))
                if base_levels is not None:
                    _copy_rows(last, base_levels[level][-1], known)
        if (last := _by_pixel(head)) is not None:
            last.reset_parameters()
            if (base_last := _by_pixel(base_head)) is not None:
                _copy_rows(last, base_last, known)


def _by_pixel(head: Any) -> Any:
    """The layer by which YOLO26's masks are told, while they are trained, what each pixel shows; None of others."""
    layers = getattr(getattr(head, "proto", None), "semseg", None)
    return None if layers is None else layers[-1]


def _copy_rows(last: Any, base_last: Any, known: Mapping[int, Sequence[int]]) -> None:
    for row, class_ids in known.items():
        rows = list(class_ids)
        last.weight[row] = base_last.weight[rows].mean(0).to(last.weight)
        last.bias[row] = base_last.bias[rows].mean().to(last.bias)
