"""Fitting for real: small scenes, small weights, CPU seconds."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from ultralytics import YOLO

from tests.harness.detections import MakeWeights
from tests.harness.findings import box, labelled
from tests.harness.shapes import CLASS_NAMES, draw_shapes, shapes_weights
from tests.harness.stack import ROOT
from yolo_backend.demo.scenes import draw_scene
from yolo_backend.detection.contents import content_problem
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.masks import Mask
from yolo_backend.detection.weights import file_fingerprint
from yolo_backend.labels.outlines import nested_outlines_of
from yolo_backend.settings import load_settings
from yolo_backend.training import fitting
from yolo_backend.training.dataset import write_dataset
from yolo_backend.training.finding import find_boxes
from yolo_backend.training.fitting import FitProgress, FitSpec, Fitted, FittingError, fit, is_out_of_memory
from yolo_backend.training.labelled import LabelledBox
from yolo_backend.training.matching import TrueBoxes, match_all
from yolo_backend.training.networks import Base, read_base
from yolo_backend.training.pace import cpu_seconds
from yolo_backend.training.scores import as_they_are, score

ALLOCATION_FAILED = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "68719476736 bytes. Error code 12 (Cannot allocate memory)"
)


def spec(data: Path, base: Base, folder: Path, **more: Any) -> FitSpec:
    values: dict[str, Any] = {
        "data": data,
        "base": base,
        "known": {},
        "weights": folder / "weights.pt",
        "budget_s": 600,
        "image_size": 96,
    }
    return FitSpec(**values | more)


@pytest.mark.proof
def test_a_minute_teaches_labels_that_the_base_doesn_t_know(scenes: Path, cells: Base, tmp_path: Path) -> None:
    told: list[FitProgress] = []
    began = cpu_seconds()
    fitted = fit(spec(scenes, cells, tmp_path, image_size=160, budget_s=60), told.append)
    took = cpu_seconds() - began
    assert fitted.score is not None
    assert fitted.score > 0.3
    assert took <= 66
    assert took >= 45, "much of the budget isn't used"
    assert [each.epoch for each in told] == sorted(each.epoch for each in told)
    assert told[-1].epoch == told[-1].epochs == fitted.epochs
    assert told[-1].seconds_left == 0
    assert any(each.score for each in told[:-1])
    assert YOLO(fitted.weights).names == {0: "nut", 1: "bolt", 2: "washer"}


@pytest.fixture(scope="module")
def fitted(few_scenes: Path, cells: Base, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Three steps, to look at what comes out."""
    return fit(spec(few_scenes, cells, tmp_path_factory.mktemp("fitted"), steps=3))


def test_the_candidate_is_weights_as_ultralytics_saves_them(fitted: Fitted) -> None:
    assert content_problem(fitted.weights) is None
    assert fitted.fingerprint == file_fingerprint(fitted.weights)
    yolo = YOLO(fitted.weights)
    assert not yolo.model.is_fused()
    assert (yolo.task, yolo.overrides["imgsz"]) == ("detect", 96)
    assert yolo.predict(draw_scene(1).image, verbose=False)
    again = read_base(fitted.weights)  # which another training may begin with
    assert (again.image_size, again.kind) == (96, "detect")


