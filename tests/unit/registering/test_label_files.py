from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from yolo_backend.registering.label_files import Labels, read_labels
from yolo_backend.registering.objects import FileObject, LabelFileError, ObjectsRead


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write files of text, or of JSON, into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return folder


def boxes_of(labels: Labels, image: Path | str, size_wh: tuple[int, int] = (200, 100)) -> list[FileObject]:
    return labels.of([image])[image].boxes(size_wh)


def read_of(labels: Labels, image: Path, size_wh: tuple[int, int] = (200, 100)) -> ObjectsRead:
    return labels.of([image])[image].objects(size_wh, 1)


def coco(**changes: Any) -> dict[str, Any]:
    """A COCO file of one image, a.jpg of 200x100, with one box."""
    image = {"id": 7, "file_name": "images/a.jpg", "width": 200, "height": 100}
    box = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [20, 10, 100, 50]}
    return {"images": [image], "annotations": [box], "categories": [{"id": 3, "name": "car"}], **changes}


GOOD_COCO: dict[str, Any] = {"id": 9, "image_id": 7, "category_id": 3, "bbox": [20, 10, 100, 50]}
BOX = {"label": "car", "x": 20, "y": 10, "width": 100, "height": 50, "score": 0.5}
LINE = {"image": "a.jpg", "boxes": [BOX]}


@pytest.mark.parametrize(
    "classes",
    [
        {"classes.txt": "person\ncar\n"},
        {"notes.json": {"categories": [{"id": 1, "name": "car"}, {"id": 0, "name": "person"}]}},
        {"data.yaml": "nc: 2\nnames: [person, car]\n"},
        {"data.yaml": "names:\n  0: person\n  1: car\n"},
        {"labels/classes.txt": "person\ncar"},
    ],
)
def test_yolo_counts_in_fractions_of_the_image(tmp_path: Path, classes: dict[str, Any]) -> None:
    write(tmp_path, {"labels/a.txt": "1 0.35 0.35 0.5 0.5\n\n0 0.5 0.5 1 1 0.25\n"} | classes)

    car, person = boxes_of(read_labels(tmp_path / "labels"), tmp_path / "a.jpg")

    assert (car.label, car.score, car.where) == ("car", None, f"{tmp_path}/labels/a.txt:1")
    assert car.box_xyxy == pytest.approx((20, 10, 120, 60))
    assert (person.label, person.score, person.where) == ("person", 0.25, f"{tmp_path}/labels/a.txt:3")
    assert person.box_xyxy == pytest.approx((0, 0, 200, 100))


def test_coco_counts_in_pixels(tmp_path: Path) -> None:
    write(tmp_path, {"result.json": coco()})
    labels = read_labels(tmp_path / "result.json")

    assert boxes_of(labels, Path("a.jpg")) == [
        FileObject("car", (20, 10, 120, 60), None, f"{tmp_path}/result.json: annotation 1")
    ]
    assert labels.of(["s3://bucket/a.jpg"])["s3://bucket/a.jpg"].size_wh == (200, 100)


def test_json_lines_count_in_pixels(tmp_path: Path) -> None:
    other = {"image": "b.jpg", "width": 200, "height": 100, "boxes": []}
    write(tmp_path, {"old.jsonl": f"{json.dumps(LINE)}\n\n{json.dumps(other)}\n"})
    labels = read_labels(tmp_path / "old.jsonl")

    assert boxes_of(labels, Path("a.jpg")) == [FileObject("car", (20, 10, 120, 60), 0.5, f"{tmp_path}/old.jsonl:1")]
    found = labels.of([Path("b.jpg")])[Path("b.jpg")]
    assert (found.size_wh, found.boxes((200, 100))) == ((200, 100), [])
    assert len(labels) == 2


@pytest.mark.parametrize(
    ("files", "image", "wanted"),
    [
        (["labels/train/a.txt", "labels/val/a.txt"], Path("/d/images/val/a.jpg"), "labels/val/a.txt"),
        (["labels/0123abcd-my_photo.txt"], Path("my photo.jpg"), "labels/0123abcd-my_photo.txt"),
        (["labels/a.txt"], Path("0123abcd-a.jpg"), "labels/a.txt"),
        (["labels/0123abcd-a.txt", "labels/a.txt"], Path("a.jpg"), "labels/a.txt"),
        (["labels/0123abcd__b%20c.txt"], "https://x/b%20c.jpg?sig=1", "labels/0123abcd__b%20c.txt"),
        (["labels/01234567__0123abcd-%C3%A4.txt"], Path("ä.jpg"), "labels/01234567__0123abcd-%C3%A4.txt"),
        (["labels/loc al.txt"], "/data/local-files/?d=sub/loc%20al.jpg", "labels/loc al.txt"),
        (["labels/a.b.txt"], Path("a.b.jpg"), "labels/a.b.txt"),
        (["labels/0123abcd-20250101-001.txt"], Path("20250101-001.jpg"), "labels/0123abcd-20250101-001.txt"),
        (["labels/0123abcd-a.txt"], Path("01234567__0123abcd-a.jpg"), "labels/0123abcd-a.txt"),
        (["labels/20250101-001.txt"], Path("20250102-001.jpg"), None),
        (["labels/1.txt"], Path("21.jpg"), None),
        (["labels/a.txt"], Path("b.jpg"), None),
    ],
    ids=[
        "by its folder", "uploaded by Label Studio", "exported by it", "the very name first", "downloaded by it",
        "both", "Local Files", "dots in the name", "a date in the name", "one prefix of two", "another date",
        "another number", "another name",
    ],
)  # fmt: skip
def test_whose_labels_they_are(tmp_path: Path, files: list[str], image: Path | str, wanted: str | None) -> None:
    write(tmp_path, dict.fromkeys(files, "") | {"classes.txt": "car"})

    found = read_labels(tmp_path).of([image]).get(image)

    assert (found and found.where) == (wanted and str(tmp_path / wanted))


