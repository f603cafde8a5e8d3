"""An ONNX model of free shape on the CPU: in ONNX Runtime, or in OpenVINO."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime import __version__ as onnxruntime_version

from yolo_backend.cores import usable_cores
from yolo_backend.detection.heads import DEFAULT_KIND
from yolo_backend.detection.metadata import ExportMetadata
from yolo_backend.detection.networks import (
    NetworkInput,
    check_channels,
    check_inputs,
    check_kind,
    most_images,
    remark_of,
    whole_strides,
)
from yolo_backend.detection.weights import WeightsFileError

BATCH_ON_CPU = 8
_MAX_STREAMS = 8
# With more at once, what passes between a network's layers doesn't fit into the core's cache.
_PIXELS_AT_ONCE = 640 * 480


class _OnnxModel(ABC):
    """An ONNX model of free shape, as Ultralytics exports it, on the CPU.

    Each core runs its own images, `streams` at a time. This is faster by a tenth or more than all cores on one image,
    and other work, such as decoding, holds up only one image.
    """

    engine: str
    device = torch.device("cpu")
    shape_is_free = True

    def __init__(self, path: Path, said: ExportMetadata, name: str) -> None:
        self.streams = min(usable_cores(), _MAX_STREAMS)
        self.kind = said.kind or DEFAULT_KIND
        check_kind(name, self.kind, str(said.head))
        check_channels(name, said.channels)
        self.end2end = said.end2end or said.has_nms
        self.most_images = most_images(said)
        self.remark = remark_of(name, said)
        self.stride = said.stride
        self.class_names = said.names
        self.points_shape: tuple[int, int] | None = said.points_shape
        self.image_size = whole_strides(said.imgsz or 640, self.stride)
        taken = check_inputs(name, self._open(path))
        if taken.size or (taken.count or 1) > 1:
            raise WeightsFileError(
                f"Weights {name} say that they take images of any size (dynamic=True), but take {taken.shape} only: "
                "export them anew"
            )
        self._dtype = taken.dtype

    @abstractmethod
    def _open(self, path: Path) -> list[NetworkInput]:
        """Load the file. Returns what it takes."""

    def batch_size(self, image_size: tuple[int, int]) -> int:
        return max(1, min(BATCH_ON_CPU, _PIXELS_AT_ONCE // (image_size[0] * image_size[1])))

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, for_person: bool = False) -> Any:
        # NMS is little work, so threads of torch's own would only be in the way.
        set_torch_threads(1)
        pixels = _to_numbers(images).astype(self._dtype, copy=False)
        outputs = [torch.from_numpy(output) for output in self._run(pixels, for_person=for_person)]
        return outputs[0] if len(outputs) == 1 else outputs

    @abstractmethod
    def _run(self, pixels: NDArray[Any], *, for_person: bool) -> list[NDArray[Any]]: ...


class OnnxModel(_OnnxModel):
    """An ONNX model in ONNX Runtime. If the model is idle, a person's images get all cores."""

    engine = "onnx"

    def _open(self, path: Path) -> list[NetworkInput]:
        cores = usable_cores()
        self._by_core = _onnx_session(path, cores // self.streams)
        self._by_all = self._by_core if self.streams == 1 else _onnx_session(path, cores)
        self._input_name = self._by_core.get_inputs()[0].name
        self._calls = 0
        self._lock = threading.Lock()
        return [NetworkInput.of_onnx(each) for each in self._by_core.get_inputs()]

    def __str__(self) -> str:
        return f"ONNX Runtime {onnxruntime_version}, {self.streams} images at a time"

    def _run(self, pixels: NDArray[Any], *, for_person: bool) -> list[NDArray[Any]]:
        with self._lock:
            # Not for bulk work. If a server is slow, its images come one by one, too, but that server or the next
            # decoding needs the other cores.
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

    def _open(self, path: Path) -> list[NetworkInput]:
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # by default it takes bfloat16 if the CPU has it, which moves boxes
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
        return [NetworkInput.of_openvino(each) for each in self._compiled.inputs]

    def __str__(self) -> str:
        return f"OpenVINO {self._version}, {self.streams} images at a time"

    def _run(self, pixels: NDArray[Any], *, for_person: bool) -> list[NDArray[Any]]:
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        return [output.copy() for output in self._of_thread.request.infer([pixels]).values()]


def _to_numbers(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(n, 3, height, width) in 0 to 1. cv2.dnn.blobFromImages takes longer and blocks other threads."""
    height, width, _ = images[0].shape
    pixels = np.empty((len(images), 3, height, width), np.float32)
    for planes, image in zip(pixels, images, strict=True):
        for plane, channel in zip(planes, cv2.split(image), strict=True):
            np.divide(channel, np.float32(255), out=plane)
    return pixels


def _onnx_session(path: Path, threads: int) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that waits by spinning takes the core away from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


def set_torch_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
