"""Several weights in MODEL_NAME: what a training is compared with, and begins with, is what serves its labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fakes.outlined_label_studio import outlined_config
from tests.fakes.posed_label_studio import pose_config
from tests.harness.shapes import CLASS_NAMES, shapes_weights
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.settings import Settings, load_settings
from yolo_backend.training.base import serving_name

BOXES = "".join(f'<Label value="{label}"/>' for label in ("RBC", "WBC", "Platelets"))
THINGS = "".join(f'<Label value="{name}"/>' for name in CLASS_NAMES)
OF_TWO_KINDS = f"""<View><Image name="image" value="$image"/>
  <RectangleLabels name="box" toName="image">{BOXES}</RectangleLabels>
  <PolygonLabels name="outline" toName="image">{THINGS}</PolygonLabels></View>"""
WITH_CHOICES = f"""<View><Image name="image" value="$image"/>
  <RectangleLabels name="box" toName="image">{BOXES}</RectangleLabels>
  <Choices name="choice" toName="image">{THINGS.replace("Label", "Choice")}</Choices></View>"""


@pytest.fixture
def model_root(bccd_weights: Path, tmp_path: Path) -> Path:
    """A folder of weights of four kinds."""
    for name in ("pose", "classify", "segment"):
        shutil.copyfile(shapes_weights(name), tmp_path / f"{name}.pt")
    shutil.copyfile(bccd_weights, tmp_path / "bccd.pt")
    return tmp_path


def settings_of(names: str, model_root: Path) -> Settings:
    return load_settings(model_name=names, model_root=model_root, model_dir=model_root / "data", device="cpu")


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
    names: str, config: str, expected: str, model_root: Path
) -> None:
    assert serving_name(config, settings_of(names, model_root)) == expected
    assert not (model_root / "data" / "exports").exists()


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize(
    ("names", "config", "kind", "expected"),
    [
        ("bccd.pt, segment.pt", OF_TWO_KINDS, "segment", "segment.pt"),
        ("bccd.pt, segment.pt", OF_TWO_KINDS, "detect", "bccd.pt"),
        ("segment.pt, bccd.pt", OF_TWO_KINDS, "obb", "bccd.pt"),
        ("segment.pt, bccd.pt", OF_TWO_KINDS, None, "segment.pt"),
        ("bccd.pt, classify.pt", WITH_CHOICES, "classify", "classify.pt"),
    ],
)
def test_a_model_is_compared_with_what_serves_its_kind(
    names: str, config: str, kind: str | None, expected: str, model_root: Path
) -> None:
    assert serving_name(config, settings_of(names, model_root), kind) == expected


@pytest.mark.usefixtures("clean_environment")
def test_choices_that_are_peoples_own_are_not_trained_unasked(model_root: Path) -> None:
    settings = settings_of("classify.pt, bccd.pt", model_root)
    assert serving_name(WITH_CHOICES, settings) == "bccd.pt"
    asked = WITH_CHOICES.replace('name="choice"', 'name="choice" model_score_threshold="0.5"')
    assert serving_name(asked, settings) == "classify.pt"
