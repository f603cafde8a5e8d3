"""Remarks about predictions: in the log, and the last ones kept, one for each task."""

from __future__ import annotations

import pytest

from yolo_backend.serving.remarks import Remark, RemarkLog


def test_the_last_remark_of_each_task_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    remarks = RemarkLog()
    for task_id, text in ((1, "first"), (2, "second"), (1, "third")):
        remarks.add(Remark("7", task_id, text))
    assert [(remark.task_id, remark.text) for remark in remarks.last()] == [(1, "third"), (2, "second")]
    assert caplog.messages == ["Task 1: first", "Task 2: second", "Task 1: third"]


def test_what_is_said_again_is_in_the_log_once_and_on_the_page_anew(caplog: pytest.LogCaptureFixture) -> None:
    remarks = RemarkLog()
    for project, task_id, text in (("7", 1, "a"), ("7", 2, "a"), ("7", 1, "a"), ("8", 1, "a"), ("7", 1, "b")) * 2:
        remarks.add(Remark(project, task_id, text))
    assert caplog.messages == ["Task 1: a", "Task 2: a", "Task 1: a", "Task 1: b"]
    assert [(each.project, each.task_id, each.text) for each in remarks.last()] == [
        ("7", 1, "b"),
        ("8", 1, "a"),
        ("7", 2, "a"),
    ]


def test_there_is_an_end_to_it() -> None:
    remarks = RemarkLog()
    for task_id in range(100):
        remarks.add(Remark("7", task_id, "too large"))
    assert [remark.task_id for remark in remarks.last()] == list(range(99, 79, -1))
