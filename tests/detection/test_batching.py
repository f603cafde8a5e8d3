"""The queue: people first, one shape per batch, and every future resolved whatever the model does."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from yolo_backend.detection import batching
from yolo_backend.detection.batching import (
    BULK,
    PERSON,
    Detector,
    DetectorClosedError,
    ModelPool,
    WeightsLoadingError,
)
from yolo_backend.detection.detections import Detections, Letterboxed, WeightsInfo
from yolo_backend.detection.weights import WeightsError

WAIT_S = 5
# Images that the fake engine can't take, by their first pixel.
BROKEN, DEADLY, TWO_ANSWERS = 251, 252, 253


class Deadly(BaseException):
    """What `except Exception` doesn't catch."""


@dataclass(eq=False)
class FakeEngine:
    """Finds one box in each image, with the image's first pixel as its score; waits at its gate."""

    info: WeightsInfo = field(default_factory=lambda: info_of("fake.pt"))
    gate: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    batches: list[list[int]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def letterbox(self, image: NDArray[np.uint8]) -> Letterboxed:
        return Letterboxed(image, (image.shape[1], image.shape[0]))

    def detect(self, batch: Sequence[Letterboxed], score_threshold: float) -> list[Detections]:
        numbers = [int(image.pixels[0, 0, 0]) for image in batch]
        self.batches.append(numbers)
        self.shapes.append(np.stack([image.pixels for image in batch]).shape)
        self.thresholds.append(score_threshold)
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.gate.wait(WAIT_S)
        if BROKEN in numbers:
            raise RuntimeError("CUDA out of memory, or something else of several\nlines")
        if DEADLY in numbers:
            raise Deadly
        found = [detections(number) for number in numbers]
        return found * 2 if TWO_ANSWERS in numbers else found


def info_of(name: str) -> WeightsInfo:
    return WeightsInfo(name, "detect", {0: "car"}, f"fingerprint of {name}", (32, 32))


def detections(number: int) -> Detections:
    return Detections(np.array([[0, 0, 1, 1]], np.float32), np.array([number], np.float32), np.array([0], np.int64))


def image(number: int, size: int = 2) -> Letterboxed:
    return Letterboxed(np.full((size, size, 3), number, np.uint8), (size, size))


def number_of(found: Detections) -> int:
    return int(found.scores[0])


def answers(futures: Sequence[Future[Detections]]) -> list[int | str]:
    """The number of each image as its answer tells it, or the name of its error."""
    results: list[int | str] = []
    for future in futures:
        error = future.exception(WAIT_S)
        results.append(type(error).__name__ if error else number_of(future.result()))
    return results


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine()
    yield fake
    fake.gate.set()


@pytest.fixture
def detector(engine: FakeEngine) -> Iterator[Detector]:
    made = Detector("fake.pt", lambda: engine, batch_size=4)
    yield made
    made.close()


def occupy(engine: FakeEngine, detector: Detector, priority: int = BULK) -> Future[Detections]:
    """Keep the model busy with an image, so that what comes next has to queue."""
    future = detector.submit(image(0), 0.5, priority)
    assert engine.started.wait(WAIT_S)
    return future


def submit_all(detector: Detector, numbers: Sequence[int], priority: int = BULK) -> list[Future[Detections]]:
    return [detector.submit(image(number), 0.5, priority) for number in numbers]


# Order and batches


def test_an_image_alone_does_not_wait_for_others(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    assert answers([detector.submit(image(7), 0.5, BULK)]) == [7]
    assert engine.batches == [[7]]


def test_each_image_gets_its_own_answer(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    numbers = [number % 250 for number in range(300)]
    with ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda number: detector.submit(image(number), 0.5, number % 2), numbers))
    assert answers(futures) == numbers
    assert max(map(len, engine.batches)) <= 4


def test_a_batch_is_full_and_in_order(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    futures = submit_all(detector, range(1, 11))
    engine.gate.set()
    assert answers(futures) == list(range(1, 11))
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_a_person_goes_first_and_alone(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    bulk = submit_all(detector, [1, 2, 3])
    person = submit_all(detector, [101], PERSON)
    more = submit_all(detector, [4, 5])
    engine.gate.set()
    assert answers(bulk + person + more) == [1, 2, 3, 101, 4, 5]
    assert engine.batches == [[0], [101], [1, 2, 3, 4], [5]]


def test_people_share_a_batch_and_keep_their_order(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    futures = submit_all(detector, [1]) + submit_all(detector, [101, 102, 103, 104, 105], PERSON)
    engine.gate.set()
    answers(futures)
    assert engine.batches == [[0], [101, 102, 103, 104], [105], [1]]


def test_only_images_of_one_shape_share_a_batch(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    sizes = [2, 3, 2, 4, 3, 2, 2, 2]
    futures = [detector.submit(image(number, size), 0.5, BULK) for number, size in enumerate(sizes, start=1)]
    engine.gate.set()
    assert answers(futures) == list(range(1, 9))
    assert engine.batches == [[0], [1, 3, 6, 7], [2, 5], [4], [8]]
    assert engine.shapes[1] == (4, 2, 2, 3)


def test_a_batch_is_asked_for_its_lowest_threshold(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    futures = [detector.submit(image(1), threshold, BULK) for threshold in (0.5, 0.1, 0.9)]
    engine.gate.set()
    answers(futures)
    assert engine.thresholds == [0.5, 0.1]


def test_one_thread_uses_the_model(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    with ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda number: detector.submit(image(number), 0.5, BULK), range(50)))
    answers(futures)
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


# Failures


@pytest.mark.parametrize("position", [0, 1, 3])
def test_one_failing_image_fails_alone(engine: FakeEngine, detector: Detector, position: int) -> None:
    occupy(engine, detector)
    numbers = [1, 2, 3]
    numbers.insert(position, BROKEN)
    futures = submit_all(detector, numbers)
    engine.gate.set()
    assert answers(futures) == ["RuntimeError" if number == BROKEN else number for number in numbers]


def test_a_wrong_number_of_outputs_gives_nobody_the_boxes_of_another(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    futures = submit_all(detector, [1, TWO_ANSWERS, 3])
    engine.gate.set()
    assert answers(futures) == [1, "ValueError", 3]


def test_after_a_failure_the_next_image_is_served(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    assert answers(submit_all(detector, [BROKEN])) == ["RuntimeError"]
    assert answers(submit_all(detector, [1])) == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_even_a_thread_that_dies_leaves_nobody_waiting(engine: FakeEngine) -> None:
    detector = Detector("fake.pt", lambda: engine, batch_size=1)
    futures = submit_all(detector, [DEADLY, 1, 2])
    engine.gate.set()
    first, *rest = answers(futures)
    assert isinstance(first, str)
    assert rest in ([1, 2], ["DetectorClosedError"] * 2, [first] * 2)
    try:
        later = detector.submit(image(3), 0.5, BULK)
    except DetectorClosedError:
        pass
    else:
        assert answers([later]) == [3]
    detector.close()


@pytest.mark.parametrize("error", [WeightsError("no such file"), RuntimeError("two\nlines"), Deadly(), MemoryError()])
def test_weights_that_do_not_load_fail_everyone_who_waits(error: BaseException) -> None:
    gate = threading.Event()

    def load() -> FakeEngine:
        assert gate.wait(WAIT_S)
        raise error

    detector = Detector("bad.pt", load, batch_size=4)
    futures = submit_all(detector, [1, 2, 3])
    futures[1].cancel()
    gate.set()
    assert answers([futures[0], futures[2]]) == ["WeightsError"] * 2
    assert futures[1].cancelled()
    with pytest.raises(WeightsError) as raised:
        detector.engine.result(WAIT_S)
    if isinstance(error, WeightsError):
        assert raised.value is error
    else:
        assert "bad.pt" in str(raised.value)
    with pytest.raises(DetectorClosedError):
        detector.submit(image(4), 0.5, BULK)


# Giving up and closing


def test_cancelled_images_are_not_detected(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    futures = submit_all(detector, [1, 2, 3, 4, 5, 6])
    for index in (0, 2, 3):
        assert futures[index].cancel()
    engine.gate.set()
    assert answers([futures[1], futures[4], futures[5]]) == [2, 5, 6]
    assert engine.batches == [[0], [2, 5, 6]]


def test_when_all_are_cancelled_the_model_rests(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    for future in submit_all(detector, [1, 2, 3]):
        future.cancel()
    engine.gate.set()
    assert answers(submit_all(detector, [4])) == [4]
    assert engine.batches == [[0], [4]]


def test_what_is_in_the_model_cannot_be_cancelled(engine: FakeEngine, detector: Detector) -> None:
    future = occupy(engine, detector)
    assert not future.cancel()
    engine.gate.set()
    assert answers([future]) == [0]


def test_a_closed_detector_finishes_what_it_has(engine: FakeEngine, detector: Detector) -> None:
    first = occupy(engine, detector)
    futures = submit_all(detector, [1, 2, 3, 4, 5])
    detector.close()
    with pytest.raises(DetectorClosedError):
        detector.submit(image(6), 0.5, PERSON)
    engine.gate.set()
    assert answers([first, *futures]) == [0, 1, 2, 3, 4, 5]


def test_a_closed_detector_frees_its_model() -> None:
    freed = threading.Event()
    fake = FakeEngine()
    fake.gate.set()
    weakref.finalize(fake, freed.set)
    waiting = [fake]
    del fake
    detector = Detector("fake.pt", waiting.pop, batch_size=4)
    assert answers(submit_all(detector, [1])) == [1]
    detector.close()
    del detector
    for _ in range(100):
        gc.collect()
        if freed.wait(0.05):
            break
    assert freed.is_set()


# The pool


class FakeLoader:
    """Loads fake engines; names that are in `broken` can't be loaded, and loading waits at the gate."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.broken: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.engines: list[FakeEngine] = []

    def __call__(self, name: str) -> FakeEngine:
        self.loaded.append(name)
        assert self.gate.wait(WAIT_S)
        if name in self.broken:
            raise WeightsError(f"Weights {name} are broken")
        engine = FakeEngine(info_of(name))
        engine.gate.set()
        self.engines.append(engine)
        return engine


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


MakePool = Callable[[int], ModelPool]


@pytest.fixture
def make_pool(loader: FakeLoader) -> Iterator[MakePool]:
    pools: list[ModelPool] = []

    def make(max_models: int) -> ModelPool:
        pools.append(ModelPool(loader, max_models=max_models, batch_size=4))
        return pools[-1]

    yield make
    loader.gate.set()
    for pool in pools:
        pool.close()


def detect(pool: ModelPool, name: str, number: int = 1) -> int:
    letterboxed = pool.letterbox(name, np.full((2, 2, 3), number, np.uint8))
    return number_of(pool.detect(name, letterboxed, 0.5, PERSON))


def test_models_are_loaded_once_and_put_away_by_last_use(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(2)
    assert [detect(pool, name) for name in ("a.pt", "b.pt", "a.pt", "c.pt")] == [1] * 4
    assert loader.loaded == ["a.pt", "b.pt", "c.pt"]
    assert detect(pool, "a.pt") == 1
    assert loader.loaded == ["a.pt", "b.pt", "c.pt"]
    assert detect(pool, "b.pt") == 1
    assert loader.loaded == ["a.pt", "b.pt", "c.pt", "b.pt"]


def test_weights_that_cannot_be_had_put_no_model_away(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    assert detect(pool, "a.pt") == 1
    loader.broken = {f"x{number}.pt" for number in range(5)}
    for name in loader.broken:
        with pytest.raises(WeightsError):
            detect(pool, name)
    assert detect(pool, "a.pt") == 1
    assert loader.loaded.count("a.pt") == 1


def test_what_is_known_of_weights_outlives_their_model(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    for name in ("a.pt", "b.pt", "c.pt"):
        assert pool.wait_for_info(name, WAIT_S).name == name
    loader.gate.clear()
    assert [pool.info(name).fingerprint for name in ("a.pt", "b.pt")] == ["fingerprint of a.pt", "fingerprint of b.pt"]
    assert loader.loaded == ["a.pt", "b.pt", "c.pt"]


def test_many_threads_load_a_model_once(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(2)
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(lambda number: detect(pool, "a.pt", number), range(60))) == list(range(60))
    assert loader.loaded == ["a.pt"]


def test_more_models_than_places_serve_everyone_all_the_same(make_pool: MakePool) -> None:
    pool = make_pool(1)
    names = [f"{number % 3}.pt" for number in range(30)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda item: detect(pool, item[1], item[0]), enumerate(names)))
    assert found == list(range(30))


def test_put_away_models_are_freed(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    freed = threading.Event()
    detect(pool, "a.pt")
    weakref.finalize(loader.engines.pop(), freed.set)
    detect(pool, "b.pt")
    for _ in range(100):
        gc.collect()
        if freed.wait(0.05):
            break
    assert freed.is_set()


def test_weights_that_are_being_read_are_told_at_once(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    loader.gate.clear()
    ways: list[Callable[[], object]] = [lambda: pool.info("a.pt"), lambda: pool.wait_for_info("a.pt", 0.05)]
    for ask in ways:
        with pytest.raises(WeightsLoadingError, match=r"a\.pt.*try again"):
            ask()
    loader.gate.set()
    assert pool.wait_for_info("a.pt", WAIT_S).name == "a.pt"
    assert pool.info("a.pt").name == "a.pt"
    assert loader.loaded == ["a.pt"]


def test_a_failure_is_told_again_without_another_try(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    loader.broken.add("a.pt")
    ways: list[Callable[[], object]] = [
        lambda: pool.wait_for_info("a.pt", WAIT_S),
        lambda: pool.info("a.pt"),
        lambda: pool.letterbox("a.pt", np.zeros((2, 2, 3), np.uint8)),
        lambda: pool.detect("a.pt", image(1), 0.5, BULK),
    ]
    for ask in ways:
        with pytest.raises(WeightsError, match=r"a\.pt are broken"):
            ask()
    assert loader.loaded == ["a.pt"]


def test_a_failure_is_tried_again_later(
    make_pool: MakePool, loader: FakeLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(1)
    loader.broken.add("a.pt")
    with pytest.raises(WeightsError):
        pool.wait_for_info("a.pt", WAIT_S)
    loader.broken.clear()
    with pytest.raises(WeightsError):
        pool.wait_for_info("a.pt", WAIT_S)
    monkeypatch.setattr(batching, "_RETRY_AFTER_S", -1)
    assert pool.wait_for_info("a.pt", WAIT_S).name == "a.pt"
    assert detect(pool, "a.pt", 5) == 5
    assert loader.loaded == ["a.pt", "a.pt"]


def test_a_closed_pool_finishes_what_it_has(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    detect(pool, "a.pt")
    loader.engines[0].gate.clear()
    loader.engines[0].started.clear()
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(detect, pool, "a.pt", 9)
        assert loader.engines[0].started.wait(WAIT_S)
        pool.close()
        loader.engines[0].gate.set()
        assert under_way.result(WAIT_S) == 9
