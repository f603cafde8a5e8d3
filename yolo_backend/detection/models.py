"""One model in one runtime: letterboxed images in, the model's raw outputs out."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime import __version__ as onnxruntime_version
from ultralytics import YOLO
from ultralytics.utils.checks import check_imgsz

from yolo_backend.cores import usable_cores
from yolo_backend.detection.exports import EXPORTED_BATCH
from yolo_backend.detection.metadata import ExportMetadata, check_names, read_metadata
from yolo_backend.detection.weights import WeightsFileError

log = logging.getLogger(__name__)

TASKS = ("detect", "segment", "pose", "obb")
_MAX_STREAMS = 8
_BATCH_ON_CPU, _BATCH_ON_GPU = 8, 32
# More than that at once and what passes between a network's layers leaves the core's cache.
_PIXELS_AT_ONCE = 640 * 480


class Model(Protocol):
    """Weights in a runtime.

    `image_size` is (height, width), the weights' own; with `shape_is_free` others go, too. `streams` threads may call
    it at once, with `batch_size` images of one shape each for the best rate, and `most_images` at most: with more than
    a file was made for, it answers nothing for those behind. `end2end` outputs need no NMS; `remark` is what a person
    should know of the file.
    """

    engine: str
    device: torch.device
    task: str
    class_names: dict[int, str]
    image_size: tuple[int, int]
    stride: int
    shape_is_free: bool
    end2end: bool
    streams: int
    most_images: int | None
    remark: str | None

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
        yolo = YOLO(path, task=said.task or TASKS[0]) if said else load_checkpoint(path)
        check_kind(path.name, str(yolo.task), said.head if said and said.head else type(yolo).__name__)
        if path.suffix == ".pt":
            check_network(path.name, yolo.model)
        self.task = str(yolo.task)
        overrides = {
            "verbose": False,
            "save": False,
            "device": device,
            "quantize": 16 if device.startswith("cuda") else None,
        }
        # Ultralytics' own predictor sets the model up, so that fusing and heads are those of YOLO(...).predict.
        predictor = yolo.task_map[self.task]["predictor"](overrides={**yolo.overrides, **overrides})
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
        taken = check_inputs(path.name, [_Input.of_onnx(each) for each in session.get_inputs()]) if session else None
        self.shape_is_free = is_torch or (bool(getattr(self._model, "dynamic", False)) and not (taken and taken.size))
        self.most_images, self.remark = None, None
        if said:
            self.most_images = (taken and taken.count) or _most_images(said)
            self.remark = _remark(path.name, said)
            if taken and taken.count:
                self._model.backend.batch = taken.count  # what Ultralytics fills a smaller batch up to
        elif not is_torch:
            self.most_images = int(getattr(self._model, "batch", 1))
        self.stride = int(self._model.stride)
        self.class_names = said.names if said else named(self._model.names)
        own_size = (taken and taken.size) or getattr(self._model, "imgsz", None) or yolo.overrides.get("imgsz", 640)
        self.image_size = whole_strides(own_size, self.stride)

    def __str__(self) -> str:
        return f"{self.engine}{' in half precision' if self._model.fp16 else ''}"

    def batch_size(self, image_size: tuple[int, int]) -> int:
        if self.engine == "tensorrt":
            return EXPORTED_BATCH
        return _BATCH_ON_CPU if self.device.type == "cpu" else _BATCH_ON_GPU

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, for_person: bool = False) -> Any:
        if self.device.type == "cpu":
            _set_torch_threads(self._cores)
        stacked = torch.from_numpy(np.stack(images)).to(self.device)
        pixels = stacked.permute(0, 3, 1, 2).contiguous()
        return self._model((pixels.half() if self._model.fp16 else pixels.float()) / 255)


class _OnnxModel(ABC):
    """An ONNX model of free shape, as Ultralytics exports it, on the CPU.

    Each core runs images of its own, `streams` at a time: that beats all cores on one image by a tenth or more, and
    work beside it, such as decoding, holds up one image only.
    """

    engine: str
    device = torch.device("cpu")
    shape_is_free = True

    def __init__(self, path: Path, said: ExportMetadata, name: str) -> None:
        self.streams = min(usable_cores(), _MAX_STREAMS)
        self.task = said.task or TASKS[0]
        check_kind(name, self.task, str(said.head))
        check_channels(name, said.channels)
        self.end2end = said.end2end or said.has_nms
        self.most_images = _most_images(said)
        self.remark = _remark(name, said)
        self.stride = said.stride
        self.class_names = said.names
        self.image_size = whole_strides(said.imgsz or 640, self.stride)
        taken = check_inputs(name, self._open(path))
        if taken.size or (taken.count or 1) > 1:
            raise WeightsFileError(
                f"Weights {name} say that they take images of any size (dynamic=True), but take {taken.shape} only: "
                "export them anew"
            )
        self._dtype = taken.dtype

    @abstractmethod
    def _open(self, path: Path) -> list[_Input]:
        """Load the file; returns what it takes."""

    def batch_size(self, image_size: tuple[int, int]) -> int:
        return max(1, min(_BATCH_ON_CPU, _PIXELS_AT_ONCE // (image_size[0] * image_size[1])))

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, for_person: bool = False) -> Any:
        # NMS is small work, and a thread of torch's own for it would only be in the way.
        _set_torch_threads(1)
        pixels = _to_numbers(images).astype(self._dtype, copy=False)
        outputs = [torch.from_numpy(output) for output in self._run(pixels, for_person=for_person)]
        return outputs[0] if len(outputs) == 1 else outputs

    @abstractmethod
    def _run(self, pixels: NDArray[Any], *, for_person: bool) -> list[NDArray[Any]]: ...


class OnnxModel(_OnnxModel):
    """An ONNX model in ONNX Runtime. A person's images that come when the model is idle have all cores."""

    engine = "onnx"

    def _open(self, path: Path) -> list[_Input]:
        cores = usable_cores()
        self._by_core = _onnx_session(path, cores // self.streams)
        self._by_all = self._by_core if self.streams == 1 else _onnx_session(path, cores)
        self._input_name = self._by_core.get_inputs()[0].name
        self._calls = 0
        self._lock = threading.Lock()
        return [_Input.of_onnx(each) for each in self._by_core.get_inputs()]

    def __str__(self) -> str:
        return f"ONNX Runtime {onnxruntime_version}, {self.streams} images at a time"

    def _run(self, pixels: NDArray[Any], *, for_person: bool) -> list[NDArray[Any]]:
        with self._lock:
            # Not for bulk work: its images come one by one, too, if their server is slow, and the other cores are
            # needed by that server or by the next image's decoding.
            has_all_cores = for_person and self._calls == 0
            self._calls += 1
        try:
            return list((self._by_all if has_all_cores else self._by_core).run(None, {self._input_name: pixels}))
        finally:
            with self._lock:
                self._calls -= 1


class OpenVinoModel(_OnnxModel):
    """An ONNX model in OpenVINO."""

    engine = "openvino"

    def _open(self, path: Path) -> list[_Input]:
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # of itself it takes bfloat16 where the CPU has it, which moves boxes
            "INFERENCE_NUM_THREADS": usable_cores(),
            "NUM_STREAMS": self.streams,
        }
        try:
            self._compiled = openvino.compile_model(path, "CPU", options)
        except Exception:
            _onnx_session(path, 1)  # whose errors say what is wrong with a file
            raise
        self._version = openvino.__version__.split("-")[0]
        self._of_thread = threading.local()
        return [_Input.of_openvino(each) for each in self._compiled.inputs]

    def __str__(self) -> str:
        return f"OpenVINO {self._version}, {self.streams} images at a time"

    def _run(self, pixels: NDArray[Any], *, for_person: bool) -> list[NDArray[Any]]:
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        return [output.copy() for output in self._of_thread.request.infer([pixels]).values()]


