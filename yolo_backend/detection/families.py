"""Opens a file of weights, by its family, in the runtime that is wished for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from onnxruntime import get_available_providers

from yolo_backend.detection.exports import FORMATS, ExportOptions, Exports
from yolo_backend.detection.models import Model, UltralyticsModel, open_exported
from yolo_backend.detection.weights import (
    WeightsError,
    WeightsFileError,
    WeightsReplacedError,
    file_fingerprint,
)
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

TellModel = Callable[[Model], None]


@dataclass(frozen=True)
class Wish:
    """How weights of this fingerprint are to run: `asked` is the setting ENGINE; exports are kept in a folder, if any.

    `max_detections` is how many boxes a model gives at most, if its boxes are made by NMS.
    """

    fingerprint: str
    asked: str
    device: str
    export_folder: Path | None
    max_detections: int

    @property
    def engine(self) -> str:
        """The runtime: with `auto`, ONNX Runtime on a CPU and torch elsewhere."""
        if self.asked != "auto":
            return self.asked
        return "onnx" if self.device == "cpu" and self.export_folder else "torch"

    def check(self, path: Path) -> None:
        """Call it after the file was read. Raises WeightsReplacedError if the file was replaced meanwhile."""
        if file_fingerprint(path) != self.fingerprint:
            raise WeightsReplacedError

    @property
    def why(self) -> str:
        """Why it is this runtime."""
        if self.asked != "auto":
            return f"ENGINE={self.asked}"
        return f"ENGINE=auto on {'a CPU' if self.device == 'cpu' else self.device}"


@dataclass(frozen=True)
class Opened:
    """A model, why it is in this runtime, and why it isn't in the one that was wished for."""

    model: Model
    why: str
    fallback: str | None = None


class Family(Protocol):
    """Files of weights of one making."""

    def takes(self, path: Path) -> bool:
        """Returns True if this file belongs to the family."""

    def open(self, path: Path, wish: Wish, tell: TellModel) -> Opened:
        """The model of exactly these weights, as near to the wish as possible.

        What takes long is done after `tell` has got a model of the file. Raises WeightsReplacedError if the file was
        replaced, WeightsError, or any error that says what is wrong.
        """


class OnnxFiles:
    """ONNX files, exported by Ultralytics or another program."""

    def takes(self, path: Path) -> bool:
        return path.suffix == ".onnx"

    def open(self, path: Path, wish: Wish, tell: TellModel) -> Opened:
        _check_there(path)
        model = open_exported(path, path.name, wish.engine, wish.device)
        wish.check(path)
        return Opened(model, "an ONNX file")


class Checkpoints:
    """A YOLO that Ultralytics saved. It runs in torch, or in an export that is made once; in torch if that fails."""

    def takes(self, path: Path) -> bool:
        return path.suffix == ".pt"

    def open(self, path: Path, wish: Wish, tell: TellModel) -> Opened:
        if wish.engine == "torch" or wish.export_folder is None:
            return Opened(self._in_torch(path, wish, wish.device), wish.why)
        exports = Exports(wish.export_folder)
        options = _options(wish)
        if exports.find(options) is None:
            tell(self._in_torch(path, wish, "cpu"))
        try:
            return Opened(_open_export(path, exports, options, wish.engine), wish.why)
        except Exception as error:  # if the weights themselves are wrong, torch says how
            fallback = f"it can't run with ENGINE={wish.asked}: {first_line(error)}"
            return Opened(self._in_torch(path, wish, wish.device), "its export failed", fallback)

    def _in_torch(self, path: Path, wish: Wish, device: str) -> Model:
        _check_there(path)
        model = UltralyticsModel(path, device, max_detections=wish.max_detections)
        wish.check(path)
        return model


FAMILIES: tuple[Family, ...] = (OnnxFiles(), Checkpoints())


def open_weights(path: Path, wish: Wish, tell: TellModel) -> Opened:
    """The model of a file, opened by the family that takes it. Raises WeightsError, and as a family does."""
    _check_runtime(wish.engine, wish.device)
    family = next((each for each in FAMILIES if each.takes(path)), None)
    if family is None:
        raise WeightsFileError(f"Weights {path.name} are of no kind that is served: name a .pt or .onnx file")
    return family.open(path, wish, tell)


def hand_over_export(wish: Wish, fingerprint: str) -> None:
    """Let the export of these weights be that of those with this fingerprint, which differ in their record alone.

    Raises OSError.
    """
    if wish.engine != "torch" and wish.export_folder is not None:
        Exports(wish.export_folder).hand_over(_options(wish), _options(replace(wish, fingerprint=fingerprint)))


def _options(wish: Wish) -> ExportOptions:
    return ExportOptions(wish.fingerprint, FORMATS[wish.engine], wish.device, max(wish.max_detections, 300))


def _check_there(path: Path) -> None:
    if not path.exists():
        raise WeightsError(f"Weights {path.name} are gone: put the file back ({path})")


def _open_export(path: Path, exports: Exports, options: ExportOptions, wanted: str) -> Model:
    file = exports.find(options) or exports.make(path, options)
    try:
        return open_exported(file, path.name, wanted, options.device)
    except Exception as error:
        log.warning(
            "%s: the export %s is made again because it can't be used: %s", path.name, file.name, first_line(error)
        )
        file.unlink(missing_ok=True)
        return open_exported(exports.make(path, options), path.name, wanted, options.device)


def _check_runtime(engine: str, device: str) -> None:
    if engine in {"openvino", "tensorrt"} and find_spec(engine) is None:
        raise WeightsError(f"ENGINE={engine} needs the package {engine}: pip install {engine}, or set ENGINE=auto")
    if engine == "openvino" and device != "cpu":
        raise WeightsError(f"ENGINE=openvino runs on the CPU only, not on {device}: set DEVICE=cpu, or ENGINE=auto")
    if engine == "tensorrt" and not device.startswith("cuda"):
        raise WeightsError(f"ENGINE=tensorrt needs an NVIDIA GPU, not {device}: set DEVICE=cuda:0, or ENGINE=auto")
    if engine == "onnx" and device.startswith("cuda") and "CUDAExecutionProvider" not in get_available_providers():
        raise WeightsError(f"ENGINE=onnx on {device} needs the package onnxruntime-gpu: install it, or set ENGINE=auto")
