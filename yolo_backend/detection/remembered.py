"""What was detected in images, so that the same image is not detected twice."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.detection.masks import Mask

_FLOOR_SCORE = 0.1
# The lowest score that was asked for, width, height, columns, bytes about what follows the rows, rows. Then come the
# rows, the extras, the masks, and what is about the extras and the masks.
_HEAD = struct.Struct("<dIIHHI")
_AboutExtra = tuple[str, str, tuple[int, ...]]  # its name, what its numbers are, and its shape
_AboutMasks = tuple[str, int]  # what the numbers of their runs are, and how many bytes the masks take
_About = tuple[list[_AboutExtra], _AboutMasks | None]
_ENTRY_BYTES = 450  # of the objects of one entry, besides what is packed, as tracemalloc counts them


@dataclass(frozen=True)
class ImageDetections:
    """The detections of one image, by the fingerprint of the weights, and the size of the upright image."""

    detections: Mapping[str, Detections]
    size_wh: tuple[int, int]


class RememberedDetections:
    """Detections by the digest of an image's bytes and the fingerprint of the weights; those used last are kept.

    Safe to share between threads. All else that decides about boxes is the same for the whole process.
    """

    def __init__(self, max_bytes: float) -> None:
        # By digest, fingerprint, and whether there are masks.
        self._packed: LRUCache[tuple[bytes, str, bool], bytes] = LRUCache(max_bytes, _size_of)
        self._lock = threading.Lock()

    def floor(self, threshold: float) -> float:
        """The score to ask the model for, so that what is found serves higher thresholds, too."""
        # Only a box of a higher score removes another one, and the best are kept. So lower boxes change nothing above.
        return min(threshold, _FLOOR_SCORE) if self._packed.maxsize else threshold

    def find(
        self, digest: bytes, thresholds: Mapping[str, float], with_masks: Collection[str] = ()
    ) -> ImageDetections | None:
        """All that was detected in an image above these thresholds, by fingerprint; None if some of it is missing.

        Detections below a threshold may be among them. There are masks if the fingerprint is among those `with_masks`.
        """
        detections = {}
        size_wh = (0, 0)
        for fingerprint, threshold in thresholds.items():
            has_masks = fingerprint in with_masks
            packed = self._packed_above(threshold, digest, fingerprint, has_masks=has_masks)
            if packed is None and not has_masks:
                packed = self._packed_above(threshold, digest, fingerprint, has_masks=True)
            if packed is None:
                return None
            detections[fingerprint], size_wh = _unpack(packed, has_masks=has_masks)
        return ImageDetections(detections, size_wh)

    def _packed_above(self, threshold: float, digest: bytes, fingerprint: str, *, has_masks: bool) -> bytes | None:
        with self._lock:
            packed = self._packed.get((digest, fingerprint, has_masks))
        return None if packed is None or _HEAD.unpack_from(packed)[0] > threshold else packed

    def keep(self, digest: bytes, fingerprint: str, floor: float, found: Detections, size_wh: tuple[int, int]) -> None:
        """Remember what these weights found in an image down to the score `floor`."""
        packed = _pack(floor, found, size_wh)
        if _size_of(packed) <= self._packed.maxsize:
            with self._lock:
                self._packed[digest, fingerprint, found.masks is not None] = packed


def _size_of(packed: bytes) -> int:
    return _ENTRY_BYTES + len(packed)


def _pack(floor: float, found: Detections, size_wh: tuple[int, int]) -> bytes:
    # As float32, which holds each class's number exactly.
    rows = np.column_stack([found.boxes, found.scores, found.class_ids]).astype(np.float32)
    extras = [(name, values.dtype.str, values.shape) for name, values in found.extras.items()]
    masks, about_masks = (b"", None) if found.masks is None else _pack_masks(found.masks)
    about = msgspec.msgpack.encode((extras, about_masks)) if extras or about_masks else b""
    head = _HEAD.pack(floor, *size_wh, rows.shape[1], len(about), len(rows))
    return b"".join([head, rows.tobytes(), *(values.tobytes() for values in found.extras.values()), masks, about])


def _pack_masks(masks: Sequence[Mask]) -> tuple[bytes, _AboutMasks]:
    """Windows, numbers of runs, and runs, all deflated; masks that weights find have no polygons."""
    windows = np.array([(*mask.window_xywh, len(mask.runs)) for mask in masks], np.int32)
    runs = np.concatenate([mask.runs for mask in masks]) if masks else np.zeros(0, np.uint32)
    if not len(runs) or runs.max() <= np.iinfo(np.uint16).max:
        runs = runs.astype(np.uint16)
    deflated = zlib.compress(windows.tobytes() + runs.tobytes(), 1)
    return deflated, (runs.dtype.str, len(deflated))


def _unpack_masks(deflated: bytes, dtype: str, count: int) -> tuple[Mask, ...]:
    packed = zlib.decompress(deflated)
    windows: NDArray[np.int32] = np.ndarray((count, 5), np.int32, packed)
    runs = np.frombuffer(packed, dtype, offset=windows.nbytes).astype(np.uint32)
    each = np.split(runs, np.cumsum(windows[:-1, 4])) if count else []
    return tuple(
        Mask((left, top, width, height), own)
        for (left, top, width, height, _), own in zip(windows.tolist(), each, strict=True)
    )


def _unpack(packed: bytes, *, has_masks: bool) -> tuple[Detections, tuple[int, int]]:
    _, width, height, columns, about_bytes, count = _HEAD.unpack_from(packed)
    rows: NDArray[np.float32] = np.ndarray((count, columns), np.float32, packed, _HEAD.size)
    box_numbers = columns - 2
    extras: dict[str, NDArray[Any]] = {}
    masks = None
    if about_bytes:
        extras, masks = _unpack_others(packed, _HEAD.size + rows.nbytes, about_bytes, count, has_masks=has_masks)
    detections = Detections(
        boxes=rows[:, :box_numbers],
        scores=rows[:, box_numbers],
        class_ids=rows[:, box_numbers + 1].astype(np.int64),
        rotated=box_numbers == 5,
        extras=extras,
        masks=masks,
    )
    return detections, (width, height)


def _unpack_others(
    packed: bytes, start: int, about_bytes: int, count: int, *, has_masks: bool
) -> tuple[dict[str, NDArray[Any]], tuple[Mask, ...] | None]:
    """The extras, and with `has_masks` the masks."""
    about_extras, about_masks = msgspec.msgpack.decode(packed[-about_bytes:], type=_About)
    extras: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in about_extras:
        extras[name] = np.ndarray(shape, dtype, packed, start)
        start += extras[name].nbytes
    if about_masks is None or not has_masks:
        return extras, None
    dtype, size = about_masks
    return extras, _unpack_masks(packed[start : start + size], dtype, count)
