"""The queue: people first, one shape per batch, and every future resolved whatever the model does."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import pytest

from tests.fakes.engine import BROKEN, DEADLY, TWO_ANSWERS, Deadly, FakeEngine, detections, info_of
from tests.fakes.weights import Models, fake_catalog
from yolo_backend.cores import usable_cores
from yolo_backend.detection import catalog, health
from yolo_backend.detection import detector as detector_module
from yolo_backend.detection.detections import Detections, Letterboxed
from yolo_backend.detection.detector import (
    BULK,
    PERSON,
    AbandonedError,
    Detector,
    DetectorClosedError,
    DetectorError,
    DetectorHungError,
    DetectorMemoryError,
)
from yolo_backend.detection.health import MAX_HANGS, ModelHealth
from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.detection.weights import WeightsError

WAIT_S = 5
TINY_S = 0.2  # a limit for tests in which a batch hangs


# No batch can be formed with it.
UNFIT = Letterboxed(None, (2, 2))  # type: ignore[arg-type]


def image(number: int, size: int = 2) -> Letterboxed:
    return Letterboxed(np.full((size, size, 3), number, np.uint8), (size, size))


def number_of(found: Detections) -> int:
    return int(found.scores[0])


def make_detector(
    load: Callable[[], FakeEngine], batch_size: int | None = 4, timeout_s: float = 60, health: ModelHealth | None = None
) -> Detector:
    name = "fake.pt"
    return Detector(
        name, lambda _: load(), batch_size=batch_size, timeout_s=timeout_s, health=health or ModelHealth(name)
    )


def answers(futures: Sequence[Future[Detections]]) -> list[int | str]:
    """The number of each image as its answer tells it, or the name of its error."""
    results: list[int | str] = []
    for future in futures:
        error = future.exception(WAIT_S)
        results.append(type(error).__name__ if error else number_of(future.result()))
    return results


def test_what_a_person_should_know_of_the_weights_file_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    info = replace(info_of("fake.pt"), remark="NMS is part of fake.pt")
    pool = fake_catalog(lambda _: FakeEngine(info))
    assert pool.wait_for_info("fake.pt", WAIT_S).remark == info.remark
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [info.remark]
    pool.close()


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine()
    yield fake
    fake.gate.set()


@pytest.fixture
def detector(engine: FakeEngine) -> Iterator[Detector]:
    made = make_detector(lambda: engine)
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
    assert engine.for_person == [False, True, False, False]


def test_a_person_who_comes_while_a_batch_is_formed_goes_first(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    person: list[Future[Detections]] = []

    def is_abandoned() -> bool:
        """Asked when the next batch is formed: a person comes at that very moment."""
        if not person:
            person.extend(submit_all(detector, [101], PERSON))
        return False

    bulk = [detector.submit(image(number), 0.5, BULK, is_abandoned) for number in (1, 2)]
    engine.gate.set()
    assert answers(bulk) == [1, 2]
    assert answers(person) == [101]
    assert engine.batches == [[0], [101], [1, 2]]


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


def test_as_many_streams_as_cores_have_a_core_each(engine: FakeEngine) -> None:
    cores = os.sched_getaffinity(0)
    engine.streams, engine.batch_size = len(cores), 1
    detector = make_detector(lambda: engine, batch_size=None)
    futures = submit_all(detector, range(len(cores)))
    wait_until(lambda: len(engine.threads) == len(cores))
    threads = [thread.native_id or 0 for thread in engine.threads]
    engine.gate.set()
    answers(futures)
    used = [os.sched_getaffinity(thread) for thread in threads]
    detector.close()
    expected = [{core} for core in sorted(cores)] if usable_cores() == len(cores) else [cores] * len(cores)
    assert sorted(used, key=min) == expected


def test_one_thread_uses_the_model(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    with ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda number: detector.submit(image(number), 0.5, BULK), range(50)))
    answers(futures)
    assert len(engine.threads) == 1
    assert threading.current_thread() not in engine.threads


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


def test_an_error_does_not_keep_the_batch_in_memory(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    (future,) = submit_all(detector, [BROKEN])
    error = future.exception(WAIT_S)
    assert isinstance(error, RuntimeError)
    assert error.__traceback__ is None  # whose frames would hold it


def test_what_would_end_a_thread_reaches_those_who_wait_as_an_error(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    assert answers(submit_all(detector, [DEADLY])) == ["DetectorError"]
    assert answers(submit_all(detector, [1])) == [1]


@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_detector_that_dies_leaves_nobody_waiting(engine: FakeEngine, detector: Detector, position: int) -> None:
    first = occupy(engine, detector)
    images = [image(1), image(2), image(3)]
    images.insert(position, UNFIT)
    futures = [detector.submit(one, 0.5, BULK) for one in images]
    futures[2].cancel()
    engine.gate.set()
    assert answers([first, *futures[:2], futures[3]]) == [0, *["DetectorError"] * 3]
    assert futures[2].cancelled()
    assert detector.is_stale()
    with pytest.raises(DetectorClosedError):
        detector.submit(image(4), 0.5, BULK)


@pytest.mark.parametrize("error", [WeightsError("no such file"), RuntimeError("two\nlines"), Deadly(), MemoryError()])
def test_weights_that_do_not_load_fail_everyone_who_waits(error: BaseException) -> None:
    gate = threading.Event()

    def load() -> FakeEngine:
        assert gate.wait(WAIT_S)
        raise error

    detector = make_detector(load)
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
        assert "fake.pt" in str(raised.value)
    with pytest.raises(DetectorClosedError):
        detector.submit(image(4), 0.5, BULK)


# Memory


def sizes(engine: FakeEngine) -> list[int]:
    return [len(numbers) for numbers in engine.batches]


@pytest.mark.parametrize(
    ("room", "expected"), [(4, [8, 4, 4]), (3, [8, 4, 2, 2, 2, 2]), (1, [8, 4, 2, *[1] * 8]), (8, [8])]
)
def test_a_batch_that_does_not_fit_is_halved(engine: FakeEngine, room: int, expected: list[int]) -> None:
    detector = make_detector(lambda: engine, batch_size=8)
    occupy(engine, detector)
    futures = submit_all(detector, range(1, 9))
    engine.room = room
    engine.gate.set()
    assert answers(futures) == list(range(1, 9))
    assert sizes(engine) == [1, *expected]
    detector.close()


def test_an_uneven_batch_is_halved(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    futures = submit_all(detector, [1, 2, 3])
    engine.room = 2
    engine.gate.set()
    assert answers(futures) == [1, 2, 3]
    assert engine.batches == [[0], [1, 2, 3], [1, 2], [3]]


def test_one_line_tells_that_a_batch_did_not_fit(
    engine: FakeEngine, detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    occupy(engine, detector)
    futures = submit_all(detector, range(1, 9))
    engine.room = 2
    with caplog.at_level(logging.WARNING):
        engine.gate.set()
        answers(futures)
    assert caplog.messages == ["fake.pt: 4 images don't fit into memory (4 images): going on with 2 at a time for now"]


def test_the_size_that_fits_is_remembered_until_a_larger_one_may_fit_again(
    engine: FakeEngine, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "_GOOD_BATCHES", 3)
    occupy(engine, detector)
    futures = submit_all(detector, range(1, 9))
    engine.room = 2
    engine.gate.set()
    assert answers(futures) == list(range(1, 9))
    assert sizes(engine) == [1, 4, 2, 2, 2, 2]
    # That was the third good one.
    engine.gate.clear()
    futures = submit_all(detector, [1] * 9)
    engine.gate.set()
    answers(futures)
    assert max(sizes(engine)[6:]) == 4


def test_good_batches_before_one_that_did_not_fit_do_not_count(
    engine: FakeEngine, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "_GOOD_BATCHES", 4)
    for room, count in ((2, 6), (1, 7)):
        engine.started.clear()
        engine.gate.clear()
        futures = [occupy(engine, detector), *submit_all(detector, range(1, count + 1))]
        engine.room = room
        engine.gate.set()
        answers(futures)
    # Alone, then four, of which two are a good batch, then two more. With less room: alone, then two that don't fit.
    assert sizes(engine) == [1, 4, 2, 2, 2, *(1, 2, 1, 1, 1, 1, 1, 2, 1, 1)]


def test_an_image_without_room_fails_alone_and_says_what_to_do(engine: FakeEngine, detector: Detector) -> None:
    engine.gate.set()
    engine.room = 0
    future = detector.submit(image(1), 0.5, BULK)
    error = future.exception(WAIT_S)
    assert isinstance(error, DetectorMemoryError)
    for words in ("fake.pt", "cpu", "1 images", "MODEL_IMAGE_SIZE", "BATCH_SIZE", "DEVICE"):
        assert words in str(error)
    assert str(error).isprintable()
    engine.room = 1
    assert answers(submit_all(detector, [2])) == [2]


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


def test_an_image_that_nobody_waits_for_costs_no_place(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    gone = threading.Event()
    asked_by: set[threading.Thread] = set()

    def is_abandoned() -> bool:
        asked_by.add(threading.current_thread())
        return gone.is_set()

    futures = [
        detector.submit(image(number), 0.5, PERSON, is_abandoned if number % 2 else lambda: False)
        for number in range(1, 9)
    ]
    gone.set()
    engine.gate.set()
    assert answers(futures) == ["AbandonedError", 2, "AbandonedError", 4, "AbandonedError", 6, "AbandonedError", 8]
    assert engine.batches == [[0], [2, 4, 6, 8]]
    assert asked_by == engine.threads


def test_when_nobody_waits_the_model_rests(engine: FakeEngine, detector: Detector) -> None:
    occupy(engine, detector)
    futures = [detector.submit(image(number), 0.5, PERSON, lambda: True) for number in (1, 2, 3)]
    engine.gate.set()
    assert answers(futures) == ["AbandonedError"] * 3
    assert answers(submit_all(detector, [4])) == [4]
    assert engine.batches == [[0], [4]]


def test_in_doubt_somebody_waits(engine: FakeEngine, detector: Detector) -> None:
    def is_abandoned() -> bool:
        raise OSError("no such connection")

    engine.gate.set()
    assert answers([detector.submit(image(7), 0.5, PERSON, is_abandoned)]) == [7]


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
    detector = make_detector(waiting.pop)
    assert answers(submit_all(detector, [1])) == [1]
    detector.close()
    del detector
    for _ in range(100):
        gc.collect()
        if freed.wait(0.05):
            break
    assert freed.is_set()


# Several streams: threads that call the model at once


@pytest.fixture
def streams(engine: FakeEngine) -> Iterator[Detector]:
    """A detector of three streams, over `engine`."""
    engine.streams = 3
    made = make_detector(lambda: engine, timeout_s=TINY_S)
    yield made
    made.close()
    for gate in engine.gates.values():
        gate.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What the detectors take for the time, in seconds: it passes as the test says."""
    now = [0.0]
    with monkeypatch.context() as patched:
        patched.setattr(detector_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        yield now


def wait_until(is_so: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def bring_in(engine: FakeEngine, detector: Detector, number: int) -> Future[Detections]:
    """Bring an image into the model, where it waits at a gate of its own."""
    engine.gates[number] = threading.Event()
    (future,) = submit_all(detector, [number])
    wait_until(lambda: [number] in engine.batches)
    return future


def assert_ended(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_streams_are_in_the_model_at_once(engine: FakeEngine, streams: Detector) -> None:
    futures = [bring_in(engine, streams, number) for number in (1, 2, 3)]
    futures += submit_all(streams, range(4, 30))
    assert not wait(futures, timeout=0.1).done
    assert engine.batches == [[1], [2], [3]]
    for number in (3, 1, 2):
        engine.gates[number].set()
        assert answers([futures[number - 1]]) == [number]
    engine.gate.set()
    assert answers(futures) == list(range(1, 30))
    assert len(engine.threads) == 3


def test_with_streams_each_image_gets_its_own_answer(engine: FakeEngine, streams: Detector) -> None:
    engine.gate.set()
    numbers = [number % 250 for number in range(600)]
    with ThreadPoolExecutor(8) as threads:
        futures = list(
            threads.map(lambda number: streams.submit(image(number, 2 + number % 2), 0.5, number % 2), numbers)
        )
    assert answers(futures) == numbers
    assert sorted(number for batch in engine.batches for number in batch) == sorted(numbers)
    assert max(map(len, engine.batches)) <= 4


def test_the_stream_that_is_free_first_takes_the_person(engine: FakeEngine, streams: Detector) -> None:
    for number in (1, 2, 3):
        bring_in(engine, streams, number)
    bulk = submit_all(streams, [4, 5])
    person = submit_all(streams, [101], PERSON)
    engine.gates[2].set()
    wait_until(lambda: len(engine.batches) == 4)
    assert engine.batches[3] == [101]
    engine.gate.set()
    assert answers(person + bulk) == [101, 4, 5]


def test_a_stream_that_is_free_takes_the_image_at_once(engine: FakeEngine, streams: Detector) -> None:
    bring_in(engine, streams, 1)
    bring_in(engine, streams, 2)
    engine.gate.set()
    assert answers(submit_all(streams, [3, 4])) == [3, 4]


def test_two_streams_that_want_the_same_image_take_it_once(engine: FakeEngine, streams: Detector) -> None:
    engine.gate.set()
    asked, go_on = threading.Event(), threading.Event()

    def is_abandoned() -> bool:
        """Slow to answer at first: another stream comes and goes meanwhile."""
        if not asked.is_set():
            asked.set()
            assert go_on.wait(WAIT_S)
        return False

    first = streams.submit(image(1), 0.5, BULK, is_abandoned)
    assert asked.wait(WAIT_S)
    second = streams.submit(image(2), 0.5, BULK)
    assert answers([first, second]) == [1, 2]
    go_on.set()
    assert answers(submit_all(streams, range(3, 30))) == list(range(3, 30))
    assert sorted(number for batch in engine.batches for number in batch) == list(range(1, 30))
    assert not streams.is_stale()


def test_a_failing_image_fails_alone_among_streams(engine: FakeEngine, streams: Detector) -> None:
    engine.gate.set()
    numbers = [BROKEN if number % 7 == 0 else number for number in range(100)]
    futures = submit_all(streams, numbers)
    assert answers(futures) == ["RuntimeError" if number == BROKEN else number for number in numbers]
    assert answers(submit_all(streams, [1])) == [1]


def test_what_was_cancelled_or_abandoned_is_left_out_by_all_streams(engine: FakeEngine, streams: Detector) -> None:
    for number in (1, 2, 3):
        bring_in(engine, streams, number)
    futures = [
        streams.submit(image(number), 0.5, BULK, (lambda: True) if number % 3 == 0 else None)
        for number in range(10, 40)
    ]
    for future in futures[1::3]:
        assert future.cancel()
    engine.gate.set()
    for number in (1, 2, 3):
        engine.gates[number].set()
    kept = [number for number in range(10, 40) if number % 3 == 1]
    assert answers(futures[0::3]) == kept
    assert answers(futures[2::3]) == ["AbandonedError"] * 10
    assert sorted(number for batch in engine.batches[3:] for number in batch) == kept


def test_streams_that_run_out_of_memory_find_the_size_that_fits(engine: FakeEngine, streams: Detector) -> None:
    engine.room = 1
    engine.gate.set()
    assert answers(submit_all(streams, range(60))) == list(range(60))


def test_a_hanging_stream_fails_its_own_images_only(
    engine: FakeEngine, streams: Detector, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    stuck = bring_in(engine, streams, 1)
    clock[0] = 0.75 * TINY_S
    in_time = [bring_in(engine, streams, number) for number in (2, 3)]
    behind = submit_all(streams, [4, 5])
    clock[0] = 1.5 * TINY_S
    assert streams.is_hanging()
    with pytest.raises(DetectorHungError):
        streams.wait_for(stuck)
    assert answers(behind) == ["DetectorClosedError"] * 2
    assert not streams.is_hanging()
    assert streams.is_stale()
    engine.gates[2].set()
    engine.gates[3].set()
    assert [number_of(streams.wait_for(future)) for future in in_time] == [2, 3]
    caplog.clear()
    engine.gates[1].set()  # it comes back in the end
    assert_ended(engine.threads)
    assert caplog.messages == ["fake.pt: the batch that hung has come to an end after all"]
    assert engine.batches == [[1], [2], [3]]


def test_streams_without_work_end_with_the_one_that_hangs(engine: FakeEngine, clock: list[float]) -> None:
    engine.streams = 3
    before = set(threading.enumerate())
    detector = make_detector(lambda: engine, timeout_s=TINY_S)
    stuck = occupy(engine, detector)
    wait_until(lambda: len(set(threading.enumerate()) - before) == 3)
    others = set(threading.enumerate()) - before - engine.threads
    clock[0] = 1.5 * TINY_S
    with pytest.raises(DetectorHungError):
        detector.wait_for(stuck)
    assert len(others) == 2
    assert_ended(others)


def test_what_queues_behind_a_hanging_stream_goes_to_a_new_model(
    make_pool: MakePool, loader: FakeLoader, clock: list[float]
) -> None:
    pool = make_pool(1, TINY_S)
    loader.streams = 2
    pool.load("a.pt")
    (hanging,) = loader.engines
    hanging.gates = {1: threading.Event(), 2: threading.Event()}
    with ThreadPoolExecutor(4) as threads:

        def ask(number: int) -> Future[Detections]:
            return threads.submit(pool.detect, "a.pt", image(number), 0.5, BULK)

        stuck = ask(1)
        wait_until(lambda: [1] in hanging.batches)
        clock[0] = 0.75 * TINY_S
        in_time = ask(2)
        wait_until(lambda: [2] in hanging.batches)
        behind = [ask(3), ask(4)]
        clock[0] = 1.5 * TINY_S
        assert answers([stuck, *behind]) == ["DetectorHungError", 3, 4]
        hanging.gates[2].set()
        assert answers([in_time]) == [2]
    assert loader.loaded == ["a.pt", "a.pt"]
    assert hanging.batches == [[1], [2]]
    hanging.gates[1].set()


def test_streams_that_hang_together_are_one_model_that_hung(
    make_pool: MakePool, loader: FakeLoader, clock: list[float]
) -> None:
    pool = make_pool(1, TINY_S)
    loader.hangs = True
    loader.streams = MAX_HANGS
    pool.load("a.pt")
    (hanging,) = loader.engines
    loader.hangs = False
    with ThreadPoolExecutor(MAX_HANGS) as threads:
        stuck = []
        for number in range(MAX_HANGS):
            stuck.append(threads.submit(pool.detect, "a.pt", image(number), 0.5, BULK))
            wait_until(lambda: len(hanging.batches) == len(stuck))
        clock[0] = 1.5 * TINY_S
        assert answers(stuck) == ["DetectorHungError"] * MAX_HANGS
    assert pool.down_reason("a.pt") is None
    assert detect(pool, "a.pt", 5) == 5


def test_a_stream_that_dies_fails_its_own_images_only(engine: FakeEngine, streams: Detector) -> None:
    futures = [bring_in(engine, streams, number) for number in (1, 2, 3)]
    bad = [streams.submit(one, 0.5, BULK) for one in (image(4), UNFIT)]
    engine.gates[2].set()
    assert answers(bad) == ["DetectorError"] * 2
    assert streams.is_stale()
    with pytest.raises(DetectorClosedError):
        streams.submit(image(6), 0.5, BULK)
    engine.gates[1].set()
    engine.gates[3].set()
    assert answers(futures) == [1, 2, 3]
    assert_ended(engine.threads)


def test_a_closed_detector_finishes_what_it_has_and_ends_its_threads(
    engine: FakeEngine, streams: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    futures = [bring_in(engine, streams, number) for number in (1, 2, 3)]
    futures += submit_all(streams, range(4, 20))
    with caplog.at_level(logging.INFO):
        streams.close()
        engine.gate.set()
        for gate in engine.gates.values():
            gate.set()
        assert answers(futures) == list(range(1, 20))
        assert_ended(engine.threads)
    assert caplog.messages == ["fake.pt is put away"]


def test_a_closed_detector_ends_threads_that_have_nothing_to_do(engine: FakeEngine) -> None:
    engine.streams = 3
    engine.gate.set()
    before = set(threading.enumerate())
    detector = make_detector(lambda: engine)
    detector.engine.result(WAIT_S)
    wait_until(lambda: [thread.is_alive() for thread in set(threading.enumerate()) - before] == [True] * 3)
    threads = set(threading.enumerate()) - before
    assert all("fake.pt" in thread.name for thread in threads)
    detector.close()
    assert_ended(threads)


@pytest.mark.parametrize(("batch_size", "expected"), [(None, 6), (2, 2), (9, 9)])
def test_without_a_setting_the_batch_is_as_the_engine_likes_it(
    engine: FakeEngine, batch_size: int | None, expected: int
) -> None:
    engine.batch_size = 6
    detector = make_detector(lambda: engine, batch_size=batch_size)
    occupy(engine, detector)
    futures = submit_all(detector, range(1, 19))
    engine.gate.set()
    assert answers(futures) == list(range(1, 19))
    assert sizes(engine) == [1, *[expected] * (18 // expected)]
    detector.close()


# The pool


class FakeLoader:
    """Loads fake engines, or such that hang; names in `broken` can't be loaded, and loading waits at the gate."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.broken: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.engines: list[FakeEngine] = []
        self.hangs = False
        self.streams = 1

    def __call__(self, name: str) -> FakeEngine:
        self.loaded.append(name)
        assert self.gate.wait(WAIT_S)
        if name in self.broken:
            raise WeightsError(f"Weights {name} are broken")
        engine = FakeEngine(info_of(name), streams=self.streams)
        if not self.hangs:
            engine.gate.set()
        self.engines.append(engine)
        return engine


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


class MakePool(Protocol):
    def __call__(self, max_models: int, detect_timeout_s: float = 60) -> Models: ...


@pytest.fixture
def make_pool(loader: FakeLoader) -> Iterator[MakePool]:
    pools: list[Models] = []

    def make(max_models: int, detect_timeout_s: float = 60) -> Models:
        pools.append(Models(fake_catalog(loader, max_models=max_models, detect_timeout_s=detect_timeout_s)))
        return pools[-1]

    yield make
    loader.gate.set()
    for pool in pools:
        pool.close()
    for engine in loader.engines:
        engine.gate.set()
        for thread in engine.threads:
            thread.join(WAIT_S)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def detect(pool: Models, name: str, number: int = 1) -> int:
    letterboxed = pool.letterbox(name, np.full((2, 2, 3), number, np.uint8))
    return number_of(pool.detect(name, letterboxed, 0.5, PERSON))


def test_the_parts_of_an_image_are_answered_in_order(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    found = pool.detect_all("a.pt", [image(number) for number in (3, 1, 2)], 0.5, PERSON)
    assert [number_of(each) for each in found] == [3, 1, 2]
    assert loader.loaded == ["a.pt"]


def test_a_part_that_fails_is_the_error_of_its_image(make_pool: MakePool) -> None:
    pool = make_pool(1)
    with pytest.raises(RuntimeError, match="an error of several"):
        pool.detect_all("a.pt", [image(number) for number in (3, BROKEN, 2)], 0.5, PERSON)
    assert detect(pool, "a.pt") == 1


def test_who_goes_leaves_no_part_in_the_queue(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    pool.load("a.pt")
    (engine,) = loader.engines
    engine.gates[1] = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        before = threads.submit(detect, pool, "a.pt")
        assert engine.started.wait(WAIT_S)
        has_gone = iter([True])  # asked once: what queues later isn't asked again
        with pytest.raises(AbandonedError):
            pool.detect_all("a.pt", [image(2), image(3)], 0.5, PERSON, lambda: next(has_gone, False))
        engine.gates[1].set()
        assert before.result(WAIT_S) == 1
    assert detect(pool, "a.pt", 4) == 4
    assert engine.batches == [[1], [4]]


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
    assert [pool.info(name).fingerprint for name in ("a.pt", "b.pt")] == [sha256(name) for name in ("a.pt", "b.pt")]
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
    monkeypatch.setattr(detector_module, "_RETRY_AFTER_S", -1)
    monkeypatch.setattr(catalog, "_RETRY_AFTER_S", -1)
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


def test_an_image_that_nobody_waits_for_is_told_so(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    with pytest.raises(AbandonedError):
        pool.detect("a.pt", image(1), 0.5, PERSON, lambda: True)
    assert number_of(pool.detect("a.pt", image(2), 0.5, PERSON, lambda: False)) == 2
    assert loader.engines[0].batches == [[2]]


# A model that hangs or dies


def test_a_model_that_hangs_is_replaced(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1, TINY_S)
    loader.hangs = True
    pool.load("a.pt")
    loader.hangs = False
    (hanging,) = loader.engines
    with ThreadPoolExecutor(4) as threads:
        stuck = threads.submit(pool.detect, "a.pt", image(1), 0.5, BULK)
        assert hanging.started.wait(WAIT_S)
        behind = [threads.submit(pool.detect, "a.pt", image(number), 0.5, BULK) for number in (2, 3, 4)]
        assert answers([stuck, *behind]) == ["DetectorHungError", 2, 3, 4]
    assert "a.pt" in str(stuck.exception())
    assert "DETECT_TIMEOUT_SECONDS" in str(stuck.exception())
    assert loader.loaded == ["a.pt", "a.pt"]
    assert pool.down_reason("a.pt") is None
    # It comes back in the end: it notices that it is late, and takes no more images.
    (thread,) = hanging.threads
    hanging.gate.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert hanging.batches == [[1]]
    assert detect(pool, "a.pt", 5) == 5


@pytest.mark.parametrize("number", [1, BROKEN, DEADLY, TWO_ANSWERS])
def test_a_batch_that_comes_back_late_changes_nothing(
    engine: FakeEngine, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    state = ModelHealth("fake.pt")
    detector = make_detector(lambda: engine, timeout_s=TINY_S, health=state)
    (late,) = submit_all(detector, [number])
    assert engine.started.wait(WAIT_S)
    behind = submit_all(detector, [2, 3])
    with pytest.raises(DetectorHungError):
        detector.wait_for(late)
    assert answers(behind) == ["DetectorClosedError"] * 2
    (thread,) = engine.threads
    caplog.clear()
    engine.gate.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert answers([late, *behind]) == ["DetectorHungError", *["DetectorClosedError"] * 2]
    assert engine.batches == [[number]]
    assert state.has_hung()
    assert caplog.messages == ["fake.pt: the batch that hung has come to an end after all"]


@pytest.mark.long
def test_after_some_hangs_no_more_models_are_loaded(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1, TINY_S)
    loader.hangs = True
    for _ in range(MAX_HANGS):
        assert pool.down_reason("a.pt") is None
        with pytest.raises(DetectorHungError):
            pool.detect("a.pt", image(1), 0.5, BULK)
    ways: list[Callable[[], object]] = [
        lambda: pool.detect("a.pt", image(1), 0.5, BULK),
        lambda: pool.letterbox("a.pt", np.zeros((2, 2, 3), np.uint8)),
        lambda: pool.load("a.pt"),
    ]
    for ask in ways:
        with pytest.raises(DetectorHungError, match=r"a\.pt hung.* 3 times in a row: restart the backend"):
            ask()
    assert loader.loaded == ["a.pt"] * MAX_HANGS
    assert "restart the backend" in str(pool.down_reason("a.pt"))
    assert pool.down_reason("b.pt") is None
    loader.hangs = False
    assert detect(pool, "b.pt", 2) == 2


@pytest.mark.long
def test_hangs_with_a_good_batch_between_are_no_reason_to_give_up(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1, TINY_S)
    for _ in range(MAX_HANGS + 1):
        loader.hangs = True
        with pytest.raises(DetectorHungError):
            pool.detect("a.pt", image(1), 0.5, BULK)
        loader.hangs = False
        assert detect(pool, "a.pt", 2) == 2
        loader.engines[-1].gate.clear()


@pytest.mark.long
def test_weights_may_take_longer_to_load_than_a_batch(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1, TINY_S)
    loader.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.detect, "a.pt", image(1), 0.5, BULK)
        assert not wait([waiting], timeout=3 * TINY_S).done
        loader.gate.set()
        assert number_of(waiting.result(WAIT_S)) == 1
    assert loader.loaded == ["a.pt"]


def test_a_model_that_dies_is_replaced(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1)
    pool.load("a.pt")
    engine = loader.engines[0]
    engine.gate.clear()
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(pool.detect, "a.pt", image(1), 0.5, BULK)
        assert engine.started.wait(WAIT_S)
        others = [threads.submit(pool.detect, "a.pt", one, 0.5, BULK) for one in (image(2), UNFIT)]
        assert not wait(others, timeout=0.1).done  # both are in the queue by then
        engine.gate.set()
        assert answers([first, *others]) == [1, "DetectorError", "DetectorError"]
    assert detect(pool, "a.pt", 5) == 5
    assert loader.loaded == ["a.pt", "a.pt"]


# Why it is down


def fail(pool: Models, number: int = BROKEN) -> None:
    with pytest.raises((RuntimeError, DetectorError)):
        pool.detect("a.pt", image(number), 0.5, PERSON)


@pytest.mark.parametrize("number", [BROKEN, DEADLY])
def test_a_model_that_fails_on_every_image_is_down_until_a_try_succeeds(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pool = make_pool(1)
    for _ in range(3):
        assert pool.down_reason("a.pt") is None
        fail(pool, number)
    reason = pool.down_reason("a.pt")
    assert reason is not None
    assert "a.pt failed on its last 3 batches" in reason
    assert reason.isprintable()
    with monkeypatch.context() as later:
        later.setattr(health, "_TRY_AGAIN_AFTER_S", 0)
        assert pool.down_reason("a.pt") is None
    fail(pool, number)
    assert "last 4 batches" in str(pool.down_reason("a.pt"))
    assert detect(pool, "a.pt", 1) == 1
    assert pool.down_reason("a.pt") is None


def test_an_image_that_is_itself_bad_does_not_make_the_model_down(engine: FakeEngine) -> None:
    state = ModelHealth("fake.pt")
    detector = make_detector(lambda: engine, health=state)
    occupy(engine, detector)
    futures = submit_all(detector, [1, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, 2])
    engine.gate.set()
    assert answers(futures) == [1, *["RuntimeError"] * 6, 2]
    for _ in range(2):  # the third in a row would make it down
        answers(submit_all(detector, [BROKEN]))
    assert state.down_reason() is None
    detector.close()


def test_a_failed_batch_counts_once(engine: FakeEngine) -> None:
    state = ModelHealth("fake.pt")
    detector = make_detector(lambda: engine, health=state)
    occupy(engine, detector)
    futures = submit_all(detector, [BROKEN] * 8)
    engine.gate.set()
    answers(futures)
    assert state.down_reason() is None
    answers(submit_all(detector, [BROKEN]))
    assert "last 3 batches" in str(state.down_reason())
    detector.close()


def test_a_model_that_hangs_is_down(make_pool: MakePool, loader: FakeLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "_give_up_hanging", lambda _: None)  # between two looks
    pool = make_pool(1, TINY_S)
    loader.hangs = True
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.detect, "a.pt", image(1), 0.5, BULK)
        assert "a.pt hangs" in wait_for_reason(pool)
        loader.engines[0].gate.set()
        assert number_of(waiting.result(WAIT_S)) == 1
    assert pool.down_reason("a.pt") is None


def test_a_model_that_is_loaded_anew_after_it_hung_is_down(make_pool: MakePool, loader: FakeLoader) -> None:
    pool = make_pool(1, TINY_S)
    loader.hangs = True
    with pytest.raises(DetectorHungError):
        pool.detect("a.pt", image(1), 0.5, BULK)
    loader.hangs = False
    loader.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.detect, "a.pt", image(2), 0.5, BULK)
        assert "a.pt hung, and is being loaded anew" in wait_for_reason(pool)
        loader.gate.set()
        assert number_of(waiting.result(WAIT_S)) == 2
    assert pool.down_reason("a.pt") is None


def test_weights_that_cannot_be_loaded_again_are_down(
    make_pool: MakePool, loader: FakeLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(1)
    assert detect(pool, "a.pt") == 1
    assert detect(pool, "b.pt") == 1
    loader.broken.add("a.pt")
    with pytest.raises(WeightsError):
        detect(pool, "a.pt")
    assert pool.down_reason("a.pt") == "Weights a.pt are broken"
    monkeypatch.setattr(detector_module, "_RETRY_AFTER_S", -1)
    monkeypatch.setattr(catalog, "_RETRY_AFTER_S", -1)
    assert pool.down_reason("a.pt") is None


def wait_for_reason(pool: Models) -> str:
    ends_at = time.monotonic() + WAIT_S
    while time.monotonic() < ends_at:
        if reason := pool.down_reason("a.pt"):
            return reason
        time.sleep(0.01)
    raise AssertionError("nothing is wrong")


# Everything at once

STORM_TIMEOUT_S = 0.8  # a busy machine may hold up twelve threads for a good part of a second


class StormyLoader:
    """Loads engines that raise, run out of memory, hang for a while and try to end their thread, as dice tell."""

    def __init__(self, seed: int, streams: int) -> None:
        self.dice = random.Random(seed)
        self.streams = streams
        self.is_calm = False
        self.hung_at = float("-inf")
        self.loaded = 0
        self.threads: set[threading.Thread] = set()
        self.well: dict[threading.Thread, float] = {}
        self.met: set[str] = set()
        self.lock = threading.Lock()

    def __call__(self, name: str) -> StormyEngine:
        self.loaded += 1
        return StormyEngine(info=info_of(name), loader=self, streams=self.streams)


@dataclass(eq=False)
class StormyEngine(FakeEngine):
    loader: StormyLoader = field(kw_only=True)
    streams: int = field(kw_only=True)

    def detect(
        self, batch: Sequence[Letterboxed], score_threshold: float, *, for_person: bool = False
    ) -> list[Detections]:
        storm = self.loader
        thread = threading.current_thread()
        with storm.lock:
            storm.threads.add(thread)
            # After the last hang was counted a good batch was, so that no three are in a row: a detector that died
            # makes place for another while its own batch hangs still.
            good_since = storm.well.pop(thread, float("-inf"))
            may_hang = good_since > storm.hung_at + 2 * STORM_TIMEOUT_S
            fault = (
                ""
                if storm.is_calm
                else storm.dice.choices(["", "raise", "memory", "hang", "end"], (70, 8, 12, 5, 5))[0]
            )
            if fault == "hang" and not may_hang:
                fault = "raise"
            storm.met.add(fault)
            if fault == "hang":
                storm.hung_at = time.monotonic()
            if not fault:
                storm.well[thread] = time.monotonic()
        if fault == "raise":
            raise RuntimeError("an unknown error of the device")
        if fault == "memory":
            raise MemoryError("no room")
        if fault == "hang":
            threading.Event().wait(2.5 * STORM_TIMEOUT_S)
        if fault == "end":
            raise SystemExit
        time.sleep(0.01)
        return [detections(int(image.pixels[0, 0, 0])) for image in batch]


@pytest.mark.alone  # a good batch that takes longer than the limit counts as a hang, and three in a row are the end
@pytest.mark.parametrize(
    ("seed", "streams"),
    [(1, 1), pytest.param(2, 1, marks=pytest.mark.proof), pytest.param(3, 3, marks=pytest.mark.proof)],
)
def test_whatever_happens_everyone_gets_their_own_boxes_or_an_error(seed: int, streams: int) -> None:
    loader = StormyLoader(seed, streams)
    pool = Models(fake_catalog(loader, detect_timeout_s=STORM_TIMEOUT_S))

    def ask(number: int) -> int | str:
        one = UNFIT if number % 60 == 59 else image(number % 250, size=2 + number % 3 // 2)
        try:
            return number_of(pool.detect("a.pt", one, 0.5, number % 2))
        except (RuntimeError, TypeError, DetectorError) as error:
            return type(error).__name__

    with ThreadPoolExecutor(12) as threads:
        images = 800 * streams  # so many that a storm lasts for several hangs
        under_way = {threads.submit(ask, number): number for number in range(images)}
        assert not wait(under_way, timeout=60).not_done
        found = {number: future.result() for future, number in under_way.items()}
        right = [number for number, answer in found.items() if answer == number % 250]
        assert all(isinstance(found[number], str) for number in found.keys() - set(right))
        assert len(right) > images / 2
        assert loader.met == {"", "raise", "memory", "hang", "end"}
        assert loader.loaded > 2
        loader.is_calm = True
        assert list(threads.map(ask, range(50))) == list(range(50))
    assert pool.down_reason("a.pt") is None
    pool.close()
    for thread in loader.threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
