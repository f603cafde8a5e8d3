"""Which versions are this backend's own; what becomes of them is tested in test_prelabeling.py."""

from __future__ import annotations

import pytest

from yolo_backend.prelabeling.model_versions import is_own


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("yolo26n-00ab12cd", True),
        ("my weights-v2-00ab12cd", True),
        ("best-12345678", True),
        ("best-99999999", True),
        ("yolo", False),
        ("-00ab12cd", False),
        ("yolo26n-00AB12CD", False),
        ("yolo26n-00ab12cde", False),
        ("yolo26n-00ab12c", False),
        ("yolo26n-00ab12cd-2", False),
        ("resnet-20260131", False),
        ("resnet-19991231", False),
        ("", False),
    ],
)
def test_a_name_and_eight_digits_that_are_no_date(version: str, expected: bool) -> None:
    assert is_own(version) is expected
