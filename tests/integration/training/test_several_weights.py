"""Several weights in MODEL_NAME: what a training is compared with, and begins with, is what serves its labels."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.labelled_label_studio import CREATED_AT, PROJECT
from tests.fakes.outlined_label_studio import OutlinedLabelStudio, outlined_config
from tests.fakes.posed_label_studio import pose_config
from tests.harness.http_server import StartServer
from tests.harness.shapes import CLASS_NAMES, shapes_weights
from tests.harness.studio_client import BCCD_CONFIG
from tests.harness.training_house import House
from yolo_backend.detection.checkpoints import write_checkpoint
from yolo_backend.detection.record import TrainedRecord
from yolo_backend.protocol import project_key, sent_project
from yolo_backend.settings import Settings, load_settings
from yolo_backend.training.base import serving_name
from yolo_backend.training.errors import TrainingError
from yolo_backend.training.launch import Order
from yolo_backend.training.networks import read_base
from yolo_backend.training.records import Options
from yolo_backend.training.registry import WEIGHTS, Registry
from yolo_backend.training.run import begin_run
from yolo_backend.training.stages import _Stages

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


# A model of another kind than MODEL_NAME's


@pytest.fixture
def outlined(serve: StartServer, model_root: Path) -> House:
    """A project with polygons, where MODEL_NAME finds boxes."""
    return House(serve, model_root / "bccd.pt", model_root / "data", OutlinedLabelStudio(scenes=1))


def serve_masks(house: House, *bases: str, kind: str = "segment") -> None:
    """Runs with these bases, whose models served one after the other."""
    key = project_key(str(house.settings.label_studio_url), sent_project(PROJECT, CREATED_AT))
    assert key
    models = Registry(house.settings.model_dir).project(key)
    for base in bases:
        run = models.begin_run(Options(base, 1))
        record = TrainedRecord(dict.fromkeys(CLASS_NAMES, 0.5), run.run, key, kind)
        write_checkpoint(shapes_weights(kind), models.folder_of(run.run) / WEIGHTS, record)
        models.write(replace(run, state="ended", verdict="promote", kind=kind))
        models.promote(run.run)


def base_of_the_button(house: House) -> Path:
    with begin_run(Order(PROJECT, Options(house.settings.model_names[0], 1), {}), house.settings) as run:
        return run.base


@pytest.mark.parametrize("bases", [["segment.pt"], ["segment.pt", "bccd.pt"], ["segment.pt", "gone.pt", "pose.pt"]])
def test_the_button_goes_on_with_the_base_of_the_model_that_serves(outlined: House, bases: list[str]) -> None:
    assert base_of_the_button(outlined).name == "bccd.pt"
    serve_masks(outlined, *bases)
    assert base_of_the_button(outlined) == outlined.settings.model_root / "segment.pt"


def test_a_run_records_the_base_that_it_began_with(outlined: House) -> None:
    """By which the button goes on when MODEL_NAME doesn't list it any more."""
    one_name = outlined.settings
    outlined.settings = one_name.model_copy(update={"model_name": "bccd.pt, segment.pt"})
    with begin_run(Order(PROJECT, Options("bccd.pt", 1), {}), outlined.settings) as run:
        assert run.options.base == "segment.pt"
    models, name = run.models, run.diary.run.run
    record = TrainedRecord(dict.fromkeys(CLASS_NAMES, 0.5), name, models.key, "segment")
    write_checkpoint(shapes_weights("segment"), models.folder_of(name) / WEIGHTS, record)
    models.write(replace(models.run(name), state="ended", verdict="promote", kind="segment"))
    models.promote(name)
    outlined.settings = one_name
    assert base_of_the_button(outlined) == outlined.settings.model_root / "segment.pt"
    assert [run.options.base for run in models.runs() if run.options] == ["segment.pt", "segment.pt"]


def test_of_the_demo_and_other_weights_the_others_may_have_seen_the_images(outlined: House) -> None:
    settings = outlined.settings.model_copy(update={"model_name": "demo, segment.pt"})
    with begin_run(Order(PROJECT, Options("demo", 1), {}), settings) as run:
        assert _Stages(run)._may_have_seen(read_base(run.base)) == "segment.pt"


def test_of_several_names_the_button_goes_on_with_those_of_the_kind_that_serves(outlined: House) -> None:
    serve_masks(outlined, "gone.pt")
    outlined.settings = outlined.settings.model_copy(update={"model_name": "bccd.pt, segment.pt"})
    assert base_of_the_button(outlined).name == "segment.pt"


def test_a_base_that_the_operator_named_by_its_path_is_found_again(outlined: House) -> None:
    serve_masks(outlined, str(shapes_weights("segment").resolve()))
    assert base_of_the_button(outlined) == shapes_weights("segment").resolve()


def test_a_base_that_is_gone_is_told_before_a_run_begins(outlined: House) -> None:
    serve_masks(outlined, "gone.pt")
    with pytest.raises(TrainingError, match=r"^A segment model serves project \d+, bccd\.pt .* --base NAME\.pt`"):
        base_of_the_button(outlined)
    assert [run.run for run in outlined.models.runs()] == ["1"]


def test_a_model_that_can_learn_from_no_control_any_more_is_not_gone_on_with(outlined: House) -> None:
    serve_masks(outlined, "pose.pt", kind="pose")
    assert base_of_the_button(outlined).name == "bccd.pt"


def test_a_named_base_stays_what_was_named(outlined: House) -> None:
    serve_masks(outlined, "segment.pt")
    order = Order(PROJECT, Options("bccd.pt", 1), {}, may_be_path=True)
    with begin_run(order, outlined.settings) as run:
        assert run.base.name == "bccd.pt"
