"""One model on one device, and the head for its kind: pixels in, what was found out, equal to Ultralytics' own."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections, Letterboxed, Runtime, WeightsInfo
from yolo_backend.detection.explaining import failure, is_out_of_memory
from yolo_backend.detection.families import Wish, open_weights
from yolo_backend.detection.heads import HEADS, HeadOptions
from yolo_backend.detection.metadata import nameless
from yolo_backend.detection.models import Model
from yolo_backend.detection.networks import whole_strides
from yolo_backend.detection.weights import WeightsError, WeightsFileError, file_fingerprint, read_thresholds
from yolo_backend.messages import first_line
from yolo_backend.settings import Settings

log = logging.getLogger(__name__)


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
        thresholds: Mapping[str, float] | None = None,
        tell: Callable[[WeightsInfo], None] | None = None,
    ) -> None:
        """Load the weights, as an export where there is a folder for it. Raises WeightsError.

        With a `fingerprint` they are those weights, or it raises WeightsReplacedError; an export of them will do where
        the file was replaced. So their `thresholds` come along, which else are read from the file. While an export is
        made, which takes long, `tell` knows already what there is to know.
        """
        fingerprint = fingerprint or file_fingerprint(path)
        thresholds = read_thresholds(path) if thresholds is None else thresholds
        device = pick_device(device)
        wish = Wish(fingerprint, engine, device, export_folder, max_detections)

        def told(model: Model) -> None:
            if tell:
                tell(_info_of(path, fingerprint, thresholds, model, image_size))

        try:
            opened = open_weights(path, wish, told)
        except WeightsFileError as error:
            raise WeightsError(f"{error} ({path})") from None
        except WeightsError:
            raise
        except Exception as error:
            raise WeightsError(f"Weights {path.name} {failure(error, device)} ({path})") from error
        self._model, self._why = opened.model, opened.why
        model = self._model
        self.info = _info_of(path, fingerprint, thresholds, model, image_size)
        size = self.info.image_size
        self.runtime = Runtime(str(model.device), model.engine, model.streams * self._batch_size(size), opened.fallback)
        self.streams = model.streams
        self.batch_size = self._batch_size(size)
        options = HeadOptions(
            weights_name=path.name,
            class_count=len(model.class_names),
            end2end=model.end2end,
            is_on_cpu=model.device.type == "cpu",
            image_size=size,
            stride=model.stride,
            shape_is_free=model.shape_is_free,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            points_shape=model.points_shape,
        )
        self._head = HEADS[model.kind](options)
        try:
            self._warm_up(size)
        except WeightsFileError as error:
            raise WeightsError(f"{error} ({path})") from None
        if opened.fallback:
            log.warning("%s runs in torch, because %s", path.name, opened.fallback)

    @classmethod
    def as_set(cls, path: Path, settings: Settings, **known: Any) -> Engine:
        """Load the weights in the runtime, and with the options, of the settings; `known` are other arguments."""
        return cls(
            path,
            device=settings.device,
            engine=settings.engine,
            export_folder=settings.model_dir / "exports",
            image_size=settings.model_image_size,
            iou_threshold=settings.model_iou_threshold,
            max_detections=settings.model_max_detections,
            **known,
        )

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
                self._head.check(raw)
                self._head.read(raw, [nothing], 0.5)
        except WeightsFileError:
            raise
        except Exception as error:
            raise WeightsFileError(f"Weights {self.info.name} {failure(error, self.runtime.device, 'run')}") from error

    def letterbox(self, image: NDArray[np.uint8], original_size_wh: tuple[int, int] | None = None) -> Letterboxed:
        """An RGB image as the model sees it; the shape follows from the image alone.

        An image that was decoded at a reduced scale comes with the size that it has; boxes are given in that.
        """
        size_wh = (image.shape[1], image.shape[0])
        return Letterboxed(self._head.prepare(image), original_size_wh or size_wh, size_wh)

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
            return self._head.read(raw, batch, score_threshold)


def _info_of(
    path: Path, fingerprint: str, thresholds: Mapping[str, float], model: Model, image_size: int | None
) -> WeightsInfo:
    return WeightsInfo(
        name=path.name,
        kind=model.kind,
        class_names=model.class_names,
        fingerprint=fingerprint,
        image_size=(
            whole_strides(image_size, model.stride) if image_size and model.shape_is_free else model.image_size
        ),
        remark=". ".join(filter(None, [model.remark, nameless(path.name, model.class_names)])) or None,
        has_nms=model.remark is not None,
        has_costly_boxes=HEADS[model.kind].has_costly_boxes,
        thresholds=thresholds,
        points=model.points_shape[0] if model.points_shape else 0,
    )


def pick_device(device: str) -> str:
    """The device that `auto` means here: a GPU where there is one."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"
