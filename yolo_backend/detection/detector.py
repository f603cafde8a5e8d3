"""A model's threads: they load it, form batches of one shape, people first, and answer futures."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from yolo_backend import metrics
from yolo_backend.cores import keep_to_core
from yolo_backend.detection.detections import Detections, Letterboxed, Runtime, WeightsInfo
from yolo_backend.detection.health import ModelHealth
from yolo_backend.detection.weights import WeightsError
from yolo_backend.messages import first_line

log = logging.getLogger(__name__)

PERSON, BULK = 0, 1  # who waits for an image; a person goes first
_RETRY_AFTER_S = 20.0
_LOOK_EVERY_S = 1.0
LOOK_FOR_CLIENT_S = 0.25
LOAD_TIMEOUT_S = 600.0
_GOOD_BATCHES = 20  # then a larger one is tried again


class DetectorClosedError(Exception):
    """This detector takes no more images. They aren't at fault, and another one will take them."""


class AbandonedError(Exception):
    """Nobody waits for these boxes any more."""


class DetectorError(Exception):
    """The model failed, whatever the image; the message says what to do."""


class DetectorHungError(DetectorError):
    """The model didn't come back from a batch."""


class DetectorMemoryError(DetectorError):
    """Not even an image alone fits into memory."""


class _ReplacedError(Exception):
    """A batch that hung has ended after all. Its images were answered, and another detector has replaced this one."""


class Detecting(Protocol):
    """What the detector's threads need of an engine: `streams` of them call `detect` at once, best by `batch_size`."""

    info: WeightsInfo
    runtime: Runtime
    streams: int
    batch_size: int

    def letterbox(self, image: NDArray[np.uint8], original_size_wh: tuple[int, int] | None = None) -> Letterboxed: ...

    def detect(
        self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool = False
    ) -> list[Detections]:
        """Raises MemoryError for a batch that doesn't fit: a smaller one may."""


@dataclass(order=True)
class _QueuedImage:
    priority: int
    number: int
    image: Letterboxed = field(compare=False)
    score_threshold: float = field(compare=False)
    future: Future[Detections] = field(compare=False)
    is_abandoned: Callable[[], bool] | None = field(compare=False)
    queued_at: float = field(compare=False, default_factory=time.monotonic)

    def is_like(self, other: _QueuedImage) -> bool:
        """Returns True if both may share a batch. Bulk work doesn't make a person's batch longer."""
        return self.priority == other.priority and self.image.pixels.shape == other.image.pixels.shape

    def is_gone(self) -> bool:
        """Returns True if the client has gone, and False if that isn't known."""
        return is_gone(self.is_abandoned)


def is_gone(is_abandoned: Callable[[], bool] | None) -> bool:
    try:
        return is_abandoned is not None and is_abandoned()
    except Exception:
        log.exception("It can't be told whether somebody waits for an image")
        return False


@dataclass(eq=False)
class _Stream:
    """What one thread of a detector is doing: its batch, and since when that is in the model."""

    batch: list[_QueuedImage] = field(default_factory=list)
    busy_since: float | None = None
    given_up: bool = False

    def is_hanging(self, timeout_s: float) -> bool:
        """Is the batch in the model for too long, and not given up yet?"""
        busy_since = self.busy_since
        return busy_since is not None and not self.given_up and time.monotonic() - busy_since > timeout_s