def test_labels_that_could_be_of_one_image_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"labels/train/a.txt": "", "labels/val/a.txt": "", "classes.txt": "car"})

    with pytest.raises(LabelFileError, match=r"train/a\.txt and .*val/a\.txt could both be the labels of a\.jpg"):
        read_labels(tmp_path).of([Path("a.jpg")])


@pytest.mark.parametrize(
    ("files", "images", "owners"),
    [
        (["labels/train/1.txt"], ["images/train/1.jpg", "images/val/1.jpg"], ["images/train/1.jpg"]),
        (["labels/train/1.txt"], ["images/val/1.jpg", "images/train/1.jpg"], ["images/train/1.jpg"]),
        (["labels/1.txt"], ["20250101-1.jpg", "1.jpg"], ["1.jpg"]),
        (["labels/20250101-1.txt"], ["20250101-1.jpg", "20250102-1.jpg"], ["20250101-1.jpg"]),
        (["labels/1.txt"], ["1.jpg", "images/../1.jpg"], ["1.jpg", "images/../1.jpg"]),
    ],
    ids=["by its folder", "in any order", "its very name", "another date", "two spellings"],
)
def test_labels_are_of_one_image(tmp_path: Path, files: list[str], images: list[str], owners: list[str]) -> None:
    write(tmp_path, dict.fromkeys(files, "") | {"classes.txt": "car"})

    assert list(read_labels(tmp_path).of(map(Path, images))) == list(map(Path, owners))


