"""What weights find in labelled images: Ultralytics' own boxes, with the labels that serve."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from ultralytics import YOLO

from tests.harness.detections import BOX_TOLERANCE_PX, SCORE_TOLERANCE, MakeWeights, ultralytics_detections
from tests.harness.findings import labelled as labelled_image
from tests.harness.shapes import CLASS_NAMES, draw_shapes, shapes_weights
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.detection.engine import Engine
from yolo_backend.images.decode import decode_image
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import Settings, load_settings
from yolo_backend.training.finding import FindingError, find_boxes, labels_of_classes
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.labelled import LabelledImage

NAMES = {0: ("RBC",), 1: ("WBC",), 2: ("Platelets",)}
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="cells" toName="image"><Label value="red" predicted_values="RBC"/><Label value="Platelets"/>
</RectangleLabels>
<RectangleLabels name="others" toName="image"><Label value="round" predicted_values="RBC,WBC"/>
<Label value="Platelets"/></RectangleLabels></View>"""


@pytest.fixture
def settings(clean_environment: pytest.MonkeyPatch, model_dir: Path) -> Settings:
    return load_settings(model_dir=model_dir, device="cpu", engine="torch")


@pytest.fixture
def images(bccd_files: list[Path]) -> list[LabelledImage]:
    return [labelled_image(number, [], file=file) for number, file in enumerate(bccd_files[:6])]


def find(engine: Engine, images: list[LabelledImage], **options: Any) -> Findings:
    return find_boxes(engine, images, **{"labels_of_class": NAMES, "max_megapixels": 10, **options})


def assert_as_ultralytics(
    found: Findings, images: list[LabelledImage], yolo: Any, names: dict[int, tuple[str]]
) -> None:
    for those, image in zip(found.images, images, strict=True):
        pixels = decode_image(image.file.read_bytes(), 10).pixels
        expected = ultralytics_detections(yolo, pixels, 0.01)
        assert len(expected) > 0
        assert those.is_rotated == expected.rotated
        assert those.labels == tuple(names[number][0] for number in expected.class_ids.tolist())
        np.testing.assert_allclose(those.boxes, expected.boxes, rtol=0, atol=BOX_TOLERANCE_PX)
        np.testing.assert_allclose(those.scores, expected.scores, rtol=0, atol=SCORE_TOLERANCE)
        assert those.scores.min() < 0.1


def test_boxes_are_ultralytics_boxes_down_to_0_01(
    settings: Settings, bccd_weights: Path, images: list[LabelledImage]
) -> None:
    found = find(Engine.as_set(bccd_weights, settings), images)
    assert found.labels == {"RBC", "WBC", "Platelets"}
    assert_as_ultralytics(found, images, YOLO(bccd_weights), NAMES)


def test_what_can_not_be_drawn_on_an_image_is_not_found_there(
    settings: Settings, bccd_weights: Path, images: list[LabelledImage]
) -> None:
    engine = Engine.as_set(bccd_weights, settings)
    (everything,) = find(engine, images[:1]).images
    assert {"RBC", "WBC"} <= set(everything.labels)
    (found,) = find(engine, [replace(images[0], labels=frozenset({"RBC"}))]).images
    assert found.labels == tuple(label for label in everything.labels if label == "RBC")


def test_rotated_boxes_are_too(
    settings: Settings,
    make_weights: MakeWeights,
    images: list[LabelledImage],
) -> None:
    weights = make_weights("yolo11n-obb")
    found = find(Engine.as_set(weights, settings), images[:2])
    assert all(those.is_rotated for those in found.images)
    assert_as_ultralytics(found, images[:2], YOLO(weights), NAMES)


def test_the_export_that_serves_finds_nearly_the_same(
    settings: Settings, bccd_weights: Path, images: list[LabelledImage]
) -> None:
    """Its images come from several threads, and in their order."""
    told: list[tuple[int, int]] = []
    engine = Engine.as_set(bccd_weights, settings.model_copy(update={"engine": "auto"}))
    assert engine.runtime.engine == "onnx"
    exported = find(engine, images, told=lambda done, of: told.append((done, of)))
    assert told == [(done, 6) for done in range(1, 7)]
    for ones, others in zip(exported.images, find(Engine.as_set(bccd_weights, settings), images).images, strict=True):
        clear = others.scores > 0.3
        assert clear.sum() > 5
        np.testing.assert_allclose(ones.boxes[: clear.sum()], others.boxes[clear], atol=1)


def test_the_settings_that_serve_count(settings: Settings, bccd_weights: Path, images: list[LabelledImage]) -> None:
    few = settings.model_copy(update={"model_max_detections": 3, "model_image_size": 160})
    engine = Engine.as_set(bccd_weights, few)
    assert engine.info.image_size == (160, 160)
    assert [len(those.labels) for those in find(engine, images).images] == [3] * 6


def test_large_images_are_decoded_as_they_are_where_it_serves(
    settings: Settings, bccd_weights: Path, images: list[LabelledImage], tmp_path: Path
) -> None:
    """With DECODE=fast a server sees other pixels of a large JPEG, so it finds other boxes, but not of a PNG."""
    large = tmp_path / "large.jpg"
    with Image.open(images[0].file) as photograph:
        photograph.resize((2560, 1920)).save(large, quality=95)
    jpeg = replace(images[0], file=large, size_wh=(2560, 1920))
    small = settings.model_copy(update={"model_image_size": 320})
    engine = Engine.as_set(bccd_weights, small)
    picture = "data:image/jpeg;base64," + base64.b64encode(large.read_bytes()).decode()

    def served(decode: str) -> list[float]:
        changed = {"decode": decode, "model_name": bccd_weights.name, "model_root": bccd_weights.parent}
        with closing(Predictor(small.model_copy(update=changed))) as predictor:
            (prediction,) = predictor.predict([{"id": 1, "data": {"image": picture}}], BCCD_CONFIG)
        return sorted(region["score"] for region in prediction["result"])

    def found(image: LabelledImage, decode: Literal["full", "fast"]) -> list[float]:
        (those,) = find(engine, [image], decode=decode).images
        return sorted(those.scores[those.scores > small.model_score_threshold].tolist())

    full, fast = served("full"), served("fast")
    assert full != pytest.approx(fast, abs=1e-4)
    assert found(jpeg, "full") == pytest.approx(full, abs=1e-4)
    assert found(jpeg, "fast") == pytest.approx(fast, abs=1e-4)
    assert found(replace(jpeg, is_jpeg=False), "fast") == found(jpeg, "full")


