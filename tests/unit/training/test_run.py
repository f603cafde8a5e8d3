"""What a run goes by that earlier ones of its project leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from yolo_backend.settings import load_settings
from yolo_backend.training.diary import Diary
from yolo_backend.training.records import Manifest, Options
from yolo_backend.training.registry import Registry
from yolo_backend.training.run import TrainingRun


@pytest.mark.parametrize(
    ("earlier", "asked", "used"),
    [
        ([], None, None),
        ([], "patient", "patient"),
        ([("patient", True), (None, True)], None, "patient"),
        ([("patient", True), ("slide", True)], None, "slide"),
        ([("patient", True)], "slide", "slide"),
        # One without a manifest collected nothing.
        ([("patient", True), ("patinet", False)], None, "patient"),
        ([("patinet", False)], None, None),
        # None, on purpose.
        ([("patient", True)], "", None),
        ([("patient", True), ("", True)], None, None),
        ([("patient", True), ("", True)], "slide", "slide"),
    ],
)
def test_the_field_by_which_images_stay_together_is_that_of_earlier_runs(
    earlier: list[tuple[str | None, bool]], asked: str | None, used: str | None, tmp_path: Path
) -> None:
    models = Registry(tmp_path).project("7-00c0ffee")
    for field, has_collected in earlier:
        run = models.begin_run(Options("demo", 1, group_by=field))
        if has_collected:
            models.write_manifest(run.run, Manifest((), "base"))
    options = Options("demo", 1, group_by=asked)
    diary = Diary(models, models.begin_run(options))
    run_now = TrainingRun(options, tmp_path, load_settings(), cast("Any", None), models, diary)
    assert run_now.group_by == used
