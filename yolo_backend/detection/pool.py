"""The models in memory: a bounded number, each known by the fingerprint of its weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections, Letterboxed, Runtime, WeightsInfo
from yolo_backend.detection.detector import (
    LOAD_TIMEOUT_S,
    LOOK_FOR_CLIENT_S,
    AbandonedError,
    Detecting,
    Detector,
    DetectorClosedError,
    DetectorError,
    DetectorHungError,
    is_gone,
)
from yolo_backend.detection.health import ModelHealth
from yolo_backend.detection.weights import WeightsError, WeightsFile, WeightsReplacedError

Tell = Callable[[WeightsInfo], None]

_FAILURES_KEPT = 100
_FORGOTTEN_KEPT = 1000
_READ_AT_ONCE = 2
_RETIRED_FOR_S = 20.0  # nobody needs replaced weights that weren't used for so long

_Known = TypeVar("_Known")


class WeightsLoadingError(Exception):
    """The weights are being read; ask again in a moment."""


@dataclass(eq=False)
class _PooledWeights:
    """The weights of one fingerprint: where they are, under which names they serve, and who needs them."""

    fingerprint: str
    health: ModelHealth
    files: dict[str, WeightsFile] = field(default_factory=dict)  # by the name under which they were seen
    serves_as: set[str] = field(default_factory=set)
    detector: Detector | None = None
    runtime: Runtime | None = None
    uses: int = 0
    used_at: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return next(iter(self.serves_as or self.files))

    @property
    def file(self) -> WeightsFile:
        """A file that hasn't changed since it was read, if there is one."""
        files = list(self.files.values())
        return next((file for file in files if file.is_unchanged()), files[0])

    def put_away(self) -> None:
        if self.detector:
            self.detector.close()
            self.detector = None