def test_labels_that_could_be_of_two_images_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"labels/a.txt": "", "classes.txt": "car"})

    with pytest.raises(
        LabelFileError, match=r"labels/a\.txt could be the labels of day 1/a\.jpg and of https://host/a\.jpg\?\.\.\.$"
    ):
        read_labels(tmp_path).of([Path("day 1/a.jpg"), "https://host/a.jpg?sig=secret"])


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": coco()})

    with pytest.raises(LabelFileError, match=r"^The address of a\.jpg can't be read: Invalid IPv6 URL$"):
        read_labels(tmp_path / "a.json").of(["http://me:secret@[::1/a.jpg?sig=secret"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "a.txt:2 should be `class x y width height`"),
        ("car 0.5 0.5 0.1 0.1", "a.txt:2 should be `class x y width height`"),
        ("0 0.5 nan 0.1 0.1", "a.txt:2 should be `class x y width height`"),
        ("1 0.5 0.5 0.1 0.1", "a.txt:2: class 1 isn't one of the 1 in"),
        ("0.5 0.5 0.5 0.1 0.1", "a.txt:2: class 0.5 isn't one of the 1 in"),
        ("0 120 40 30 20", "a.txt:2: 120 is no fraction of the image: YOLO's numbers are from 0 to 1"),
        ("0 0.1 0.1 40 0.1 0.9 0.9", "a.txt:2: 40 is no fraction of the image"),
        ("0 0.5 0.5 0.1 0.1 95", "a.txt:2: the score should be from 0 to 1, not 95"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9 95", "a.txt:2: the score should be from 0 to 1, not 95"),
    ],
)
def test_an_odd_line_of_yolo_is_told_and_costs_no_other(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, {"a.txt": f"0 0.5 0.5 0.1 0.1\n{line}\n0 0.5 0.5 0.2 0.2\n", "classes.txt": "car"})

    read = read_of(read_labels(tmp_path), Path("a.jpg"))

    assert [thing.where[-1] for thing in read.found] == ["1", "3"]
    (told,) = read.odd
    assert message in told


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            coco(annotations=[{"image_id": 7, "category_id": 3}, GOOD_COCO]),
            "a.json: annotation 0: bbox: Field required",
        ),
        (
            "a.json",
            coco(annotations=[{"image_id": 8, "category_id": 3, "bbox": [0, 0, 1, 1]}, GOOD_COCO]),
            "a.json: annotation 0 is of image 8, which isn't among the images",
        ),
        (
            "a.json",
            coco(annotations=[GOOD_COCO | {"id": 1, "category_id": 5}, GOOD_COCO]),
            "annotation 1 is of category 5, which isn't among the categories",
        ),
        ("a.json", coco(annotations=[7, GOOD_COCO]), "a.json: annotation 0: image_id: Field required"),
        (
            "a.jsonl",
            json.dumps(LINE | {"boxes": [BOX | {"confidence": 1}, BOX]}),
            "a.jsonl:1: boxes.0.confidence: Extra inputs are not permitted",
        ),
        (
            "a.jsonl",
            json.dumps(LINE | {"boxes": [BOX | {"x": 1e300}, BOX]}),
            "a.jsonl:1: boxes.0.x: Input should be less than or equal to",
        ),
        ("a.jsonl", json.dumps(LINE | {"boxes": [None, BOX]}), "a.jsonl:1: boxes.0: Input should be an object"),
    ],
)
def test_an_odd_entry_is_told_and_costs_no_other(tmp_path: Path, name: str, content: Any, message: str) -> None:
    write(tmp_path, {name: content})

    labels = read_labels(tmp_path / name)
    read = read_of(labels, Path("a.jpg"))

    assert len(read.found) == 1
    (told,) = [*labels.odd, *read.odd]
    assert message in told


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        (
            {"a.txt": ""},
            ".",
            "has no classes.txt, data.yaml or obj.names with the names of the classes: give --classes",
        ),
        ({"classes.txt": "car"}, ".", "No .txt file is in the folder"),
        ({"a.txt": "", "data.yaml": "path: x"}, ".", "data.yaml should hold class names"),
        ({"a.txt": "", "data.yaml": "a: [b"}, ".", "data.yaml should hold class names"),
        ({"a.txt": "", "data.yaml": "names: nut"}, ".", "data.yaml should hold class names"),
        ({"a.txt": "", "notes.json": "{"}, ".", "notes.json should hold class names"),
        ({"a.txt": "", "notes.json": "[" * 100_000}, ".", "notes.json should hold class names"),
        ({"a.json": "{"}, "a.json", "a.json: Invalid JSON: EOF while parsing"),
        ({"a.json": "[" * 100_000}, "a.json", "a.json: Invalid JSON: recursion limit exceeded"),
        ({"a.json": '{"info":' + "[" * 100_000}, "a.json", "a.json: Invalid JSON: recursion limit exceeded"),
        ({"a.json": [{"image_id": 7}]}, "a.json", "is a list of COCO results: it needs images and categories, too"),
        ({"a.json": "7"}, "a.json", "a.json: Input should be an object"),
        ({}, "a" * 300, "can't be read: File name too long"),
        ({"a.jsonl": f"{json.dumps(LINE)}\n{{"}, "a.jsonl", "a.jsonl:2: Invalid JSON"),
        ({"a.jsonl": json.dumps({"boxes": []})}, "a.jsonl", "a.jsonl:1: image: Field required"),
        ({}, "a.csv", "a.csv is a table: export the labels as COCO, YOLO or Pascal VOC"),
        ({"a.doc": ""}, "a.doc", "a.doc should be YOLO, COCO, Pascal VOC, labelme, CreateML, Label Studio's JSON, "),
        ({}, "a.json", "a.json can't be read: No such file"),
        ({}, "labls", "labls isn't there: give a file or a folder of labels"),
    ],
)
def test_a_broken_file_is_told(tmp_path: Path, files: dict[str, Any], path: str, message: str) -> None:
    write(tmp_path, files)

    with pytest.raises(LabelFileError) as caught:
        read_labels(tmp_path / path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(LabelFileError, match=r"a\.json can't be read: it isn't text in UTF-8"):
        read_labels(tmp_path / "a.json")


def test_pixels_of_an_image_of_another_size_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": coco()})

    with pytest.raises(LabelFileError, match=r"image images/a\.jpg is 200x100 there, but the image's file is 400x200"):
        boxes_of(read_labels(tmp_path / "a.json"), Path("a.jpg"), (400, 200))


def test_only_of_label_studio_may_coco_tell_the_size_of_a_turned_image(tmp_path: Path) -> None:
    """Its export has the boxes of the upright image beside the size of the file as it lies."""
    write(tmp_path, {"a.json": coco(), "ls.json": coco(info={"contributor": "Label Studio"})})

    assert boxes_of(read_labels(tmp_path / "ls.json"), Path("a.jpg"), (100, 200))
    with pytest.raises(LabelFileError, match="200x100 there, but the image's file is 100x200"):
        boxes_of(read_labels(tmp_path / "a.json"), Path("a.jpg"), (100, 200))
    assert read_labels(tmp_path / "ls.json").of(["s3://b/a.jpg"])["s3://b/a.jpg"].size_wh is None
    assert read_labels(tmp_path / "a.json").of(["s3://b/a.jpg"])["s3://b/a.jpg"].size_wh == (200, 100)


def test_signatures_in_coco_are_not_told(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "https://host/a.jpg?sig=secret", "width": 200, "height": 100}
    write(tmp_path, {"a.json": coco(images=[image])})

    with pytest.raises(LabelFileError, match=r"image https://host/a\.jpg\?\.\.\. is 200x100 there"):
        boxes_of(read_labels(tmp_path / "a.json"), Path("a.jpg"), (400, 200))
