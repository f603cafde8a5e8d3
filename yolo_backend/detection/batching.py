"""One thread for each model: it loads the model, forms batches of one shape, people first, and answers futures."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from yolo_backend import metrics
from yolo_backend.detection.detections import Detections, Letterboxed, WeightsInfo
from yolo_backend.detection.weights import WeightsError

log = logging.getLogger(__name__)

PERSON, BULK = 0, 1  # who waits; a person goes first
_RETRY_AFTER_S = 20.0
_FAILURES_KEPT = 100


class WeightsLoadingError(Exception):
    """The weights are being read; ask again in a moment."""


class DetectorClosedError(Exception):
    """The model was put away to make room for another one."""


class Detecting(Protocol):
    """What the detector's thread needs of an engine."""

    info: WeightsInfo

    def letterbox(self, image: NDArray[np.uint8]) -> Letterboxed: ...

    def detect(self, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]: ...


@dataclass(order=True)
class _Job:
    priority: int
    number: int
    image: Letterboxed = field(compare=False)
    score_threshold: float = field(compare=False)
    future: Future[Detections] = field(compare=False)

    def is_like(self, other: _Job) -> bool:
        """May it share a batch? Bulk work doesn't make a person's batch longer."""
        return self.priority == other.priority and self.image.pixels.shape == other.image.pixels.shape


class Detector:
    """A model and its thread. Futures are always resolved: with detections, or with the error that was met."""

    def __init__(self, name: str, load: Callable[[], Detecting], batch_size: int) -> None:
        self._name = name
        self._load = load
        self._batch_size = batch_size
        self._jobs: list[_Job] = []
        self._numbers = itertools.count()
        self._wakeup = threading.Condition()
        self._closed = False
        self._failed_at: float | None = None
        self._engine: Future[Detecting] = Future()
        threading.Thread(target=self._run, name=f"detector {name}", daemon=True).start()

    @property
    def engine(self) -> Future[Detecting]:
        """The loaded model, or the WeightsError that it met."""
        return self._engine

    def is_loaded(self) -> bool:
        """Is the model in memory?"""
        return self._engine.done() and self._failed_at is None

    def has_failed(self) -> bool:
        """Could the weights not be loaded?"""
        return self._failed_at is not None

    def is_stale(self) -> bool:
        """Did loading fail a while ago? Then it is worth another try: the file may be there by now."""
        return self._failed_at is not None and time.monotonic() - self._failed_at > _RETRY_AFTER_S

    def submit(self, image: Letterboxed, score_threshold: float, priority: int) -> Future[Detections]:
        """Queue an image. Raises DetectorClosedError."""
        future: Future[Detections] = Future()
        with self._wakeup:
            if self._closed:
                raise DetectorClosedError(self._name)
            heapq.heappush(self._jobs, _Job(priority, next(self._numbers), image, score_threshold, future))
            self._wakeup.notify()
        return future

    def close(self) -> None:
        """Take no more images; the thread finishes those it has and frees the model."""
        with self._wakeup:
            self._closed = True
            self._wakeup.notify()

    def _run(self) -> None:
        try:
            engine = self._load()
        except BaseException as error:
            failure = error if isinstance(error, WeightsError) else WeightsError(f"Weights {self._name}: {error}")
            log.error("%s", failure, exc_info=not isinstance(error, WeightsError))
            self.close()
            self._failed_at = time.monotonic()
            self._engine.set_exception(failure)
            for job in self._jobs:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(failure)
            return
        log.info("%s is ready", engine)
        self._engine.set_result(engine)
        while batch := self._next_batch():
            self._detect(engine, batch)
        log.info("%s is put away", self._name)

    def _next_batch(self) -> list[_Job]:
        """Wait for images; take the first and, in order, those like it. Empty once closed and done."""
        with self._wakeup:
            while True:
                batch: list[_Job] = []
                others: list[_Job] = []
                while self._jobs and len(batch) < self._batch_size:
                    job = heapq.heappop(self._jobs)
                    if batch and not job.is_like(batch[0]):
                        others.append(job)
                    elif job.future.set_running_or_notify_cancel():
                        batch.append(job)
                for job in others:
                    heapq.heappush(self._jobs, job)
                if batch or self._closed:
                    return batch
                self._wakeup.wait()

    def _detect(self, engine: Detecting, batch: list[_Job]) -> None:
        try:
            with metrics.DETECT_SECONDS.time():
                found = engine.detect([job.image for job in batch], min(job.score_threshold for job in batch))
            answers = list(zip(batch, found, strict=True))
        except BaseException as error:  # whatever it is, the thread lives on, for somebody waits
            if len(batch) > 1:  # one image may be to blame: the others get their boxes
                log.warning("%s failed on %d images (%s): trying them one by one", self._name, len(batch), error)
                for job in batch:
                    self._detect(engine, [job])
                return
            log.exception("%s failed on an image", self._name)
            batch[0].future.set_exception(error)
            return
        metrics.BATCH_SIZE.observe(len(batch))
        for job, detections in answers:
            job.future.set_result(detections)


