"""Each task that fails has one line, and a cause that they share comes first."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import CommonCause, Failure, FailureLog
from yolo_backend.request_ids import RequestIds, working_for

COMMON = "Project 7: none of {} tasks is predicted, for one cause: {}"


def failure(task_id: int, reason: str = "404 Not Found", kind: FailureKind = FailureKind.HTTP_ERROR) -> Failure:
    return Failure("7", task_id, kind, reason, "http://images/1.jpg")


def line(task_id: int, reason: str = "404 Not Found") -> str:
    return f"Task {task_id} is not predicted: http://images/1.jpg: {reason}"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def failures() -> FailureLog:
    return FailureLog()


@pytest.fixture
def cause(failures: FailureLog) -> CommonCause:
    return CommonCause("7", failures)


def test_nothing_failed(cause: CommonCause, caplog: pytest.LogCaptureFixture) -> None:
    cause.close()
    cause.succeeded()
    cause.close()
    assert messages(caplog) == []


def test_a_common_cause_comes_first(cause: CommonCause, caplog: pytest.LogCaptureFixture) -> None:
    for task_id in (1, 2, 3):
        cause.failed(failure(task_id))
    assert messages(caplog) == []
    cause.close()
    assert messages(caplog) == [COMMON.format(3, "404 Not Found"), line(1), line(2), line(3)]
    assert caplog.records[0].levelno == logging.ERROR
    cause.close()
    assert len(caplog.records) == 4


def test_one_task_alone_needs_no_common_cause(cause: CommonCause, caplog: pytest.LogCaptureFixture) -> None:
    cause.failed(failure(1))
    cause.close()
    assert messages(caplog) == [line(1)]


@pytest.mark.parametrize("other", [failure(2, "500 Oops"), failure(2, kind=FailureKind.BROKEN)], ids=["reason", "kind"])
def test_with_two_causes_each_line_comes_at_once(
    cause: CommonCause, caplog: pytest.LogCaptureFixture, other: Failure
) -> None:
    cause.failed(failure(1))
    cause.failed(other)
    assert messages(caplog) == [line(1), line(2, other.reason)]
    cause.failed(failure(3))
    assert messages(caplog)[2:] == [line(3)]
    cause.close()
    assert len(caplog.records) == 3


@pytest.mark.parametrize("succeeds_first", [False, True])
def test_where_one_succeeds_each_line_comes_at_once(
    cause: CommonCause, caplog: pytest.LogCaptureFixture, succeeds_first: bool
) -> None:
    steps: list[Callable[[], None]] = [cause.succeeded, lambda: cause.failed(failure(1))]
    for step in steps if succeeds_first else reversed(steps):
        step()
    assert messages(caplog) == [line(1)]
    cause.failed(failure(2))
    assert messages(caplog) == [line(1), line(2)]
    cause.close()
    assert len(caplog.records) == 2


def test_the_next_request_has_a_cause_of_its_own(cause: CommonCause, caplog: pytest.LogCaptureFixture) -> None:
    cause.succeeded()
    cause.failed(failure(1))
    cause.close()
    for task_id in (2, 3):
        cause.failed(failure(task_id))
    cause.close()
    assert messages(caplog) == [line(1), COMMON.format(2, "404 Not Found"), line(2), line(3)]


def test_a_line_that_was_held_back_is_one_of_its_own_request(
    cause: CommonCause, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes it, which may be another request's thread."""
    caplog.handler.addFilter(ids := RequestIds())
    try:
        for task_id, request_id in enumerate(["one", "two"]):
            with working_for(request_id):
                cause.failed(failure(task_id))
        with working_for("last"):
            cause.close()
    finally:
        caplog.handler.removeFilter(ids)
    assert [vars(record)["request_id"] for record in caplog.records] == ["last", "one", "two"]
    assert messages(caplog)[1:] == [line(0), line(1)]


def number(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_failures_are_counted_by_kind(cause: CommonCause, failures: FailureLog) -> None:
    def numbers() -> tuple[float, ...]:
        kinds = ("http_error", "broken")
        return (
            number("yolo_tasks_total", outcome="failed"),
            *(number("yolo_image_failures_total", kind=kind) for kind in kinds),
        )

    before = numbers()
    cause.failed(failure(1))
    cause.failed(failure(2, kind=FailureKind.BROKEN))
    cause.failed(failure(3))
    failures.add(failure(4))
    cause.close()
    assert [now - then for now, then in zip(numbers(), before, strict=True)] == [4, 3, 1]


def test_the_last_failures_are_kept_the_newest_first(failures: FailureLog) -> None:
    for task_id in range(150):
        failures.add(failure(task_id))
    assert [kept.task_id for kept in failures.last()] == list(range(149, 49, -1))


@pytest.mark.parametrize(
    ("failed", "text"),
    [
        (Failure("7", 1, FailureKind.HTTP_ERROR, "404 Not Found"), "Task 1 is not predicted: 404 Not Found"),
        (Failure("7", None, FailureKind.HTTP_ERROR, "no"), "Task None is not predicted: no"),
        (
            Failure("7", 1, FailureKind.HTTP_ERROR, "no", "/data/upload/a.jpg"),
            "Task 1 is not predicted: /data/upload/a.jpg: no",
        ),
    ],
)
def test_its_line(failed: Failure, text: str) -> None:
    assert str(failed) == text
