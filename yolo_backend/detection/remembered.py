"""What was detected in images, so that the same image is not detected twice."""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections

_FLOOR_SCORE = 0.1
# The lowest score that was asked for, width, height, columns, bytes about extras, rows. Then come the rows, the extras,
# and what is about the extras.
_HEAD = struct.Struct("<dIIHHI")
_AboutExtra = tuple[str, str, tuple[int, ...]]  # its name, what its numbers are, and its shape
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
        self._packed: LRUCache[tuple[bytes, str], bytes] = LRUCache(max_bytes, _size_of)
        self._lock = threading.Lock()

    def floor(self, threshold: float) -> float:
        """The score to ask the model for, so that what is found serves higher thresholds, too."""
        # Only a box of a higher score removes another one, and the best are kept. So lower boxes change nothing above.
        return min(threshold, _FLOOR_SCORE) if self._packed.maxsize else threshold

    def find(self, digest: bytes, thresholds: Mapping[str, float]) -> ImageDetections | None:
        """All that was detected in an image above these thresholds, by fingerprint; None if some of it is missing.

        Detections below a threshold may be among them.
        """
        detections = {}
        size_wh = (0, 0)
        for fingerprint, threshold in thresholds.items():
            with self._lock:
                packed = self._packed.get((digest, fingerprint))
            if packed is None or _HEAD.unpack_from(packed)[0] > threshold:
                return None
            detections[fingerprint], size_wh = _unpack(packed)
        return ImageDetections(detections, size_wh)

    def keep(self, digest: bytes, fingerprint: str, floor: float, found: Detections, size_wh: tuple[int, int]) -> None:
        """Remember what these weights found in an image down to the score `floor`."""
        packed = _pack(floor, found, size_wh)
        if _size_of(packed) <= self._packed.maxsize:
            with self._lock:
                self._packed[digest, fingerprint] = packed


def _size_of(packed: bytes) -> int:
    return _ENTRY_BYTES + len(packed)


def _pack(floor: float, found: Detections, size_wh: tuple[int, int]) -> bytes:
    # As float32, which holds each class's number exactly.
    rows = np.column_stack([found.boxes, found.scores, found.class_ids]).astype(np.float32)
    extras = [(name, values.dtype.str, values.shape) for name, values in found.extras.items()]
    about = msgspec.msgpack.encode(extras) if extras else b""
    head = _HEAD.pack(floor, *size_wh, rows.shape[1], len(about), len(rows))
    return b"".join([head, rows.tobytes(), *(values.tobytes() for values in found.extras.values()), about])


def _unpack(packed: bytes) -> tuple[Detections, tuple[int, int]]:
    _, width, height, columns, about_bytes, count = _HEAD.unpack_from(packed)
    rows: NDArray[np.float32] = np.ndarray((count, columns), np.float32, packed, _HEAD.size)
    box_numbers = columns - 2
    detections = Detections(
        boxes=rows[:, :box_numbers],
        scores=rows[:, box_numbers],
        class_ids=rows[:, box_numbers + 1].astype(np.int64),
        rotated=box_numbers == 5,
        extras=_unpack_extras(packed, _HEAD.size + rows.nbytes, about_bytes) if about_bytes else {},
    )
    return detections, (width, height)


def _unpack_extras(packed: bytes, start: int, about_bytes: int) -> dict[str, NDArray[Any]]:
    extras: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in msgspec.msgpack.decode(packed[-about_bytes:], type=list[_AboutExtra]):
        extras[name] = np.ndarray(shape, dtype, packed, start)
        start += extras[name].nbytes
    return extras
