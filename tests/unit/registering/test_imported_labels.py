from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image as PillowImage

from tests.harness.pictures import encode
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.labels.control import Control
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.registering.finding import FileOrAddress
from yolo_backend.registering.imported_labels import Labelled, add_labels
from yolo_backend.registering.items import Item
from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.objects import LabelFileError

(CONTROL,) = parse_labeling_config(BCCD_CONFIG).controls


def box(label: str = "RBC", x: float = 20, y: float = 10, width: float = 100, height: float = 50, **more: Any) -> Any:
    return {"label": label, "x": x, "y": y, "width": width, "height": height, **more}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image of 200x100."""
    path = tmp_path / "a.png"
    path.write_bytes(encode(PillowImage.new("RGB", (200, 100))))
    return path


def add(
    folder: Path,
    images: list[FileOrAddress],
    *lines: dict[str, Any],
    control: Control = CONTROL,
    version: str | None = "old",
) -> Labelled:
    (folder / "old.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return add_labels(images, read_labels(folder / "old.jsonl"), control, version)


def test_boxes_become_predictions(tmp_path: Path, photo: Path) -> None:
    boxes = [box(score=0.9), box("platelets", -20, 50, 40, 100, score=0.8)]

    (item,) = add(tmp_path, [photo], {"image": "a.png", "boxes": boxes}).items

    prediction: Any
    (prediction,) = item.predictions
    first, second = prediction["result"]
    assert (prediction["model_version"], prediction["score"]) == ("old", pytest.approx(0.85))
    assert first | {"id": ""} == {
        "id": "",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "value": {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["RBC"]},
        "score": 0.9,
    }
    assert second["value"] == {
        "x": 0, "y": 50, "width": 10, "height": 50, "rotation": 0, "rectanglelabels": ["Platelets"]
    }  # fmt: skip
    assert LabelInterface(BCCD_CONFIG).validate_prediction(prediction, return_errors=True) == []
    assert item.annotations == ()


def test_boxes_without_scores_become_predictions_without(tmp_path: Path, photo: Path) -> None:
    boxes = [box(), box(score=0.5)]

    (item,) = add(tmp_path, [photo], {"image": "a.png", "boxes": boxes}).items

    (prediction,) = item.predictions
    assert "score" not in prediction
    assert [region.get("score") for region in prediction["result"]] == [None, 0.5]
    assert LabelInterface(BCCD_CONFIG).validate_prediction(prediction, return_errors=True) == []


def test_boxes_become_annotations(tmp_path: Path, photo: Path) -> None:
    (item,) = add(tmp_path, [photo], {"image": "a.png", "boxes": [box()]}, version=None).items

    assert item.predictions == ()
    assert [len(annotation["result"]) for annotation in item.annotations] == [1]


def test_an_image_without_boxes_and_one_without_labels(tmp_path: Path, photo: Path) -> None:
    labelled = add(
        tmp_path, [photo, "s3://bucket/b.jpg"], {"image": "a.png", "boxes": []}, {"image": "c.png", "boxes": []}
    )

    assert labelled.items == [
        Item(photo, predictions=[{"result": [], "model_version": "old"}]),
        Item("s3://bucket/b.jpg"),
    ]
    assert labelled.unused == 1


def test_thresholds_of_the_labeling_config_do_not_matter(tmp_path: Path, photo: Path) -> None:
    config = BCCD_CONFIG.replace("<RectangleLabels ", '<RectangleLabels model_score_threshold="0.9" ')
    (control,) = parse_labeling_config(config).controls

    (item,) = add(tmp_path, [photo], {"image": "a.png", "boxes": [box(score=0.0), box()]}, control=control).items

    assert len(item.predictions[0]["result"]) == 2


def test_predicted_values_are_read(tmp_path: Path, photo: Path) -> None:
    (control,) = parse_labeling_config(
        BCCD_CONFIG.replace('value="RBC"', 'value="RBC" predicted_values="red"')
    ).controls

    (item,) = add(tmp_path, [photo], {"image": "a.png", "boxes": [box("red"), box("RBC")]}, control=control).items

    assert [region["value"]["rectanglelabels"] for region in item.predictions[0]["result"]] == [["RBC"], ["RBC"]]


def test_boxes_of_a_list_of_images_are_on_its_first_page(tmp_path: Path, photo: Path) -> None:
    (control,) = parse_labeling_config(BCCD_CONFIG.replace('value="$image"', 'valueList="$image"')).controls

    (item,) = add(tmp_path, [photo], {"image": "a.png", "boxes": [box()]}, control=control).items

    assert item.predictions[0]["result"][0]["item_index"] == 0


@pytest.mark.parametrize("place", [(20, 10, 0, 5), (20, 10, 5, -5), (200, 10, 50, 50), (-60, -60, 50, 50)])
def test_boxes_without_area_on_their_image_are_told(tmp_path: Path, photo: Path, place: tuple[float, ...]) -> None:
    labelled = add(tmp_path, [photo], {"image": "a.png", "boxes": [box(), box("RBC", *place)]})

    assert [box.where for box in labelled.without_area] == [f"{tmp_path}/old.jsonl:1"]
    assert len(labelled.items[0].predictions[0]["result"]) == 1


@pytest.mark.parametrize("version", ["old", None])
def test_an_image_all_of_whose_boxes_are_off_it_gets_no_labels(
    tmp_path: Path, photo: Path, version: str | None
) -> None:
    other = tmp_path / "b.png"
    other.write_bytes(photo.read_bytes())
    lines = [{"image": "a.png", "boxes": [box(x=1000)] * 2}, {"image": "b.png", "boxes": [box()]}]

    labelled = add(tmp_path, [photo, other], *lines, version=version)

    assert [(len(item.predictions), len(item.annotations)) for item in labelled.items] == [
        (0, 0),
        (1, 0) if version else (0, 1),
    ]
    assert len(labelled.without_area) == 2
    assert dict(labelled.told) == {"images have no labels, because none of theirs can be registered": 1}


def test_where_all_boxes_are_off_their_images_nothing_is_registered(tmp_path: Path, photo: Path) -> None:
    """Else they couldn't be registered with better labels afterwards."""
    with pytest.raises(
        LabelFileError,
        match=r"old\.jsonl: none of its objects can be registered: 2 have no area on their image \(.*old\.jsonl:1\): ",
    ):
        add(tmp_path, [photo], {"image": "a.png", "boxes": [box(x=1000), box(y=1000)]})