def load_checkpoint(path: Path) -> Any:
    """The YOLO of a .pt file.

    By their names, Ultralytics takes some files for others: `yolov5s.pt` for its own `yolov5su.pt`, which it may
    download. So it is given this one under a name that says nothing.
    """
    with TemporaryDirectory(prefix="yolo-backend-") as folder:
        file = Path(folder, "weights.pt")
        try:
            file.symlink_to(path.resolve())
        except OSError:  # Windows lets not everyone make links
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


@dataclass(frozen=True)
class _Input:
    """What an exported network takes: (n, channels, height, width), None where any will do."""

    shape: tuple[int | None, ...]
    dtype: str

    @classmethod
    def of_onnx(cls, taken: Any) -> _Input:
        dtype = {"tensor(float)": "float32", "tensor(float16)": "float16"}.get(taken.type, taken.type)
        return cls(tuple(size if isinstance(size, int) else None for size in taken.shape), dtype)

    @classmethod
    def of_openvino(cls, taken: Any) -> _Input:
        sizes = tuple(None if size.is_dynamic else int(size.get_length()) for size in taken.partial_shape)
        kind = taken.element_type.get_type_name()
        return cls(sizes, {"f32": "float32", "f16": "float16"}.get(kind, kind))

    @property
    def count(self) -> int | None:
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int] | None:
        height, width = self.shape[2:4]
        return None if height is None or width is None else (height, width)


