"""What `prelabel` prints for people at its end."""

from __future__ import annotations

import pytest
from rich.console import Console

from yolo_backend.cli import prelabel as prelabel_module
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.prelabeling.prelabeling import Report


def failed(task_id: int, reason: str, address: str | None = None) -> Failure:
    return Failure("7", task_id, FailureKind.NOT_FOUND, reason, address)


def test_failures_of_one_reason_stand_together_the_most_frequent_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("cells-0123abcd", total=30, done=30, predicted=7, stored=6, already=2)
    report.failures = [failed(1, "it is gone", "a.jpg"), failed(2, "it is broken")]
    report.failures += [failed(number, "it is broken", f"{number}.jpg") for number in range(3, 24)]
    monkeypatch.setattr(prelabel_module, "out", Console(width=80))

    prelabel_module._tell(report, as_json=False)

    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "7 of 30 tasks predicted, 6 predictions stored as cells-0123abcd; 2 tasks had one already",
        "22 tasks are not predicted: it is broken",
        "  2",
        *(f"  {number}  {number}.jpg" for number in range(3, 22)),
        "  and 2 more, which --json lists",
        "1 task is not predicted: it is gone",
        "  1  a.jpg",
    ]