def test_what_is_off_its_image_became_nothing_else(tmp_path: Path, photo: Path) -> None:
    lines = ["0 0.1 0.1 0.5 0.1 0.5 0.9", "0 1.1 1.1 1.5 1.1 1.5 1.9"]
    (tmp_path / "classes.txt").write_text("RBC")
    (tmp_path / "a.txt").write_text("\n".join(lines))

    labelled = add_labels([photo], read_labels(tmp_path / "a.txt"), CONTROL, None)

    assert list(labelled.told.values()) == [1]
    assert len(labelled.without_area) == 1


def test_an_address_takes_its_size_from_the_labels(tmp_path: Path) -> None:
    line = {"image": "b.jpg", "width": 400, "height": 200, "boxes": [box()]}

    (item,) = add(tmp_path, ["s3://bucket/b.jpg"], line).items

    region = item.predictions[0]["result"][0]
    assert (region["original_width"], region["value"]["width"]) == (400, 25)


def test_an_image_gets_no_other_images_labels(tmp_path: Path, photo: Path) -> None:
    other = tmp_path / "val" / "a.png"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())

    items = add(tmp_path, [other, photo], {"image": f"{tmp_path.name}/a.png", "boxes": [box()]}).items

    assert [len(item.predictions) for item in items] == [0, 1]