class ModelPool:
    """The models in memory: those that serve and were used last, and besides them new and replaced ones.

    `load` makes the model of a file, and may tell before what there is to know of it. `max_models` is for models that
    can be loaded again. The file of replaced weights is gone, so their model stays as long as somebody needs it.
    """

    def __init__(
        self,
        load: Callable[[WeightsFile, Tell], Detecting],
        *,
        max_models: int,
        batch_size: int | None,
        detect_timeout_s: float = 120,
    ) -> None:
        self._load = load
        self._max_models = max_models
        self._batch_size = batch_size
        self._detect_timeout_s = detect_timeout_s
        self._models: dict[str, _PooledWeights] = {}
        self._is_closed = False
        self._lock = threading.RLock()
        # Loading takes memory and all cores. So only two files are read at a time, and one is exported.
        self._reading, self._exporting = threading.BoundedSemaphore(_READ_AT_ONCE), threading.BoundedSemaphore(1)

    def know(self, file: WeightsFile) -> None:
        """Remember where the weights of this fingerprint are. Only known ones can be asked for."""
        with self._lock:
            model = self._models.setdefault(file.fingerprint, _PooledWeights(file.fingerprint, ModelHealth(file.name)))
            model.files[file.name] = file

    def serve(self, file: WeightsFile, before: WeightsFile | None = None) -> None:
        """From now on these weights serve under the file's name, in place of those `before`."""
        with self._lock:
            self.know(file)
            self._models[file.fingerprint].serves_as.add(file.name)
            if before and before.fingerprint != file.fingerprint:
                self.withdraw(before)
            self.put_away_unused()

    def withdraw(self, file: WeightsFile) -> None:
        """These weights don't serve under the file's name any more. Without any name, they go when nobody uses them."""
        with self._lock:
            if model := self._models.get(file.fingerprint):
                model.serves_as.discard(file.name)
                model.used_at = time.monotonic()  # a plan may have been made with them a moment ago

    def drop(self, fingerprint: str) -> None:
        """Put a model away at once if it was loaded to serve, and doesn't."""
        with self._lock:
            model = self._models.get(fingerprint)
            if model and not model.serves_as:
                model.put_away()

    def wait_for_info(self, fingerprint: str, timeout_s: float | None) -> WeightsInfo:
        """What there is to know of these weights; reads them if need be.

        Raises WeightsLoadingError when the time is up, and WeightsError if they can't be used.
        """
        return self._told(fingerprint, self._detector(fingerprint).info, timeout_s)

    def wait_for_runtime(self, fingerprint: str) -> Runtime:
        """Where their model runs, once it is loaded. Raises as `load` does."""
        return self._runtime(fingerprint) or self._loaded(fingerprint).runtime

    def runtimes(self) -> dict[str, Runtime]:
        """Where the models run, or ran last, if that is known; by the weights' fingerprint."""
        with self._lock:
            return {fingerprint: model.runtime for fingerprint, model in self._models.items() if model.runtime}

    def load(self, fingerprint: str, is_abandoned: Callable[[], bool] | None = None) -> None:
        """Wait until the model is in memory.

        Raises WeightsError, DetectorError if that takes too long, and AbandonedError if nobody waits for it.
        """
        self._loaded(fingerprint, is_abandoned)

    @contextmanager
    def using(self, fingerprints: Collection[str]) -> Iterator[None]:
        """Inside, these models are needed, even if other weights serve by now."""
        with self._lock:
            models = [self._models[each] for each in fingerprints if each in self._models]
            for model in models:
                model.uses += 1
        try:
            yield
        finally:
            with self._lock:
                for model in models:
                    model.uses -= 1
                    model.used_at = time.monotonic()

    def letterbox(
        self,
        fingerprint: str,
        image: NDArray[np.uint8],
        original_size_wh: tuple[int, int] | None = None,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> Letterboxed:
        """The image as these weights see it. `original_size_wh` is its size, if it was decoded smaller.

        Raises as `load` does: the model may have been put away meanwhile.
        """
        return self._loaded(fingerprint, is_abandoned).letterbox(image, original_size_wh)

    def detect(
        self,
        fingerprint: str,
        image: Letterboxed,
        score_threshold: float,
        priority: int,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> Detections:
        """Wait for what is found in a letterboxed image. Raises as `detect_all` does."""
        return self.detect_all(fingerprint, [image], score_threshold, priority, is_abandoned)[0]

    def detect_all(
        self,
        fingerprint: str,
        images: Sequence[Letterboxed],
        score_threshold: float,
        priority: int,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> list[Detections]:
        """Wait for what is found in letterboxed images. A model that is put away meanwhile is loaded again.

        `is_abandoned` is called while the images wait, and in the detector's thread when a batch is formed. If it
        returns True, AbandonedError is raised. Raises also WeightsError, DetectorError, and whatever the model raised
        for one of these images.
        """
        while True:
            futures: list[Future[Detections]] = []
            try:
                detector = self._detector(fingerprint)
                for image in images:
                    futures.append(detector.submit(image, score_threshold, priority, is_abandoned))
                return [detector.wait_for(future, is_abandoned) for future in futures]
            except DetectorClosedError:
                self._loaded(fingerprint, is_abandoned)
            finally:
                for future in futures:  # nobody waits for the others that are still in the queue
                    future.cancel()

    def down_reason(self, fingerprint: str) -> str | None:
        """Why these weights can't detect now, in one line for a person; None also where only a try can tell."""
        with self._lock:
            model = self._models.get(fingerprint)
            detector = model.detector if model else None
        if model is None or detector is None:
            return None
        if detector.is_loading_too_long():
            return loads_too_long(model.name)
        if reason := model.health.down_reason():
            return reason
        if detector.is_hanging():
            return (
                f"{model.name} hangs: a batch takes longer than {self._detect_timeout_s:g} s (DETECT_TIMEOUT_SECONDS)"
            )
        if model.health.has_hung() and not detector.engine.done():
            return f"{model.name} hung, and is being loaded anew: try again, and restart the backend if it stays so"
        if detector.has_failed() and not detector.is_stale():
            return str(detector.engine.exception())
        return None

    def put_away_unused(self) -> None:
        """Keep the models used last, a bounded number of failures, and replaced models that are needed."""
        now = time.monotonic()
        with self._lock:
            in_order = sorted(self._models.values(), key=lambda model: model.used_at)
            nobodys = [model for model in in_order if not model.serves_as and not model.uses]
            for model in nobodys:
                if now - model.used_at > _RETIRED_FOR_S:
                    model.put_away()
            for state, most in ((Detector.is_loaded, self._max_models), (Detector.has_failed, _FAILURES_KEPT)):
                those = [model for model in in_order if model.serves_as and model.detector and state(model.detector)]
                for model in those[: max(0, len(those) - most)]:
                    model.put_away()
            for model in [model for model in nobodys if model.detector is None][:-_FORGOTTEN_KEPT]:
                del self._models[model.fingerprint]

    def close(self, wait_s: float = 0.0) -> None:
        """Put all models away, after the images they have, and wait for that, but not longer than `wait_s`."""
        with self._lock:
            self._is_closed = True
            detectors = [model.detector for model in self._models.values() if model.detector]
        for detector in detectors:
            detector.close()
        ends_at = time.monotonic() + wait_s
        for detector in detectors:
            detector.join(ends_at)

    def _runtime(self, fingerprint: str) -> Runtime | None:
        with self._lock:
            model = self._models.get(fingerprint)
            return model.runtime if model else None

    def _loaded(self, fingerprint: str, is_abandoned: Callable[[], bool] | None = None) -> Detecting:
        while True:
            detector = self._detector(fingerprint)
            try:
                return self._told(fingerprint, detector.engine, LOOK_FOR_CLIENT_S)
            except WeightsLoadingError:
                if is_gone(is_abandoned):
                    raise AbandonedError("nobody waits for it any more") from None
                if detector.is_loading_too_long():
                    raise DetectorError(loads_too_long(self._name(fingerprint))) from None

    def _told(self, fingerprint: str, future: Future[_Known], timeout_s: float | None) -> _Known:
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise WeightsLoadingError(f"Loading {self._name(fingerprint)}, try again") from None
        except WeightsError as error:
            raise type(error)(str(error)) from None  # a new one each time, because a traceback grows with each raise

    def _name(self, fingerprint: str) -> str:
        with self._lock:
            model = self._models.get(fingerprint)
            return model.name if model else "weights that were replaced"

    def _detector(self, fingerprint: str) -> Detector:
        """The detector of these weights, a new one if need be. Raises DetectorHungError if the model hung too often."""
        with self._lock:
            model = self._models.get(fingerprint)
            if model is None:
                raise WeightsReplacedError
            model.used_at = time.monotonic()
            detector = model.detector
            if detector is None or detector.is_stale():
                detector = model.detector = self._new_detector(model)
                # This is called even if nobody waits any more; at once if it has come or failed already.
                detector.engine.add_done_callback(lambda engine: self._came(model, engine))
            return detector

    def _new_detector(self, model: _PooledWeights) -> Detector:
        if self._is_closed:
            raise AbandonedError("the backend is stopping")
        if reason := model.health.given_up_reason():
            raise DetectorHungError(reason)
        return Detector(
            model.name,
            lambda detector: self._load_in_turn(model, detector),
            batch_size=self._batch_size,
            timeout_s=self._detect_timeout_s,
            health=model.health,
        )

    def _load_in_turn(self, model: _PooledWeights, detector: Detector) -> Detecting:
        with ExitStack() as turn:
            _take_slot(self._reading, turn, detector)
            file = model.file

            def tell(info: WeightsInfo) -> None:
                _check(file, info)
                detector.tell(info)
                turn.close()
                _take_slot(self._exporting, turn, detector)

            engine = self._load(file, tell)
            _check(file, engine.info)
            return engine

    def _came(self, model: _PooledWeights, engine: Future[Detecting]) -> None:
        with self._lock:
            if engine.exception() is None:
                model.runtime = engine.result().runtime
            self.put_away_unused()


def loads_too_long(name: str) -> str:
    """The message about weights whose reading takes so long that it will hardly ever end."""
    return f"{name} is not loaded after {LOAD_TIMEOUT_S / 60:g} minutes: see the backend's log, and restart the backend"


def _take_slot(slots: threading.Semaphore, turn: ExitStack, detector: Detector) -> None:
    """Wait for a slot, but not for ever, because a load that hangs keeps its slot."""
    detector.waits()
    if slots.acquire(timeout=LOAD_TIMEOUT_S):
        turn.callback(slots.release)
    detector.begins()


def _check(file: WeightsFile, info: WeightsInfo) -> None:
    if info.fingerprint != file.fingerprint:
        raise WeightsReplacedError