def test_labels_are_those_of_the_label_map(settings: Settings, bccd_weights: Path, images: list[LabelledImage]) -> None:
    """Two controls make two boxes of a class, unless they call it the same."""
    controls = parse_labeling_config(CONFIG).controls
    classes = {number: name for number, (name,) in NAMES.items()}
    labels = labels_of_classes(map_labels(control, classes, 0.25) for control in controls)
    assert labels == {0: ("red", "round"), 1: ("round",), 2: ("Platelets",)}
    engine = Engine.as_set(bccd_weights, settings)
    found, plain = find(engine, images, labels_of_class=labels).images, find(engine, images).images

    def count(those: Sequence[FoundBoxes], label: str) -> int:
        return sum(each.labels.count(label) for each in those)

    reds, whites, platelets = (count(plain, label) for label in ("RBC", "WBC", "Platelets"))
    assert min(reds, whites, platelets) > 0
    assert [count(found, label) for label in ("red", "round", "Platelets")] == [reds, reds + whites, platelets]
    assert all((np.diff(each.scores) <= 0).all() for each in found)


def test_a_class_without_a_label_is_left_out(
    settings: Settings, bccd_weights: Path, images: list[LabelledImage]
) -> None:
    found = find(Engine.as_set(bccd_weights, settings), images[:2], labels_of_class={1: ("WBC",)})
    assert found.labels == {"WBC"}
    assert {label for those in found.images for label in those.labels} == {"WBC"}


def test_an_image_that_is_gone_is_named(
    settings: Settings, bccd_weights: Path, images: list[LabelledImage], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(images[0].file.read_bytes()[:3000])
    engine = Engine.as_set(bccd_weights, settings)
    for file, why in ((tmp_path / "gone.jpg", "No such file or directory"), (broken, "the image is broken")):
        with pytest.raises(FindingError) as caught:
            find(engine, [*images[:2], replace(images[2], file=file)])
        assert str(caught.value).startswith(f"The image of task 2 can't be read from {file} ({why}")
        assert str(caught.value).endswith("): start the training anew")


# Masks


def test_masks_are_ultralytics_masks(settings: Settings, tmp_path: Path) -> None:
    """Of an image as large as the grid in which they are compared, and those of a larger one in that grid."""
    weights = shapes_weights("segment")
    names = {number: (name,) for number, name in enumerate(CLASS_NAMES)}
    small = settings.model_copy(update={"model_image_size": 160})
    engine, yolo = Engine.as_set(weights, small), YOLO(weights)
    for size_wh in ((320, 240), (960, 1280)):
        file = tmp_path / f"{size_wh[0]}.png"
        small_wh = (320, 240) if size_wh[0] > size_wh[1] else (240, 320)
        Image.fromarray(draw_shapes(11, small_wh).image).resize(size_wh).save(file)
        image = labelled_image(1, [], file=file, size_wh=size_wh)
        (found,) = find(engine, [image], labels_of_class=names).images
        pixels = np.ascontiguousarray(decode_image(file.read_bytes(), 10).pixels[..., ::-1])
        (expected,) = yolo.predict(
            pixels, conf=0.01, iou=small.model_iou_threshold, imgsz=160, retina_masks=True, verbose=False
        )
        assert len(found.labels) == len(expected) > 1
        assert found.masks_wh == ((320, 240) if size_wh == (320, 240) else (480, 640))
        np.testing.assert_allclose(found.boxes, expected.boxes.xyxy.numpy(), rtol=0, atol=BOX_TOLERANCE_PX)
        assert found.masks
        factor = size_wh[0] // found.masks_wh[0]
        for mask, theirs in zip(found.masks, expected.masks.data.numpy().astype(bool), strict=True):
            ours = np.zeros(found.masks_wh[::-1], np.bool_)
            left, top, width, height = mask.window_xywh
            ours[top : top + height, left : left + width] = mask.bitmap()
            if factor == 1:
                np.testing.assert_array_equal(ours, theirs)
            else:
                share = theirs.reshape(ours.shape[0], factor, ours.shape[1], factor).mean(axis=(1, 3))
                np.testing.assert_array_equal(ours[share == 1], True)
                np.testing.assert_array_equal(ours[share == 0], False)


def test_masks_of_large_images_take_little_memory(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    Image.fromarray(draw_shapes(11, (320, 240)).image).resize((4000, 3000)).save(file)
    image = labelled_image(1, [], file=file, size_wh=(4000, 3000))
    engine = Engine.as_set(shapes_weights("segment"), settings.model_copy(update={"model_image_size": 160}))
    (found,) = find(
        engine, [image], labels_of_class={0: ("bar",), 1: ("ring",), 2: ("arrow",)}, max_megapixels=20
    ).images
    assert found.masks
    assert found.masks_wh == (640, 480)
    assert all(mask.nbytes <= 4 * (4 * 480 + 1) for mask in found.masks)
