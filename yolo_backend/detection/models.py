"""One model in one runtime: letterboxed images in, the model's raw outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from yolo_backend.cores import usable_cores
from yolo_backend.detection.exports import EXPORTED_BATCH
from yolo_backend.detection.heads import DEFAULT_KIND
from yolo_backend.detection.metadata import read_metadata
from yolo_backend.detection.networks import (
    NetworkInput,
    check_channels,
    check_inputs,
    check_kind,
    check_network,
    most_images,
    named,
    points_of,
    remark_of,
    whole_strides,
)
from yolo_backend.detection.onnx_models import BATCH_ON_CPU, OnnxModel, OpenVinoModel, set_torch_threads

_BATCH_ON_GPU = 32


class Model(Protocol):
    """Weights in a runtime.

    `image_size` is (height, width), the weights' own; with `shape_is_free`, others are possible, too. `streams` threads
    may call it at once, best with `batch_size` images of one shape each, and with `most_images` at most. If there are
    more than a file was made for, it answers nothing for the last ones. `end2end` outputs need no NMS; `remark` is what
    a person should know of the file. `points_shape` is how many key points a box has, and how many numbers each.
    """

    engine: str
    device: torch.device
    kind: str
    class_names: dict[int, str]
    image_size: tuple[int, int]
    stride: int
    shape_is_free: bool
    end2end: bool
    streams: int
    most_images: int | None
    remark: str | None
    points_shape: tuple[int, int] | None

    def batch_size(self, image_size: tuple[int, int]) -> int:
        """How many images of this size at once give the best rate."""

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, for_person: bool = False) -> Any:
        """The raw outputs for RGB images of one shape (height, width, 3): a tensor, or several.

        `for_person` says that somebody waits for just these.
        """


class UltralyticsModel:
    """Weights as Ultralytics itself runs them: `.pt` in torch, in half precision on a GPU, or an export of its own."""

    streams = 1

    def __init__(self, path: Path, device: str, *, max_detections: int = 300) -> None:
        said = read_metadata(path, path.name) if path.suffix == ".onnx" else None
        yolo = YOLO(path, task=said.kind or DEFAULT_KIND) if said else load_checkpoint(path)
        check_kind(path.name, str(yolo.task), said.head if said and said.head else type(yolo).__name__)
        if path.suffix == ".pt":
            check_network(path.name, yolo.model)
        self.kind = str(yolo.task)
        overrides = {
            "verbose": False,
            "save": False,
            "device": device,
            "quantize": 16 if device.startswith("cuda") else None,
        }
        # Ultralytics' own predictor sets the model up, so that fusing and heads are those of YOLO(...).predict.
        predictor = yolo.task_map[self.kind]["predictor"](overrides={**yolo.overrides, **overrides})
        predictor.setup_model(model=yolo.model, verbose=False)
        self._model: Any = predictor.model
        self.device: torch.device = predictor.device
        self._cores = usable_cores()
        check_channels(path.name, int(getattr(self._model, "channels", 3)))
        is_torch = self._model.format == "pt"
        self.engine = {"pt": "torch", "engine": "tensorrt"}.get(self._model.format, str(self._model.format))
        self.end2end = bool(getattr(self._model, "end2end", False))
        if is_torch and self.end2end:
            self._model.model.set_head_attr(max_det=max(max_detections, 300), agnostic_nms=False)
        if is_torch and self._model.fp16:
            keep_head_in_float32(self._model.model)
        session = getattr(self._model, "session", None)
        taken = (
            check_inputs(path.name, [NetworkInput.of_onnx(each) for each in session.get_inputs()]) if session else None
        )
        self.shape_is_free = is_torch or (bool(getattr(self._model, "dynamic", False)) and not (taken and taken.size))
        self.most_images, self.remark = None, None
        if said:
            self.most_images = (taken and taken.count) or most_images(said)
            self.remark = remark_of(path.name, said)
            if taken and taken.count:
                self._model.backend.batch = taken.count  # Ultralytics fills a smaller batch up to this
        elif not is_torch:
            self.most_images = int(getattr(self._model, "batch", 1))
        self.stride = int(self._model.stride)
        self.class_names = said.names if said else named(self._model.names)
        self.points_shape = said.points_shape if said else points_of(self._model)
        own_size = (taken and taken.size) or getattr(self._model, "imgsz", None) or yolo.overrides.get("imgsz", 640)
        self.image_size = whole_strides(own_size, self.stride)

    def __str__(self) -> str:
        return f"{self.engine}{' in half precision' if self._model.fp16 else ''}"

    def batch_size(self, image_size: tuple[int, int]) -> int:
        if self.engine == "tensorrt":
            return EXPORTED_BATCH
        return BATCH_ON_CPU if self.device.type == "cpu" else _BATCH_ON_GPU

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, for_person: bool = False) -> Any:
        if self.device.type == "cpu":
            set_torch_threads(self._cores)
        stacked = torch.from_numpy(np.stack(images)).to(self.device)
        pixels = stacked.permute(0, 3, 1, 2).contiguous()
        return self._model((pixels.half() if self._model.fp16 else pixels.float()) / 255)


def load_checkpoint(path: Path) -> Any:
    """The YOLO of a .pt file.

    Ultralytics takes some files for others by their names: `yolov5s.pt` for its own `yolov5su.pt`, which it may
    download. So it gets this file under a neutral name.
    """
    with TemporaryDirectory(prefix="yolo-backend-") as folder:
        file = Path(folder, "weights.pt")
        try:
            file.symlink_to(path.resolve())
        except OSError:  # Windows doesn't let everyone make links
            copy(path, file)
        try:
            yolo = YOLO(file)
        except Exception as error:
            error.args = tuple(_renamed(part, file, path) for part in error.args)
            raise
    yolo.overrides["model"] = yolo.model_name = yolo.ckpt_path = yolo.model.pt_path = str(path)
    return yolo


def _renamed(said: Any, file: Path, path: Path) -> Any:
    return said.replace(str(file), str(path)) if isinstance(said, str) else said


def open_exported(path: Path, name: str, wanted: str, device: str) -> Model:
    """An exported file, in the runtime for it. `name` is that of the weights, for errors."""
    said = read_metadata(path, name) if path.suffix == ".onnx" and device == "cpu" else None
    if said and said.is_dynamic:
        return (OpenVinoModel if wanted == "openvino" else OnnxModel)(path, said, name)
    return UltralyticsModel(path, device)


def keep_head_in_float32(network: Any) -> None:
    """Let the head of a YOLO in half precision, which makes boxes or probabilities, calculate in float32.

    In half precision, numbers above 512 are half a pixel of the model's input apart: four pixels of a large photograph.
    """
    head = network.model[-1].float()
    head.register_forward_pre_hook(lambda _, inputs: (_in_float32(inputs[0]), *inputs[1:]))


def _in_float32(features: Any) -> Any:
    """The features that a head takes, of several layers or, of a classifier, of one."""
    return features.float() if isinstance(features, torch.Tensor) else [each.float() for each in features]
