"""Whose id is taken over, and that it comes along to other threads."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from yolo_backend import request_ids
from yolo_backend.request_ids import NONE, RequestIds, begin, carrying, current, end, working_for

WAIT_S = 10


@pytest.fixture(autouse=True)
def _no_request_afterwards() -> Iterator[None]:
    yield
    end()


@pytest.mark.parametrize(
    "given", ["a", "7", "A-1", "3f0c9d8e-5b7a-4c1e-9d2f-0a1b2c3d4e5f", "0123456789abcdef" * 2, "x" * 36]
)
def test_a_harmless_id_is_taken_over(given: str) -> None:
    assert begin(given) == given
    assert current() == given


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "-",
        "--",
        " ",
        "a b",
        "a\n",
        "a\nb",
        "a]",
        "a_b",
        "a.b",
        "é",
        "٣",
        "x" * 37,
        "0123456789abcdef0123456789abcdef01234567",  # a legacy token
        "eyJhbGciOiJIUzI1NiJ9.e30.x",
    ],
)
def test_any_other_gives_way_to_one_of_our_own(given: str | None) -> None:
    own = begin(given)
    assert re.fullmatch(r"[a-z2-7]{8}", own)
    assert current() == own
    assert begin(given) != own


def test_after_a_request_there_is_none() -> None:
    assert current() == NONE
    begin("one")
    end()
    assert current() == NONE


def test_work_in_another_thread_carries_the_id_of_who_handed_it_over() -> None:
    with ThreadPoolExecutor(1) as worker:
        for name in ("one", "two"):
            begin(name)
            carried = carrying(lambda text, more: (current(), text, more))
            begin("later")
            assert worker.submit(carried, "x", more=1).result(WAIT_S) == (name, "x", 1)
            assert worker.submit(current).result(WAIT_S) == NONE


def test_carried_work_may_run_in_several_threads_at_once() -> None:
    begin("one")
    both = threading.Barrier(2, timeout=WAIT_S)

    def work(_: int) -> str:
        both.wait()
        return current()

    with ThreadPoolExecutor(2) as workers:
        assert list(workers.map(carrying(work), range(2))) == ["one", "one"]


def test_two_requests_at_once_do_not_mix() -> None:
    both = threading.Barrier(2, timeout=WAIT_S)

    def serve(name: str) -> list[str]:
        begin(name)
        both.wait()
        with ThreadPoolExecutor(1) as worker:
            return [current(), worker.submit(carrying(current)).result(WAIT_S)]

    with ThreadPoolExecutor(2) as servers:
        assert list(servers.map(serve, ["one", "two"])) == [["one", "one"], ["two", "two"]]


def test_what_fails_leaves_the_thread_as_it_was() -> None:
    begin("one")

    def fail() -> NoReturn:
        raise ValueError(current())

    with working_for("two"):
        carried = carrying(fail)
    with pytest.raises(ValueError, match="two"):
        carried()
    assert current() == "one"


def test_each_log_record_has_the_id_and_none_is_dropped() -> None:
    seen: list[tuple[object, str]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((vars(record)["request_id"], record.getMessage()))

    handler = Handler()
    handler.addFilter(RequestIds())
    log = logging.getLogger("a logger of this test alone")
    log.addHandler(handler)
    log.warning("before")
    begin("one")
    log.warning("in it")
    end()
    log.warning("after")
    assert seen == [(NONE, "before"), ("one", "in it"), (NONE, "after")]
    assert request_ids.HEADER == "X-Request-ID"