class Detector:
    """A model and its threads. Futures are always resolved: with detections, or with the error that was met.

    A batch that takes longer than `timeout_s` hangs: its images fail, its thread is left to itself, and the detector
    takes no more images. The threads that wait in `wait_for` look for that. `batch_size` of None is the engine's own.
    `load` says `begins` when its turn has come, and may `tell` what there is to know before it has the model.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[Detector], Detecting],
        *,
        batch_size: int | None,
        timeout_s: float,
        health: ModelHealth,
    ) -> None:
        self._name = name
        self._load = load
        self._batch_size = batch_size or 0  # until the engine's own is known
        self._timeout_s = timeout_s
        self._health = health
        self._fitting_size = self._batch_size  # smaller, where a batch of this size didn't fit into memory
        self._good_batches = 0
        self._queue: list[_QueuedImage] = []
        self._streams: list[_Stream] = []
        self._numbers = itertools.count()
        self._wakeup = threading.Condition()
        self._closed = False
        self._failed_at: float | None = None
        self._began_at: float | None = None
        self._info: Future[WeightsInfo] = Future()
        self._engine: Future[Detecting] = Future()
        self._threads: list[threading.Thread] = []
        self._start(f"detector {name}", self._run)

    @property
    def info(self) -> Future[WeightsInfo]:
        """What there is to know of the weights, or the WeightsError that they met."""
        return self._info

    @property
    def engine(self) -> Future[Detecting]:
        """The loaded model, or the WeightsError that it met."""
        return self._engine

    def waits(self) -> None:
        """The next step of loading waits for its turn."""
        self._began_at = None

    def begins(self) -> None:
        """The next step of loading begins."""
        self._began_at = time.monotonic()

    def tell(self, info: WeightsInfo) -> None:
        """What the file says is known, if the model is not there yet."""
        if not self._info.done():
            self._info.set_result(info)

    def is_loaded(self) -> bool:
        """Returns True if the model is in memory, and not closed."""
        return self._engine.done() and not self._closed

    def has_failed(self) -> bool:
        """Returns True if the weights couldn't be loaded."""
        return self._failed_at is not None

    def is_stale(self) -> bool:
        """Returns True if it is time for a new one: it hung or died, or loading failed a while ago."""
        if self._failed_at is not None:
            return time.monotonic() - self._failed_at > _RETRY_AFTER_S
        return self._closed

    def is_loading_too_long(self) -> bool:
        """Returns True if loading takes so long that it will hardly ever end. Waiting for a turn doesn't count."""
        began_at = self._began_at
        return not self._engine.done() and began_at is not None and time.monotonic() - began_at > LOAD_TIMEOUT_S

    def is_hanging(self) -> bool:
        """Is a batch in the model for too long, and not given up yet?"""
        return any(stream.is_hanging(self._timeout_s) for stream in self._streams)

    def submit(
        self,
        image: Letterboxed,
        score_threshold: float,
        priority: int,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> Future[Detections]:
        """Queue an image. Raises DetectorClosedError."""
        future: Future[Detections] = Future()
        with self._wakeup:
            if self._closed:
                raise DetectorClosedError(self._name)
            self._queue.append(
                _QueuedImage(priority, next(self._numbers), image, score_threshold, future, is_abandoned)
            )
            self._wakeup.notify()
        return future

    def wait_for(self, future: Future[Detections], is_abandoned: Callable[[], bool] | None = None) -> Detections:
        """The boxes of a submitted image, or the error that it met; a hanging model is given up meanwhile.

        Raises AbandonedError soon after `is_abandoned` says so, also while the image is in the model.
        """
        look_every_s = min(_LOOK_EVERY_S if is_abandoned is None else LOOK_FOR_CLIENT_S, self._timeout_s / 4)
        while not future.done():
            try:
                return future.result(look_every_s)
            except TimeoutError:  # or the model's own
                self._give_up_hanging()
                if not future.done() and is_gone(is_abandoned):
                    self._take_out(future)
                    raise AbandonedError("nobody waits for it any more") from None
        return future.result()

    def _take_out(self, future: Future[Detections]) -> None:
        """Queue an image no longer; one that is in the model stays there."""
        future.cancel()
        with self._wakeup:
            self._queue = [queued for queued in self._queue if queued.future is not future]

    def close(self) -> None:
        """Take no more images; the threads finish those they have and free the model."""
        with self._wakeup:
            self._closed = True
            self._wakeup.notify_all()

    def join(self, ends_at: float) -> None:
        """After `close`: wait until the threads have ended, or until then."""
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _start(self, name: str, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _run(self) -> None:
        try:
            engine = self._load(self)
        except BaseException as error:
            failure = error if isinstance(error, WeightsError) else WeightsError(f"Weights {self._name}: {error}")
            log.error("%s", failure, exc_info=not isinstance(error, WeightsError))
            self._failed_at = time.monotonic()
            self._end(failure)
            if not self._info.done():
                self._info.set_exception(failure)
            self._engine.set_exception(failure)
            return
        log.info("%s is ready", engine)
        if engine.info.remark:
            log.warning("%s", engine.info.remark)
        self._batch_size = self._fitting_size = self._batch_size or engine.batch_size
        self._streams = [_Stream() for _ in range(engine.streams)]
        self.tell(engine.info)
        self._engine.set_result(engine)
        first, *others = self._streams
        for index, stream in enumerate(others, 1):
            self._start(f"detector {self._name} {index + 1}", self._work, engine, stream, index)
        self._work(engine, first, 0)

    def _work(self, engine: Detecting, stream: _Stream, index: int) -> None:
        """Serve batch after batch, until the detector is closed and nothing is queued."""
        keep_to_core(index, engine.streams)
        try:
            while self._take_batch(stream):
                self._serve(engine, stream)
        except _ReplacedError:
            log.warning("%s: the batch that hung has come to an end after all", self._name)
        except BaseException as error:  # a fault of ours; whatever it is, nobody should wait in vain
            log.exception("The detector of %s died", self._name)
            reason = f"The detector of {self._name} died ({first_line(error)}): see the backend's log"
            self._health.failed(reason)
            self._end(DetectorError(reason), stream)
        with self._wakeup:
            self._streams.remove(stream)
            if not self._streams:
                log.info("%s is put away", self._name)

    def _take_batch(self, stream: _Stream) -> list[_QueuedImage]:
        """Wait for images. Take the first one and, in order, those like it. Empty once closed and done."""
        while True:
            with self._wakeup:
                stream.batch = []
                self._wakeup.wait_for(lambda: self._queue or self._closed)
                queue = list(self._queue)
            if not queue:
                return []
            # Without the lock, because it calls others' code.
            gone = {queued.number for queued in queue if queued.is_gone()}
            with self._wakeup:
                # The queue as it is now: a person's image may have come, and another stream may have taken some.
                for queued in sorted(self._queue):
                    if len(stream.batch) == self._fitting_size:
                        break
                    if queued.number not in gone and stream.batch and not queued.is_like(stream.batch[0]):
                        continue
                    self._queue.remove(queued)
                    if not queued.future.set_running_or_notify_cancel():
                        continue
                    if queued.number in gone:
                        queued.future.set_exception(AbandonedError("nobody waits for it any more"))
                    else:
                        stream.batch.append(queued)
                if stream.batch:
                    break
        now = time.monotonic()
        for queued in stream.batch:
            metrics.QUEUE_SECONDS.observe(now - queued.queued_at)
        return stream.batch

    def _serve(self, engine: Detecting, stream: _Stream) -> None:
        """Answer all of a batch: in smaller ones if it doesn't fit into memory, one by one if it fails."""
        batch = stream.batch
        size = len(batch)
        rest = batch
        failures: list[tuple[_QueuedImage, Exception]] = []
        while rest:
            part = rest[:size]
            try:
                found = self._detect(engine, stream, part)
            except _ReplacedError:
                raise
            except BaseException as error:  # whatever it is, the thread goes on, because somebody waits
                if len(part) > 1:
                    size = self._smaller_size(len(part), error)
                    continue
                failures.append((part[0], self._failure(error, engine.runtime.device)))
            else:
                self._health.succeeded()
                for queued, detections in zip(part, found, strict=True):
                    queued.future.set_result(detections)
            rest = rest[size:]
        if len(failures) == len(batch):
            self._health.failed(first_line(failures[-1][1]))
        else:
            self._grow()
        for queued, failure in failures:
            queued.future.set_exception(failure)

    def _detect(self, engine: Detecting, stream: _Stream, part: list[_QueuedImage]) -> list[Detections]:
        """The detections of each image. Raises _ReplacedError if the batch was given up."""
        with self._watched(stream), metrics.DETECT_SECONDS.time(), metrics.MODEL_SECONDS.time():
            found = engine.detect(
                [queued.image for queued in part],
                min(queued.score_threshold for queued in part),
                for_person=part[0].priority == PERSON,
            )
        if len(found) != len(part):
            raise ValueError(f"{self._name} gave {len(found)} outputs for {len(part)} images")
        metrics.BATCH_SIZE.observe(len(part))
        return found

    @contextmanager
    def _watched(self, stream: _Stream) -> Iterator[None]:
        """What runs in here hangs if it takes too long. Raises _ReplacedError if it comes back all the same."""
        with self._wakeup:
            stream.busy_since = time.monotonic()
        try:
            yield
        finally:
            with self._wakeup:
                stream.busy_since = None
                if stream.given_up:
                    raise _ReplacedError

    def _give_up_hanging(self) -> None:
        """If a batch hangs, its images fail, and those in the queue go to another detector."""
        with self._wakeup:
            stream = next((stream for stream in self._streams if stream.is_hanging(self._timeout_s)), None)
            if stream is None:
                return
            is_first = not any(other.given_up for other in self._streams)
            self._closed = stream.given_up = True
            reason = f"{self._name} hung: a batch took longer than {self._timeout_s:g} s (DETECT_TIMEOUT_SECONDS)"
            if is_first:  # if several streams hang, it is one model that hung
                self._health.hung(reason)
        reason = self._health.given_up_reason() or f"{reason}: the model is loaded anew"
        log.error("%s", reason)
        self._end(DetectorHungError(reason), stream, DetectorClosedError(self._name))

    def _end(self, failure: Exception, stream: _Stream | None = None, of_queue: Exception | None = None) -> None:
        """Take no more images. Those of this stream without an answer fail, and so do those in the queue."""
        with self._wakeup:
            self._closed = True
            batch = stream.batch if stream else []
            queue, self._queue = self._queue, []
            self._wakeup.notify_all()
        for queued in batch:
            if not queued.future.done():
                queued.future.set_exception(failure)
        for queued in queue:
            if queued.future.set_running_or_notify_cancel():
                queued.future.set_exception(of_queue or failure)

    def _smaller_size(self, size: int, error: BaseException) -> int:
        """How many images to try together after so many failed."""
        if not isinstance(error, MemoryError):  # one image may be to blame: the others get their boxes
            log.warning("%s failed on %d images (%s): trying them one by one", self._name, size, error)
            return 1
        half = (size + 1) // 2
        self._fitting_size, self._good_batches = half, 0
        log.warning(
            "%s: %d images don't fit into memory (%s): going on with %d at a time for now",
            self._name, size, first_line(error), half,
        )  # fmt: skip
        return half

    def _grow(self) -> None:
        """After some good batches, larger ones are tried again: the memory may be free by now."""
        if self._fitting_size == self._batch_size:
            return
        self._good_batches += 1
        if self._good_batches >= _GOOD_BATCHES:
            self._fitting_size, self._good_batches = min(2 * self._fitting_size, self._batch_size), 0

    def _failure(self, error: BaseException, device: str) -> Exception:
        """The error for the thread that waits for an image."""
        if isinstance(error, MemoryError):
            return DetectorMemoryError(
                f"{self._name} has no memory for an image on {device} ({first_line(error)}): lower MODEL_IMAGE_SIZE, "
                "BATCH_SIZE or MAX_MODELS, or set another DEVICE"
            )
        log.error("%s failed on an image", self._name, exc_info=error)
        if isinstance(error, Exception):
            return error.with_traceback(None)  # its frames hold the model and the batch
        # Errors such as SystemExit would end the thread that waits.
        return DetectorError(f"{self._name} failed ({type(error).__name__}): see the backend's log")
