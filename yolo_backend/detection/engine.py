"""One model on one device: letterboxed pixels in, boxes out, equal to Ultralytics' own."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  Ultralytics' NMS is torchvision's only where this is imported
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox
from ultralytics.utils import nms, ops
from ultralytics.utils.checks import check_imgsz

from yolo_backend.detection.detections import Detections, Letterboxed, WeightsInfo
from yolo_backend.detection.weights import WeightsError, file_fingerprint
from yolo_backend.messages import first_line

_TASKS = ("detect", "segment", "pose", "obb")
# Of torch (CPU on Linux and Windows, CUDA, MPS, cuBLAS, cuDNN) and of ONNX Runtime, which has no type for it.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "alloc_failed", "bad_alloc")


class Engine:
    """A model, ready to detect. Used by one thread only; `letterbox` alone may be called from any."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        image_size: int | None = None,
        iou_threshold: float = 0.7,
        max_detections: int = 300,
    ) -> None:
        """Load the weights. Raises WeightsError for a file that isn't a detector."""
        self.fingerprint = file_fingerprint(path)
        try:
            self._load(path, device)
        except WeightsError:
            raise
        except Exception as error:
            raise WeightsError(f"Weights {path.name} can't be loaded: {first_line(error)}") from error
        self._iou_threshold = iou_threshold
        self._max_detections = max_detections
        if self._model.format == "pt" and self._model.end2end:
            self._model.model.set_head_attr(max_det=max(max_detections, 300), agnostic_nms=False)
        self._shape_is_free = self._model.format == "pt" or bool(getattr(self._model, "dynamic", False))
        own_size = getattr(self._model, "imgsz", None) or self._trained_size
        size = image_size if image_size and self._shape_is_free else own_size
        height, width = check_imgsz(size, stride=self._model.stride, min_dim=2)
        self.info = WeightsInfo(
            name=path.name,
            task=self._task,
            class_names={int(number): str(name) for number, name in self._model.names.items()},
            fingerprint=self.fingerprint,
            image_size=(int(height), int(width)),
            device=str(self._device),
            engine="torch" if self._model.format == "pt" else str(self._model.format),
        )
        self._letterbox = LetterBox(self.info.image_size, auto=self._shape_is_free, stride=self._model.stride)

    def _load(self, path: Path, device: str) -> None:
        yolo = YOLO(path, task=None)
        if yolo.task not in _TASKS:
            raise WeightsError(
                f"Weights {path.name} are for the task {yolo.task}: expected one that finds boxes ({', '.join(_TASKS)})"
            )
        self._task = str(yolo.task)
        overrides = {"verbose": False, "save": False, "device": pick_device(device)}
        # Ultralytics' own predictor sets the model up, so that fusing and heads are those of YOLO(...).predict.
        predictor = yolo.task_map[self._task]["predictor"](overrides={**yolo.overrides, **overrides})
        predictor.setup_model(model=yolo.model, verbose=False)
        self._model: Any = predictor.model
        self._device = predictor.device
        self._trained_size = yolo.overrides.get("imgsz", 640)
        if int(getattr(self._model, "channels", 3)) != 3:
            raise WeightsError(f"Weights {path.name} want {self._model.channels} channels: expected 3 (RGB)")
        if self._task == "detect" and type(yolo).__name__ == "RTDETR":
            raise WeightsError(f"Weights {path.name} are an RT-DETR: expected a YOLO")

    def __str__(self) -> str:
        return f"{self.info.name} on {self._device} ({self._model.format})"

    @property
    def device(self) -> str:
        """The device that runs the model."""
        return str(self._device)

    def letterbox(self, image: NDArray[np.uint8]) -> Letterboxed:
        """Scale and pad an RGB image to the model's input; the shape follows from the image alone."""
        pixels: NDArray[np.uint8] = self._letterbox(image=image)
        return Letterboxed(np.ascontiguousarray(pixels), (image.shape[1], image.shape[0]))

    def detect(self, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        """The detections with a score above the threshold, one entry per image; all of one shape.

        Raises MemoryError for a batch that doesn't fit into the device's memory, which is tidied up then.
        """
        try:
            return self._detect(batch, score_threshold)
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
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()

    def _detect(self, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        with torch.inference_mode():
            stacked = torch.from_numpy(np.stack([image.pixels for image in batch])).to(self._device)
            pixels = stacked.permute(0, 3, 1, 2).contiguous()
            pixels = (pixels.half() if self._model.fp16 else pixels.float()) / 255
            outputs, prototypes = self._split(self._model(pixels))
            found = nms.non_max_suppression(
                outputs,
                score_threshold,
                self._iou_threshold,
                max_det=self._max_detections,
                nc=0 if self._task == "detect" else len(self.info.class_names),
                end2end=bool(getattr(self._model, "end2end", False)),
                rotated=self._task == "obb",
                # Past its time limit Ultralytics leaves the rest of the batch empty.
                max_time_img=float("inf"),
            )
            if len(found) != len(batch):
                raise RuntimeError(f"the model gave {len(found)} outputs for {len(batch)} images")
            input_shape = tuple(pixels.shape[2:])
            return [
                self._to_detections(rows, image.original_size_wh, input_shape, prototypes, index)
                for index, (rows, image) in enumerate(zip(found, batch, strict=True))
            ]

    def _split(self, outputs: Any) -> tuple[Any, Any]:
        """The rows for NMS and, of segmentation weights, the mask prototypes."""
        if self._task != "segment":
            return outputs, None
        return outputs[0], outputs[0][1] if isinstance(outputs[0], tuple) else outputs[1]

    def _to_detections(
        self, rows: torch.Tensor, size_wh: tuple[int, int], input_shape: tuple[int, ...], prototypes: Any, index: int
    ) -> Detections:
        original_shape = (size_wh[1], size_wh[0])
        if prototypes is not None and len(rows):
            # Ultralytics drops a segment whose mask is empty, and its box with it.
            masks = ops.process_mask(prototypes[index], rows[:, 6:], rows[:, :4], input_shape, upsample=True)
            rows = rows[masks.amax((-2, -1)) > 0]
        rotated = self._task == "obb"
        boxes = ops.scale_boxes(input_shape, rows[:, :4].clone(), original_shape, xywh=rotated)
        if rotated:
            boxes = torch.cat([boxes, rows[:, -1:]], dim=1)
        return Detections(
            boxes=boxes.float().cpu().numpy(),
            scores=rows[:, 4].float().cpu().numpy(),
            class_ids=rows[:, 5].long().cpu().numpy(),
            rotated=rotated,
        )


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