def test_the_candidate_says_nothing_of_the_machine(fitted: Fitted) -> None:
    saved = torch.load(fitted.weights, weights_only=False)
    assert saved.keys() == {"model", "train_args", "version"}
    with zipfile.ZipFile(fitted.weights) as archive:
        (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    found = re.findall(rb"/(?:tmp|home|root|work|usr|var)/[ -~]*", pickled)
    assert not found
    assert fitted.weights.stat().st_size < 2_500_000  # without the optimizer


def test_nothing_is_left_behind(fitted: Fitted) -> None:
    assert [path.name for path in fitted.weights.parent.iterdir()] == ["weights.pt"]


def test_the_same_numbers_make_the_same_weights(fitted: Fitted, few_scenes: Path, cells: Base, tmp_path: Path) -> None:
    assert fit(spec(few_scenes, cells, tmp_path, steps=3)).fingerprint == fitted.fingerprint
    assert fit(spec(few_scenes, cells, tmp_path, steps=3, seed=1)).fingerprint != fitted.fingerprint


def test_a_class_that_can_not_be_drawn_is_left_as_it_begins(few_scenes: Path, cells: Base, tmp_path: Path) -> None:
    """Here on no image, so that nothing moves the bias of its row; images of more than one kind make no mosaics."""
    described = yaml.safe_load(few_scenes.read_text())
    files = sorted((few_scenes.parent / described["train"]).iterdir())
    data = few_scenes.with_name("drawable.yaml")
    data.write_text(yaml.safe_dump(described | {"drawable": {file.stem: [0, 1] for file in files}}))
    made = fit(spec(data, cells, tmp_path, steps=6))
    saved = torch.load(made.weights, weights_only=False)
    assert saved["train_args"]["mosaic"] == 0
    head = saved["model"].model[-1]
    begun = [torch.tensor(math.log(5 / 3 / (640 / stride) ** 2)).half() for stride in head.stride.tolist()]
    biases = torch.stack([layers[-1].bias for layers in head.cv3])
    assert biases[:, 2].tolist() == [float(each) for each in begun]
    assert (biases[:, :2] != torch.stack(begun)[:, None]).any()


@pytest.mark.proof
def test_a_run_is_made_again_from_its_numbers(few_scenes: Path, cells: Base, tmp_path: Path) -> None:
    """The steps of the first were measured, and it looked at the validation images meanwhile."""
    first = fit(spec(few_scenes, cells, tmp_path, budget_s=12))
    assert first.score is not None
    again = fit(spec(few_scenes, cells, tmp_path, steps=first.steps, batch=first.batch))
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(ALLOCATION_FAILED),
        MemoryError(),
        pytest.param(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), marks=pytest.mark.proof),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 262144 bytes."),
            marks=pytest.mark.proof,
        ),
    ],
)
def test_out_of_memory_halves_the_batch(
    error: Exception,
    few_scenes: Path,
    cells: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step, batches = fitting._step, []

    def step_with_little_memory(trainer: Any, batch: Any, pace: Any) -> None:
        batches.append(len(batch["img"]))
        if len(batches) == 2:
            raise error
        step(trainer, batch, pace)

    monkeypatch.setattr(fitting, "_step", step_with_little_memory)
    with caplog.at_level(logging.WARNING):
        fitted = fit(spec(few_scenes, cells, tmp_path, steps=2, batch=4))
    assert fitted.batch == 2
    assert batches == [4, 2, 2, 2]
    assert "the batch is halved to 2" in caplog.text


def test_memory_that_never_suffices_is_told_with_what_to_do(
    few_scenes: Path, cells: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_without_memory(*_: Any) -> None:
        raise RuntimeError(ALLOCATION_FAILED)

    monkeypatch.setattr(fitting, "_step", step_without_memory)
    with pytest.raises(FittingError, match=r"one image at a time: .*--image-size"):
        fit(spec(few_scenes, cells, tmp_path, steps=2, batch=2))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("expected scalar type Half but found Float"))


def test_numbers_that_run_away_end_it_with_what_to_do(
    few_scenes: Path, cells: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = fitting._step

    def step_into_nowhere(trainer: Any, batch: Any, pace: Any) -> None:
        step(trainer, batch, pace)
        next(iter(trainer.model.parameters())).data.fill_(float("nan"))

    monkeypatch.setattr(fitting, "_step", step_into_nowhere)
    with pytest.raises(FittingError, match=r"The training diverged in step 2, .*--seed"):
        fit(spec(few_scenes, cells, tmp_path, steps=4))


def test_what_comes_before_the_first_step_takes_no_time_from_it(
    few_scenes: Path, cells: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as decoding large photographs: of a short budget one step was left."""
    set_up = fitting._DetectionLoop._setup_train

    def set_up_slowly(trainer: Any) -> None:
        ends_at = cpu_seconds() + 2.5
        while cpu_seconds() < ends_at:
            pass
        set_up(trainer)

    monkeypatch.setattr(fitting._DetectionLoop, "_setup_train", set_up_slowly)
    assert fit(spec(few_scenes, cells, tmp_path, budget_s=2)).steps > 1


@pytest.mark.parametrize(("name", "is_mirrored"), [("nut", True), ("left nut", False)])
def test_images_are_mirrored_unless_a_label_tells_sides(
    name: str, is_mirrored: bool, few_scenes: Path, cells: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for folder in ("images", "labels"):
        (data / folder).symlink_to(few_scenes.parent / folder)
    described = few_scenes.read_text().replace("nut", name).replace(str(few_scenes.parent), str(data))
    (data / "data.yaml").write_text(described)
    flips = []
    monkeypatch.setattr(fitting, "_step", lambda trainer, batch, pace: flips.append(trainer.args.fliplr))
    fit(spec(data / "data.yaml", cells, tmp_path, steps=1))
    assert flips == [0.5 if is_mirrored else 0.0]


def test_without_validation_images_it_trains_all_the_same(few_scenes: Path, cells: Base, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in ("images", "labels"):
        (data / folder / "val").mkdir(parents=True)
        (data / folder / "train").symlink_to(few_scenes.parent / folder / "train")
    (data / "data.yaml").write_text(few_scenes.read_text().replace(str(few_scenes.parent), str(data)))
    fitted = fit(spec(data / "data.yaml", cells, tmp_path, budget_s=5))
    assert (fitted.score, fitted.weights.exists()) == (None, True)


def test_smaller_images_than_can_be_trained_on_are_shown_larger(few_scenes: Path, cells: Base, tmp_path: Path) -> None:
    """MODEL_IMAGE_SIZE may be 32."""
    assert fit(spec(few_scenes, cells, tmp_path, steps=1, image_size=32)).image_size == 64


def test_scores_of_known_classes_are_there_from_the_first_step(scenes: Path, tmp_path: Path) -> None:
    """The demo's weights know the classes under other numbers."""
    demo = read_base(ROOT / "yolo_backend" / "demo" / "demo.pt")
    data = tmp_path / "data"
    data.mkdir()
    for folder in ("images", "labels"):
        (data / folder).symlink_to(scenes.parent / folder)
    known = {"nut": (0,), "bolt": (1,), "washer": (2,)}
    (data / "data.yaml").write_text(scenes.read_text().replace(str(scenes.parent), str(data)))
    fitted = fit(spec(data / "data.yaml", demo, tmp_path, known=known, steps=1, image_size=320))
    scene = draw_scene(70_001)
    found = YOLO(fitted.weights).predict(np.ascontiguousarray(scene.image[..., ::-1]), verbose=False, conf=0.3)[0]
    assert len(found.boxes) >= 0.6 * len(scene.class_ids)


CALLS_HOME = """
import sys
from pathlib import Path

told = Path(sys.argv[1])

def watch(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
        with told.open("a") as file:
            file.write(f"{event} {arguments!r}\\n")

sys.addaudithook(watch)
from yolo_backend.training.fitting import FitSpec, fit
from yolo_backend.training.networks import read_base

data, base, weights = map(Path, sys.argv[2:])
fit(FitSpec(data=data, base=read_base(base), known={}, weights=weights, budget_s=6, image_size=96))
assert weights.exists()
"""
LOGGERS = ("wandb", "comet_ml", "clearml", "mlflow", "dvclive", "ray", "tensorboard")


def test_nothing_calls_home_whatever_the_users_settings(few_scenes: Path, bccd_weights: Path, tmp_path: Path) -> None:
    settings = tmp_path / "config" / "Ultralytics" / "settings.json"
    settings.parent.mkdir(parents=True)
    told = tmp_path / "told"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("YOLO_") and "PYTEST" not in name
    } | {
        "YOLO_CONFIG_DIR": str(settings.parent.parent),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "loggers"), str(ROOT)]),
    }
    # As Ultralytics writes it, with everything turned on.
    subprocess.run([sys.executable, "-c", "import ultralytics"], env=environment, check=True, cwd=tmp_path)
    on = json.loads(settings.read_text())
    on |= {name: True for name, value in on.items() if isinstance(value, bool)} | {"api_key": "0" * 40}
    assert {"wandb", "comet", "clearml", "mlflow", "dvc", "tensorboard", "sync"} <= on.keys()
    settings.write_text(json.dumps(on))
    for name in LOGGERS:
        package = tmp_path / "loggers" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"open({str(told)!r}, 'a').write('{name}\\n')\n__version__ = '9.9'\n")
    arguments = [str(told), str(few_scenes), str(bccd_weights), str(tmp_path / "weights.pt")]
    done = subprocess.run(
        [sys.executable, "-c", CALLS_HOME, *arguments],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not told.exists(), told.read_text()
    assert json.loads(settings.read_text()) == on


def test_obb_weights_are_fitted_to_rotated_boxes_and_find_such(make_weights: MakeWeights, tmp_path: Path) -> None:
    """A few steps: nothing is learned by them, but the file is one that serves rotated rectangles."""
    base = read_base(make_weights("yolo11n-obb"))
    images = []
    for number in range(4):
        file = tmp_path / f"{number}.jpg"
        Image.fromarray(np.full((96, 128, 3), 60 * number, np.uint8)).save(file)
        drawn = LabelledBox("bar", (34, 20, 94, 76), (64.0, 48.0, 60.0, 16.0, 0.7))
        images.append(replace(labelled(number, [], size_wh=(128, 96), file=file), boxes=(drawn,)))
    data = write_dataset(tmp_path / "data", images, images[:1], ["bar"], kind="obb")
    fitted = fit(spec(data, base, tmp_path, steps=3, batch=2))
    again = read_base(fitted.weights)
    assert (again.kind, again.class_names) == ("obb", {0: "bar"})
    settings = load_settings(model_dir=tmp_path / "models", device="cpu", engine="torch", model_image_size=96)
    found = find_boxes(Engine.as_set(fitted.weights, settings), images, {0: ("bar",)}, max_megapixels=10)
    assert all(each.boxes.shape[1] == 5 for each in found.images)


@pytest.mark.proof
def test_segmentation_weights_are_fitted_to_outlines_and_find_masks(tmp_path: Path) -> None:
    """A few steps, from weights that know the things: what they find is still what is there, with holes."""
    base = read_base(shapes_weights("segment"))
    images = []
    for number in range(6):
        scene = draw_shapes(7000 + number, (160, 120))
        file = tmp_path / f"{number}.png"
        Image.fromarray(scene.image).save(file)
        boxes = []
        for thing in scene.things:
            lines = tuple(
                tuple((x, y) for x, y in line.tolist()) for line in nested_outlines_of(Mask.of_bitmap(thing.mask))
            )
            boxes.append(replace(box(CLASS_NAMES[thing.class_id], thing.box_xyxy.tolist()), outlines=lines))
        images.append(replace(labelled(number, [], size_wh=(160, 120), file=file), boxes=tuple(boxes)))
    data = write_dataset(tmp_path / "data", images[:4], images[4:], CLASS_NAMES, kind="segment")
    known = {name: (number,) for number, name in enumerate(CLASS_NAMES)}
    fitted = fit(spec(data, base, tmp_path, known=known, image_size=160, steps=3, batch=2))
    again = read_base(fitted.weights)
    assert (again.kind, tuple(again.class_names.values())) == ("segment", CLASS_NAMES)
    settings = load_settings(model_dir=tmp_path / "models", device="cpu", engine="torch", model_image_size=160)
    names = {number: (name,) for number, name in enumerate(CLASS_NAMES)}
    found = find_boxes(Engine.as_set(fitted.weights, settings), images, names, max_megapixels=10)
    truths = [TrueBoxes.of(image.boxes, image.size_wh, CLASS_NAMES) for image in images]
    assert score(match_all(truths, found.images, CLASS_NAMES), as_they_are(6)).map50().value > 0.4
