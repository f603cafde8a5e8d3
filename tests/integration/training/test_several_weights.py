"""Several weights in MODEL_NAME: what a training is compared with, and begins with, is what serves its labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fakes.outlined_label_studio import outlined_config
from tests.fakes.posed_label_studio import pose_config
from tests.harness.shapes import CLASS_NAMES, shapes_weights
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.settings import load_settings
from yolo_backend.training.base import serving_name


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(
    ("names", "config", "expected"),
    [
        ("pose.pt, bccd.pt", BCCD_CONFIG, "bccd.pt"),
        ("classify.pt, pose.pt, bccd.pt", BCCD_CONFIG, "bccd.pt"),
        ("bccd.pt, pose.pt", BCCD_CONFIG, "bccd.pt"),
        ("pose.pt, bccd.pt", BCCD_CONFIG.replace('"RBC"', '"ring"'), "pose.pt"),
        ("pose.pt, bccd.pt", "<View/>", "pose.pt"),
        ("gone.pt", BCCD_CONFIG, "gone.pt"),
        ("bccd.pt, segment.pt", outlined_config(), "segment.pt"),
        ("bccd.pt, pose.pt", pose_config(), "pose.pt"),
        ("bccd.pt, pose.pt", pose_config(CLASS_NAMES), "pose.pt"),
    ],
)
def test_it_is_what_serves_that_on_which_it_can_be_trained(
    names: str, config: str, expected: str, bccd_weights: Path, tmp_path: Path
) -> None:
    for name in ("pose", "classify", "segment"):
        shutil.copyfile(shapes_weights(name), tmp_path / f"{name}.pt")
    shutil.copyfile(bccd_weights, tmp_path / "bccd.pt")
    settings = load_settings(model_name=names, model_root=tmp_path, model_dir=tmp_path / "data", device="cpu")
    assert serving_name(config, settings) == expected
    assert not (tmp_path / "data" / "exports").exists()
