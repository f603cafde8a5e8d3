"""Items worked on at a time, or ahead of whoever takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from yolo_backend.parallel import ReadAhead, in_parallel

WAIT_S = 10


def wait_for(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


class Source:
    """Numbers, and how many were taken; it notes when it is closed, and in which thread."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0
        self.closed_by: str | None = None

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                self.taken += 1
                yield number
        finally:
            self.closed_by = threading.current_thread().name


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_each_item_comes_with_its_result(count: int) -> None:
    assert sorted(in_parallel(lambda number: number * number, range(count), 3)) == [
        (number, number * number) for number in range(count)
    ]


def test_no_more_items_are_taken_than_are_under_way() -> None:
    source, opened = Source(100), threading.Event()
    results = in_parallel(lambda _: opened.wait(WAIT_S), iter(source), 4)
    reader = threading.Thread(target=lambda: next(results))
    reader.start()
    wait_for(lambda: source.taken == 4)
    time.sleep(0.1)
    assert source.taken == 4
    opened.set()
    reader.join()
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert source.taken < 10


def test_a_slow_item_holds_up_no_other() -> None:
    opened = threading.Event()
    results = in_parallel(lambda number: number > 0 or opened.wait(WAIT_S), range(6), 2)
    assert [number for number, _ in (next(results) for _ in range(5))] == [1, 2, 3, 4, 5]
    opened.set()
    assert [number for number, _ in results] == [0]


def test_an_error_of_the_work_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda number: 1 // number, range(3), 2))


def test_batches_are_full_but_for_the_last() -> None:
    with ReadAhead(range(10), 4) as ahead:
        assert list(ahead.batches(WAIT_S, threading.Event())) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_nothing_is_no_batch() -> None:
    with ReadAhead(iter(()), 4) as ahead:
        assert list(ahead.batches(WAIT_S, threading.Event())) == []


def test_a_batch_comes_in_time_though_it_isnt_full() -> None:
    opened = threading.Event()

    def slowly() -> Iterator[int]:
        yield 1
        assert opened.wait(WAIT_S)
        yield 2

    with ReadAhead(slowly(), 100) as ahead:
        batches = ahead.batches(0.3, threading.Event())
        assert next(batches) == [1]
        opened.set()
        assert list(batches) == [[2]]


def test_it_reads_so_far_ahead_and_no_further() -> None:
    source = Source(100)
    with ReadAhead(iter(source), 5) as ahead:
        wait_for(lambda: source.taken == 6)  # the sixth in hand
        time.sleep(0.1)
        assert source.taken == 6
        assert next(ahead.batches(WAIT_S, threading.Event())) == [0, 1, 2, 3, 4]
    assert source.taken <= 12
    assert source.closed_by == "read-ahead"


def test_what_is_ready_comes_with_a_stop_and_is_the_last() -> None:
    source, stop, opened = Source(3), threading.Event(), threading.Event()

    def numbers() -> Iterator[int]:
        yield from source
        opened.wait(WAIT_S)
        yield 99

    with ReadAhead(numbers(), 100) as ahead:
        wait_for(lambda: source.closed_by is not None)
        stop.set()
        assert list(ahead.batches(WAIT_S, stop)) == [[0, 1, 2]]
        opened.set()


def test_an_error_comes_after_what_came_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    batches = []
    with ReadAhead(broken(), 10) as ahead, pytest.raises(ValueError, match="broken"):
        batches += list(ahead.batches(WAIT_S, threading.Event()))
    with ReadAhead(broken(), 10) as ahead:
        assert next(ahead.batches(WAIT_S, threading.Event())) == [1]


def test_leaving_ends_the_thread_though_nobody_took_anything() -> None:
    before = threading.active_count()
    source = Source(100)
    with pytest.raises(KeyError), ReadAhead(iter(source), 5):
        raise KeyError
    assert threading.active_count() == before
    assert source.closed_by == "read-ahead"
