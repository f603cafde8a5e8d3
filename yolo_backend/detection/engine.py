"""One model on one device: letterboxed pixels in, boxes out, equal to Ultralytics' own."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np
import onnxruntime
import torch
import torchvision  # noqa: F401  Ultralytics' NMS is torchvision's only where this is imported
import ultralytics
from numpy.typing import NDArray
from ultralytics.data.augment import LetterBox
from ultralytics.utils import nms, ops

from yolo_backend.detection.detections import Detections, Letterboxed, Runtime, WeightsInfo
from yolo_backend.detection.families import Wish, open_weights
from yolo_backend.detection.layout import layout_problem, numbers_problem
from yolo_backend.detection.metadata import nameless
from yolo_backend.detection.models import Model, whole_strides
from yolo_backend.detection.suppression import suppress
from yolo_backend.detection.weights import WeightsError, WeightsFileError, file_fingerprint
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

# Of torch (CPU on Linux and Windows, CUDA, MPS, cuBLAS, cuDNN) and of ONNX Runtime, which has no type for it.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed", "bad_alloc")


_NEWER = (
    "need {0} of Ultralytics, which {ultralytics} (here) doesn't have: they are of a newer one, or of a changed copy; "
    "update it with pip install -U ultralytics-opencv-headless"
)
_MISFIT = "don't fit Ultralytics {ultralytics} (here): install the one that they were trained with, or train them anew"
# What is said in errors of the libraries, and what it means.
_REMEDIES = {
    r"Can't get attribute '([^']+)' on <module 'ultralytics": _NEWER,
    r"No module named '(ultralytics[\w.]+)'": _NEWER,
    r"Can't get attribute '([^']+)' on <module '([^']+)'": "need {0} of {1}, which isn't here: train without it",
    r"is not a loadable checkpoint|No graph was found|Protobuf parsing failed|PytorchStreamReader|hasRecord": (
        "are broken, or only half downloaded: download or copy them again"
    ),
    r'External data path.* "(?:[^"]*/)?([^"/]+)"': "keep their numbers in the file {0}: put that beside them",
    r"max supported IR version|[Oo]pset \d+ is under development|official support for domain \S+ is till opset": (
        "are for a newer ONNX Runtime than {onnxruntime} (here): export them anew with opset=17, or update onnxruntime"
    ),
    r"No Op registered for (\w+)": "need {0}, an operator that ONNX Runtime doesn't have: export them with Ultralytics",
}


class Engine:
    """A model, ready to detect. `detect` is for `streams` threads at once, `letterbox` for any number."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        engine: str = "auto",
        export_folder: Path | None = None,
        image_size: int | None = None,
        iou_threshold: float = 0.7,
        max_detections: int = 300,
        fingerprint: str | None = None,
        tell: Callable[[WeightsInfo], None] | None = None,
    ) -> None:
        """Load the weights, as an export where there is a folder for it. Raises WeightsError.

        With a `fingerprint` they are those weights, or it raises WeightsReplacedError; an export of them will do where
        the file was replaced. While an export is made, which takes long, `tell` knows already what there is to know.
        """
        fingerprint = fingerprint or file_fingerprint(path)
        device = pick_device(device)
        wish = Wish(fingerprint, engine, device, export_folder, max_detections)

        def told(model: Model) -> None:
            if tell:
                tell(_info_of(path, fingerprint, model, image_size))

        try:
            opened = open_weights(path, wish, told)
        except WeightsFileError as error:
            raise WeightsError(f"{error} ({path})") from None
        except WeightsError:
            raise
        except Exception as error:
            raise WeightsError(f"Weights {path.name} {failure(error, device)} ({path})") from error
        self._iou_threshold = iou_threshold
        self._max_detections = max_detections
        self._model, self._why = opened.model, opened.why
        model = self._model
        self.info = _info_of(path, fingerprint, model, image_size)
        size = self.info.image_size
        self.runtime = Runtime(str(model.device), model.engine, model.streams * self._batch_size(size), opened.fallback)
        self._is_plain = model.task == "detect" and not model.end2end and model.device.type == "cpu"
        self.streams = model.streams
        self.batch_size = self._batch_size(size)
        self._letterbox = LetterBox(size, auto=model.shape_is_free, stride=model.stride)
        try:
            self._warm_up(size)
        except WeightsFileError as error:
            raise WeightsError(f"{error} ({path})") from None
        if opened.fallback:
            log.warning("%s runs in torch, for %s", path.name, opened.fallback)

    def __str__(self) -> str:
        return f"{self.info.name} on {self.runtime.device} in {self._model} ({self._why})"

    def _batch_size(self, size: tuple[int, int]) -> int:
        wanted = self._model.batch_size(size)
        return min(wanted, self._model.most_images or wanted)

    def _warm_up(self, size: tuple[int, int]) -> None:
        """Detect once: the first batch is slow, and its outputs show if they can be read. Raises WeightsFileError."""
        nothing = self.letterbox(np.zeros((*size, 3), np.uint8))
        try:
            with torch.inference_mode():
                raw = self._model([nothing.pixels], for_person=True)
                self._check_outputs(raw)
                self._read(raw, [nothing], 0.5)
        except WeightsFileError:
            raise
        except Exception as error:
            raise WeightsFileError(f"Weights {self.info.name} {failure(error, self.runtime.device, 'run')}") from error

    def _check_outputs(self, raw: Any) -> None:
        """Read otherwise than they are meant, outputs are no boxes at all, for every image. Raises WeightsFileError."""
        name, task, end2end = self.info.name, self.info.task, self._model.end2end
        if task == "segment" and isinstance(raw, torch.Tensor):
            raise WeightsFileError(f"Weights {name} answer no masks, as those of the task segment do: export them anew")
        outputs, prototypes = self._split(raw)
        outputs, classes = _first(outputs), len(self.info.class_names)
        extra = {"obb": 1, "segment": _channels(prototypes), "pose": None}.get(task, 0)
        shape = tuple(outputs.shape)
        if problem := layout_problem(shape, classes, extra, end2end=end2end):
            raise WeightsFileError(f"Weights {name} answer numbers of the shape {shape}: {problem}")
        if problem := numbers_problem(outputs, classes, end2end=end2end):
            raise WeightsFileError(f"Weights {name} answer {problem}")

    def letterbox(self, image: NDArray[np.uint8], original_size_wh: tuple[int, int] | None = None) -> Letterboxed:
        """Scale and pad an RGB image to the model's input; the shape follows from the image alone.

        An image that was decoded at a reduced scale comes with the size that it has; boxes are given in that.
        """
        pixels: NDArray[np.uint8] = self._letterbox(image=image)
        size_wh = (image.shape[1], image.shape[0])
        return Letterboxed(np.ascontiguousarray(pixels), original_size_wh or size_wh, size_wh)

    def detect(
        self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool = False
    ) -> list[Detections]:
        """The detections with a score above the threshold, one entry per image; all of one shape.

        With `for_person`, a person waits for just these images: they have all cores if nothing else is in the model.
        Raises MemoryError for a batch that doesn't fit into the device's memory, which is tidied up then.
        """
        try:
            return self._detect(batch, score_threshold, for_person=for_person)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        # Out here the error is gone, and with it the tensors that its frames held.
        self.free_memory()
        raise MemoryError(reason)

    def free_memory(self) -> None:
        """Give back the device's memory that is kept, but not in use."""
        gc.collect()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._model.device.type == "mps":
            torch.mps.empty_cache()

    def _detect(self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool) -> list[Detections]:
        most = self._model.most_images or len(batch)
        if len(batch) > most:
            pieces = (batch[start : start + most] for start in range(0, len(batch), most))
            return [found for piece in pieces for found in self._detect(piece, score_threshold, for_person=for_person)]
        with torch.inference_mode():
            raw = self._model([image.pixels for image in batch], for_person=for_person)
            return self._read(raw, batch, score_threshold)

    def _read(self, raw: Any, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        """The detections in a model's raw outputs for these images."""
        outputs, prototypes = self._split(raw)
        found = self._suppress(outputs, score_threshold)
        if len(found) != len(batch):
            raise RuntimeError(f"the model gave {len(found)} outputs for {len(batch)} images")
        input_shape = batch[0].pixels.shape[:2]
        return [
            self._to_detections(rows, image, input_shape, prototypes, index)
            for index, (rows, image) in enumerate(zip(found, batch, strict=True))
        ]

    def _suppress(self, outputs: Any, score_threshold: float) -> list[Any]:
        """The rows that stay of each image: boxes, scores, classes, and what else the task has."""
        if self._is_plain:
            return [
                suppress(output, score_threshold, self._iou_threshold, self._max_detections)
                for output in outputs.numpy()
            ]
        return list(
            nms.non_max_suppression(
                outputs,
                score_threshold,
                self._iou_threshold,
                max_det=self._max_detections,
                nc=0 if self.info.task == "detect" else len(self.info.class_names),
                end2end=self._model.end2end,
                rotated=self.info.task == "obb",
                # Past its time limit Ultralytics leaves the rest of the batch empty.
                max_time_img=float("inf"),
            )
        )

    def _split(self, outputs: Any) -> tuple[Any, Any]:
        """The rows for NMS and, of segmentation weights, the mask prototypes."""
        if self.info.task != "segment":
            return _first(outputs), None
        return outputs[0], outputs[0][1] if isinstance(outputs[0], tuple) else outputs[1]

    def _to_detections(
        self, rows: Any, image: Letterboxed, input_shape: tuple[int, ...], prototypes: Any, index: int
    ) -> Detections:
        width, height = image.decoded_size_wh or image.original_size_wh
        if prototypes is not None and len(rows):
            # Ultralytics drops a segment whose mask is empty, and its box with it.
            masks = ops.process_mask(prototypes[index], rows[:, 6:], rows[:, :4], input_shape, upsample=True)
            rows = rows[masks.amax((-2, -1)) > 0]
        if isinstance(rows, torch.Tensor):
            rows = rows.float().cpu().numpy()
        rotated = self.info.task == "obb"
        boxes = ops.scale_boxes(input_shape, rows[:, :4].copy(), (height, width), xywh=rotated)
        if (width, height) != image.original_size_wh:
            boxes *= np.tile(np.divide(image.original_size_wh, (width, height)), 2).astype(np.float32)
        if rotated:
            boxes = np.concatenate([boxes, rows[:, -1:]], axis=1)
        return Detections(boxes, scores=rows[:, 4].copy(), class_ids=rows[:, 5].astype(np.int64), rotated=rotated)


def _info_of(path: Path, fingerprint: str, model: Model, image_size: int | None) -> WeightsInfo:
    return WeightsInfo(
        name=path.name,
        task=model.task,
        class_names=model.class_names,
        fingerprint=fingerprint,
        image_size=(
            whole_strides(image_size, model.stride) if image_size and model.shape_is_free else model.image_size
        ),
        remark=". ".join(filter(None, [model.remark, nameless(path.name, model.class_names)])) or None,
        has_nms=model.remark is not None,
    )


def _first(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def failure(error: Exception, device: str, what: str = "loaded") -> str:
    """What kept weights from being loaded or run on a device, as far as it is known, and what to do."""
    said = first_line(error)
    causes = [cause for cause in (error, error.__cause__) if cause is not None]
    if any(is_out_of_memory(cause) for cause in causes):
        return (
            f"don't fit into the memory of {device}: lower MODEL_IMAGE_SIZE, BATCH_SIZE or MAX_MODELS, or set another "
            "DEVICE"
        )
    versions = {"ultralytics": ultralytics.__version__, "onnxruntime": onnxruntime.__version__}
    for cause, (pattern, remedy) in product(causes, _REMEDIES.items()):
        if found := re.search(pattern, str(cause), re.DOTALL):
            return remedy.format(*found.groups(), **versions)
    if any(isinstance(cause, AttributeError) and _is_of_libraries(cause) for cause in causes):
        return _MISFIT.format(**versions)
    return f"can't be {what}: {said} ({type(error).__name__}); see whether Ultralytics takes them: YOLO(file).predict()"


def _is_of_libraries(error: BaseException) -> bool:
    """Returns True if it was raised within Ultralytics or torch, not by our own code."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).split(".")[0] in {"ultralytics", "torch"}


def _channels(prototypes: Any) -> int:
    """How many mask prototypes there are, and so how many numbers of a box say which of them are its own."""
    return 0 if prototypes is None else int(prototypes.shape[1])


def is_out_of_memory(error: BaseException) -> bool:
    """Does this error of torch or ONNX Runtime say that there is not enough memory?"""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def pick_device(device: str) -> str:
    """The device that `auto` means here: a GPU where there is one."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"
