"""The real backend, which also tells its log of each batch, and what came before each lone image.

Run as a script, it serves as `yolo-backend serve` does, with the same flags.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.bulk import backend_of
from tests.harness.stack import BackendServer
from yolo_backend.detection import detector, engine, pool
from yolo_backend.detection.detections import Detections, Letterboxed
from yolo_backend.server.startup import serve

log = logging.getLogger("tests.order")


@dataclass
class Arrival:
    """A lone image's coming into the queue: the bulk images there, and the batches that had ended by then.

    `passed_by` are bulk images that were taken although it was there.
    """

    at_s: float
    queued: int
    batches_ended: int
    passed_by: int = 0


class _Order:
    """What came before what. The lock makes coming into the queue, and a batch's beginning and end, single events."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches_ended = 0
        self.arrivals: dict[int, Arrival] = {}


_order = _Order()


class _RecordingQueue(list[Any]):
    """A detector's list of images, which it changes under its lock: so what is there when one is taken is certain."""

    def remove(self, queued: Any) -> None:
        super().remove(queued)
        if queued.priority == detector.BULK:
            for other in self:
                if arrival := _order.arrivals.get(id(other.image)):
                    arrival.passed_by += 1


class RecordingDetector(detector.Detector):
    """The real detector, whose lone images are noted as they come."""

    def __init__(self, name: str, load: Callable[[detector.Detector], detector.Detecting], **options: Any) -> None:
        super().__init__(name, load, **options)
        with self._wakeup:
            self._queue = _RecordingQueue(self._queue)

    def submit(
        self,
        image: Letterboxed,
        score_threshold: float,
        priority: int,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> Future[Detections]:
        with _order.lock:
            if priority == detector.PERSON:
                _order.arrivals[id(image)] = Arrival(time.monotonic(), len(self._queue), _order.batches_ended)
            return super().submit(image, score_threshold, priority, is_abandoned)


class RecordingEngine(engine.Engine):
    """The real engine, whose batches are counted."""

    def detect(
        self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool = False
    ) -> list[Detections]:
        began_at = time.monotonic()
        with _order.lock:
            for image in batch:
                if arrival := _order.arrivals.pop(id(image), None):
                    behind = _order.batches_ended - arrival.batches_ended
                    log.info(
                        "lone image: %d batches behind, %d queued, %d passed by, %.4f s",
                        behind, arrival.queued, arrival.passed_by, began_at - arrival.at_s,
                    )  # fmt: skip
        try:
            return super().detect(batch, score_threshold, for_person=for_person)
        finally:
            with _order.lock:
                _order.batches_ended += 1
            log.info("batch: %d images, %.4f s", len(batch), time.monotonic() - began_at)


@dataclass(frozen=True)
class LoneImage:
    """How long a lone image waited in the queue: in batches, those in the model included, and in seconds.

    Of the bulk images that were `queued` when it came, none should have `passed_by`.
    """

    batches_behind: int
    queued: int
    passed_by: int
    waited_s: float


@dataclass(frozen=True)
class Batch:
    """A batch in the model."""

    images: int
    took_s: float


def read_order(backend_log: Path) -> tuple[list[LoneImage], list[Batch]]:
    """The lone images and the batches that a recording backend told its log of."""
    text = backend_log.read_text(errors="replace")
    lone = re.findall(
        r"lone image: (\d+) batches behind, (\d+) queued, (\d+) passed by, ([\d.]+) s$", text, re.MULTILINE
    )
    batches = re.findall(r"batch: (\d+) images, ([\d.]+) s$", text, re.MULTILINE)
    return (
        [
            LoneImage(int(behind), int(queued), int(passed_by), float(waited_s))
            for behind, queued, passed_by, waited_s in lone
        ],
        [Batch(int(images), float(took_s)) for images, took_s in batches],
    )


def recording_backend_server(
    port: int, environment: Mapping[str, str], backend_log: Path
) -> AbstractContextManager[BackendServer]:
    """Start it under gunicorn, and stop it at the end. Raises StackError."""
    return backend_of("tests.harness.recording_backend", port, environment, backend_log)


def main() -> None:
    """Serve with the recording queue and engine."""
    setattr(pool, "Detector", RecordingDetector)  # noqa: B010  it is imported there
    engine.Engine = RecordingEngine  # type: ignore[misc]
    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