@pytest.mark.parametrize(
    ("name", "label", "image", "message"),
    [
        ("a.png", "Dog", None, 'old.jsonl:1: "Dog" is no label of "label", which has RBC, WBC, Platelets'),
        ("b.jpg", "RBC", "https://b/b.jpg?sig=secret", "the size of https://b/b.jpg?... isn't known"),
        ("c.jpg", "RBC", "https://b/b.jpg?sig=secret", "labels fit neither https://b/b.jpg?... nor another"),
        ("b.jpg", "RBC", "s3://bucket/b.jpg", "old.jsonl:1: the size of s3://bucket/b.jpg isn't known"),
        ("c.png", "RBC", None, "its 1 labels fit neither "),
        (
            "broken.png",
            "RBC",
            Path("broken.png"),
            "The size of broken.png can't be told: is a web page (HTML), though named .png: ",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_told(
    tmp_path: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    label: str,
    image: FileOrAddress | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_bytes(b"<html>")

    with pytest.raises(LabelFileError) as caught:
        add(tmp_path, [image or photo], {"image": name, "boxes": [box(), box(label)]})
    assert message in str(caught.value)


def test_boxes_for_labels_with_a_rectangle_are_two_regions_of_one_id(tmp_path: Path, photo: Path) -> None:
    config = BCCD_CONFIG.replace("RectangleLabels", "Labels").replace(
        "</View>", '<Rectangle name="place" toName="image"/></View>'
    )
    (control,) = parse_labeling_config(config).controls

    (item,) = add(tmp_path, [photo], {"image": "a.png", "boxes": [box(score=0.9), box()]}, control=control).items

    (prediction,) = item.predictions
    assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
    assert [(region["from_name"], region.get("score")) for region in prediction["result"]] == [
        ("place", 0.9),
        ("label", 0.9),
        ("place", None),
        ("label", None),
    ]
    assert len({region["id"] for region in prediction["result"]}) == 2


@pytest.mark.parametrize("name", ["odd", "train"])
def test_a_file_that_is_no_text_costs_no_other(tmp_path: Path, photo: Path, name: str) -> None:
    other = tmp_path / f"{name}.png"
    other.write_bytes(photo.read_bytes())
    labels = tmp_path / "labels"
    labels.mkdir()
    (tmp_path / "classes.txt").write_text("RBC")
    (labels / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    (labels / f"{name}.txt").write_bytes("0 0.5 0.5 0.2 0.2".encode("utf-16"))
    (control,) = parse_labeling_config(BCCD_CONFIG).controls

    labelled = add_labels([photo, other], read_labels(labels), control, None)

    assert [len(item.annotations) for item in labelled.items] == [1, 0]
    assert labelled.odd == [f"{labels}/{name}.txt can't be read: it isn't text in UTF-8"]


def test_a_file_with_another_size_than_its_image_costs_no_other(tmp_path: Path, photo: Path) -> None:
    other = tmp_path / "b.png"
    other.write_bytes(photo.read_bytes())
    thing = "<object><name>RBC</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
    for name, width in (("a", 200), ("b", 640)):
        size = f"<size><width>{width}</width><height>100</height></size>"
        (tmp_path / f"{name}.xml").write_text(f"<annotation>{size}{thing}</annotation>")
    (control,) = parse_labeling_config(BCCD_CONFIG).controls

    labelled = add_labels([photo, other], read_labels(tmp_path), control, None)

    assert [len(item.annotations) for item in labelled.items] == [1, 0]
    assert labelled.odd == [f"{tmp_path}/b.xml is 640x100 there, but the image's file is 200x100 (turned upright)"]


def test_relations_between_regions_are_told_once(tmp_path: Path, photo: Path) -> None:
    other = tmp_path / "b.png"
    other.write_bytes(photo.read_bytes())
    place = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["RBC"]}
    common = {"from_name": "label", "to_name": "image", "original_width": 200, "original_height": 100}
    regions = [{"id": name, "type": "rectanglelabels", "value": place, **common} for name in ("one", "two")]
    relation = {"from_id": "one", "to_id": "two", "type": "relation", "direction": "right"}
    counts = {"a.png": 2, "b.png": 1, "elsewhere.png": 5}
    tasks = [
        {"data": {"image": name}, "annotations": [{"result": [*regions, *[relation] * count]}]}
        for name, count in counts.items()
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))

    labelled = add_labels(
        [photo, other], read_labels(tmp_path / "export.json"), CONTROL, None, label_config=BCCD_CONFIG
    )

    assert labelled.told == {"relations between regions are left out": 3}
    assert labelled.odd == []
    assert [[region["id"] for region in item.annotations[0]["result"]] for item in labelled.items] == [
        ["one", "two"],
        ["one", "two"],
    ]
