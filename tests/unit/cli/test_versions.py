"""What `versions` says of a version; what it finds is tested with the real Label Studio."""

from __future__ import annotations

import msgspec
import pytest

from yolo_backend.cli.versions import what_it_is
from yolo_backend.serving.version_records import VersionControl, VersionRecord

CONTROL = VersionControl("label", "cells.pt", "0123456789abcdef", (320, 320), {"RBC": 0.25, "WBC": 0.25})
LARGE = msgspec.structs.replace(CONTROL, image_size=(1280, 960))
OTHER = msgspec.structs.replace(CONTROL, thresholds={"RBC": 0.25, "WBC": 0.4})
RECORD = VersionRecord("cells-0123abcd", 1_790_000_000, 0.7, [CONTROL])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (RECORD, "cells.pt (01234567) at 320 px, above 0.25; since 2026-"),
        (msgspec.structs.replace(RECORD, controls=[LARGE]), "cells.pt (01234567) at 1280 px, above 0.25; since"),
        (
            msgspec.structs.replace(RECORD, controls=[OTHER]),
            "cells.pt (01234567) at 320 px, above RBC 0.25, WBC 0.4; since",
        ),
        (
            msgspec.structs.replace(RECORD, iou_threshold=0.5),
            "cells.pt (01234567) at 320 px, above 0.25, IoU 0.5; since",
        ),
    ],
)
def test_two_versions_of_the_same_weights_can_be_told_apart(record: VersionRecord, expected: str) -> None:
    assert what_it_is("cells-0123abcd", record).startswith(expected)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("cells-0123abcd", "this backend's, of before or elsewhere"), ("yolo-v8", "another system's")],
)
def test_a_version_that_nobody_wrote_down(version: str, expected: str) -> None:
    assert what_it_is(version, None) == expected