class ModelPool:
    """The models in memory, a bounded number; what is known of weights is kept after their model is put away."""

    def __init__(self, load: Callable[[str], Detecting], *, max_models: int, batch_size: int) -> None:
        self._load = load
        self._max_models = max_models
        self._batch_size = batch_size
        self._detectors: OrderedDict[str, Detector] = OrderedDict()
        self._infos: dict[str, WeightsInfo] = {}
        self._lock = threading.Lock()

    def info(self, name: str) -> WeightsInfo:
        """What is known of these weights, at once; starts reading them if need be.

        Raises WeightsLoadingError while they are read and WeightsError where that failed.
        """
        with self._lock:
            known = self._infos.get(name)
        if known:
            return known
        if not self._detector(name).engine.done():
            raise WeightsLoadingError(f"Loading {name}, try again")
        return self.wait_for_info(name, timeout_s=0)

    def wait_for_info(self, name: str, timeout_s: float | None) -> WeightsInfo:
        """As `info`, but waits until the weights are read. Raises WeightsLoadingError when the time is up."""
        with self._lock:
            known = self._infos.get(name)
        return known or self._engine(name, timeout_s).info

    def load(self, name: str) -> None:
        """Wait until the model is in memory. Raises WeightsError."""
        self._engine(name, None)

    def letterbox(self, name: str, image: NDArray[np.uint8]) -> Letterboxed:
        """The image as these weights see it."""
        return self._engine(name, None).letterbox(image)

    def detect(self, name: str, image: Letterboxed, score_threshold: float, priority: int) -> Detections:
        """Wait for the boxes of a letterboxed image; a model that is put away meanwhile is loaded again."""
        while True:
            try:
                return self._detector(name).submit(image, score_threshold, priority).result()
            except DetectorClosedError:
                self._engine(name, None)

    def close(self) -> None:
        """Put all models away, after the images they have."""
        with self._lock:
            for detector in self._detectors.values():
                detector.close()
            self._detectors.clear()

    def _engine(self, name: str, timeout_s: float | None) -> Detecting:
        try:
            engine = self._detector(name).engine.result(timeout_s)
        except TimeoutError:
            raise WeightsLoadingError(f"Loading {name}, try again") from None
        finally:
            with self._lock:
                self._put_away_others()
        with self._lock:
            self._infos[name] = engine.info
        return engine

    def _detector(self, name: str) -> Detector:
        with self._lock:
            detector = self._detectors.get(name)
            if detector is not None and detector.is_stale():
                detector = None
            if detector is None:
                detector = self._detectors[name] = Detector(name, lambda: self._load(name), self._batch_size)
            self._detectors.move_to_end(name)
            return detector

    def _put_away_others(self) -> None:
        """Keep the models used last; and of the weights that couldn't be had, a bounded memory."""
        for state, kept in ((Detector.is_loaded, self._max_models), (Detector.has_failed, _FAILURES_KEPT)):
            names = [name for name, detector in self._detectors.items() if state(detector)]
            for name in names[: max(0, len(names) - kept)]:
                self._detectors.pop(name).close()