def check_inputs(name: str, inputs: Sequence[_Input]) -> _Input:
    """What the file takes, which has to be images as Ultralytics' exports take them. Raises WeightsFileError."""
    what = None
    if len(inputs) != 1:
        what = f"{len(inputs)} inputs"
    elif len(inputs[0].shape) != 4:
        what = f"an input of {len(inputs[0].shape)} dimensions"
    elif inputs[0].shape[1] not in {3, None}:
        channels_last = inputs[0].shape[3] == 3
        what = "images with their channels last (NHWC)" if channels_last else f"{inputs[0].shape[1]} channels"
    elif inputs[0].dtype not in {"float32", "float16"}:
        what = f"numbers of the type {inputs[0].dtype}"
    if what:
        raise WeightsFileError(
            f"Weights {name} want {what}: expected RGB images (n, 3, height, width) as float32; export them with "
            'Ultralytics, YOLO("best.pt").export(format="onnx")'
        )
    return inputs[0]


def _most_images(said: ExportMetadata) -> int | None:
    """How many images at once an exported file was made for; None for any number.

    NMS keeps to the count of the example that was traced also where the input's shape is free.
    """
    return None if said.is_dynamic and not said.has_nms else said.batch


def _remark(name: str, said: ExportMetadata) -> str | None:
    if not said.has_nms:
        return None
    return (
        f"NMS is part of {name}: its own threshold (0.25, unless it was exported with another), IoU and maximum hold "
        "before MODEL_SCORE_THRESHOLD, MODEL_IOU_THRESHOLD and MODEL_MAX_DETECTIONS; export it without nms=True"
    )


def keep_head_in_float32(network: Any) -> None:
    """Of a YOLO in half precision, let the head, which makes the boxes, calculate in float32.

    In half precision, numbers above 512 are half a pixel of the model's input apart: four pixels of a large photograph.
    """
    head = network.model[-1].float()
    head.register_forward_pre_hook(lambda _, inputs: ([features.float() for features in inputs[0]], *inputs[1:]))


def check_kind(name: str, task: str, head: str) -> None:
    """Raises WeightsFileError for weights that don't find boxes as a YOLO does."""
    if task not in TASKS:
        raise WeightsFileError(
            f"Weights {name} are for the task {task}: expected one that finds boxes ({', '.join(TASKS)})"
        )
    if head in {"RTDETR", "RTDETRDecoder"}:
        raise WeightsFileError(f"Weights {name} are an RT-DETR: expected a YOLO")


def check_network(name: str, network: Any) -> None:
    """Raises WeightsFileError for a network of a .pt file whose classes have no names, or aren't chosen yet."""
    check_names(name, named(getattr(network, "names", None) or {}))
    head, names = network.model[-1], len(network.names)
    if names != (classes := int(getattr(head, "nc", names))):
        raise WeightsFileError(
            f"Weights {name} have {classes} classes, but {names} names: name each of them, in a copy: "
            'y = YOLO("x.pt"); y.model.names = {0: "cat", 1: "dog"}; y.save("mine.pt")'
        )
    if "YOLOE" in type(head).__name__ and not (hasattr(network, "pe") or hasattr(head, "lrpc") or head.is_fused):
        raise WeightsFileError(
            f"Weights {name} are a YOLOE that was told no classes: tell it, and save that: "
            'y = YOLOE("x.pt"); y.set_classes(["cat", "dog"]); y.save("mine.pt")'
        )


def named(names: Any) -> dict[int, str]:
    """The class names of a network, which may hold them as a list."""
    numbered = enumerate(names) if isinstance(names, list | tuple) else names.items()
    return {int(number): str(name) for number, name in numbered}


def check_channels(name: str, channels: int) -> None:
    """Raises WeightsFileError for weights that don't take RGB images."""
    if channels != 3:
        raise WeightsFileError(f"Weights {name} want {channels} channels: expected 3 (RGB)")


def whole_strides(image_size: Any, stride: int) -> tuple[int, int]:
    """An image size, a number or (height, width), rounded up to what the model takes."""
    height, width = check_imgsz(image_size, stride=stride, min_dim=2)
    return int(height), int(width)


def _to_numbers(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(n, 3, height, width) in 0 to 1. cv2.dnn.blobFromImages takes longer, and holds up other threads."""
    height, width, _ = images[0].shape
    pixels = np.empty((len(images), 3, height, width), np.float32)
    for planes, image in zip(pixels, images, strict=True):
        for plane, channel in zip(planes, cv2.split(image), strict=True):
            np.divide(channel, np.float32(255), out=plane)
    return pixels


def _onnx_session(path: Path, threads: int) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that spins while it waits takes the core from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _set_torch_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
