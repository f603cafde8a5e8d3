"""An engine that blocks, dies or runs out of memory when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections, Letterboxed, Runtime, WeightsInfo
from yolo_backend.detection.masks import Mask

WAIT_S = 5


# Images that the fake engine can't take, by their first pixel.
BROKEN, DEADLY, TWO_ANSWERS = 251, 252, 253


class Deadly(BaseException):
    """What `except Exception` doesn't catch."""


@dataclass(eq=False)
class FakeEngine:
    """Finds one box in each image, with the image's first pixel as its score; waits at its gate.

    An image whose number is in `gates` waits at that one. In its memory is room for so many images at a time. A mask is
    all of a box.
    """

    info: WeightsInfo = field(default_factory=lambda: info_of("fake.pt"))
    runtime: Runtime = field(default_factory=lambda: Runtime("cpu", "torch"))
    gate: threading.Event = field(default_factory=threading.Event)
    gates: dict[int, threading.Event] = field(default_factory=dict)
    started: threading.Event = field(default_factory=threading.Event)
    batches: list[list[int]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    for_person: list[bool] = field(default_factory=list)
    wants_masks: list[bool] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)
    room: int = 1000
    streams: int = 1
    batch_size: int = 4

    def letterbox(self, image: NDArray[np.uint8], original_size_wh: tuple[int, int] | None = None) -> Letterboxed:
        return Letterboxed(image, (image.shape[1], image.shape[0]))

    def detect(
        self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool = False
    ) -> list[Detections]:
        numbers = [int(image.pixels[0, 0, 0]) for image in batch]
        self.batches.append(numbers)
        self.shapes.append(np.stack([image.pixels for image in batch]).shape)
        self.thresholds.append(score_threshold)
        self.for_person.append(for_person)
        self.wants_masks += [image.wants_masks for image in batch]
        self.threads.add(threading.current_thread())
        self.started.set()
        gate = next((self.gates[number] for number in numbers if number in self.gates), self.gate)
        assert gate.wait(WAIT_S)
        if len(numbers) > self.room:
            raise MemoryError(f"{len(numbers)} images\nare too many")
        if BROKEN in numbers:
            raise RuntimeError("an error of several\nlines")
        if DEADLY in numbers:
            raise Deadly
        mask = Mask.of_bitmap(np.ones((1, 1), np.bool_))
        found = [
            replace(detections(number), masks=(mask,) if image.wants_masks else None)
            for number, image in zip(numbers, batch, strict=True)
        ]
        return found * 2 if TWO_ANSWERS in numbers else found


def info_of(name: str) -> WeightsInfo:
    return WeightsInfo(name, "detect", {0: "car"}, f"fingerprint of {name}", (32, 32))


def detections(number: int) -> Detections:
    return Detections(np.array([[0, 0, 1, 1]], np.float32), np.array([number], np.float32), np.array([0], np.int64))
