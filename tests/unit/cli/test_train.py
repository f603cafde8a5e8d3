"""`train`: what it prints of a run that ended."""

from __future__ import annotations

import pytest

from yolo_backend.cli.train import _tell
from yolo_backend.training.records import Comparison, ImageCounts, Result
from yolo_backend.training.things import things_of


@pytest.mark.parametrize(
    ("promoted", "reason", "line"),
    [
        (True, "It serves as the first model", "Run 3 serves. It serves as the first model"),
        (False, "It is worse than what serves", "Run 3 does not serve. It is worse than what serves"),
    ],
)
def test_whether_it_serves_and_why_are_two_sentences(
    promoted: bool, reason: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell(Result("3", promoted, reason, None, ImageCounts(12, 4), map50=Comparison(None, 0.5)), things_of("pose"))
    assert capsys.readouterr().out.splitlines()[0] == line
