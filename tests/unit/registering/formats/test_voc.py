from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.harness.pictures import turned as turned_pixels
from tests.unit.registering.formats.files import only, read, write
from yolo_backend.labels.places import corners_of_box
from yolo_backend.registering.label_files import read_labels
from yolo_backend.registering.objects import BOX, POLYGON, ROTATED, LabelFileError


def voc(*objects: str, filename: str = "a.jpg", size: str = "<width>200</width><height>100</height>") -> str:
    return (
        f"<annotation><folder>x</folder><filename>{filename}</filename><path>/data/x/{filename}</path>"
        f"<size>{size}<depth>3</depth></size><segmented>0</segmented>{''.join(objects)}</annotation>"
    )


def thing(place: str, name: str = "WBC") -> str:
    return f"<object><name>{name}</name><pose>Unspecified</pose><difficult>0</difficult>{place}</object>"


BOX_XML = "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>120</xmax><ymax>60.5</ymax></bndbox>"


@pytest.mark.parametrize("labels", [".", "Annotations", "Annotations/a.xml"])
def test_boxes_are_read_from_a_file_and_from_a_folder(tmp_path: Path, labels: str) -> None:
    write(tmp_path, {"Annotations/a.xml": '<?xml version="1.0"?>\n' + voc(thing(BOX_XML))})

    found = only(tmp_path / labels)

    assert (found.label, found.shape, found.score, found.box_xyxy) == ("WBC", BOX, None, (20, 10, 120, 60.5))
    assert found.where == f"{tmp_path}/Annotations/a.xml: object 1"


def test_a_file_is_of_the_image_of_its_name_first_and_else_of_the_one_that_it_names(tmp_path: Path) -> None:
    """People rename images together with their files, and what stands inside stays."""
    write(
        tmp_path,
        {
            "a.xml": voc(thing(BOX_XML, "of a"), filename="b.jpg"),
            "b.xml": voc(thing(BOX_XML, "of b"), filename="a.jpg"),
            "other.xml": voc(thing(BOX_XML, "of c"), filename="c.jpg"),
        },
    )

    labels = read_labels(tmp_path)
    found = labels.of([Path("a.jpg"), Path("b.jpg"), Path("c.jpg")])

    assert [found[Path(name)].boxes((200, 100))[0].label for name in ("a.jpg", "b.jpg", "c.jpg")] == [
        "of a", "of b", "of c"
    ]  # fmt: skip
    assert len(labels) == 3


def test_rotated_boxes_and_polygons_are_read(tmp_path: Path) -> None:
    rotated = "<robndbox><cx>100</cx><cy>50</cy><w>40</w><h>20</h><angle>0.5</angle></robndbox>"
    polygon = f"{BOX_XML}<polygon><x1>20</x1><y1>10</y1><x2>120</x2><y2>10</y2><x3>60</x3><y3>60</y3></polygon>"
    write(tmp_path, {"a.xml": voc(thing(rotated), thing(polygon))})

    turned, outlined = read(tmp_path).found

    assert (turned.shape, turned.box_xywhr) == (ROTATED, (100, 50, 40, 20, 0.5))
    assert (outlined.shape, outlined.outlines) == (POLYGON, (((20, 10), (120, 10), (60, 60)),))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_boxes_of_the_file_as_it_lies_are_turned(tmp_path: Path, orientation: int) -> None:
    """Programs that don't turn an image give its size as it lies, and boxes on it."""
    stored = np.zeros((100, 200, 3), np.uint8)
    stored[10:60, 20:120] = 255
    upright = turned_pixels(stored, orientation)
    rows, columns = np.nonzero(upright[..., 0])
    wanted = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    size_wh = (upright.shape[1], upright.shape[0])
    write(tmp_path, {"a.xml": voc(thing(BOX_XML.replace("60.5", "60")))})

    if size_wh == (200, 100):  # its size doesn't say how the file's program saw it: upright, as labelImg does
        wanted = (20, 10, 120, 60)

    assert only(tmp_path, size_wh=size_wh, orientation=orientation).box_xyxy == pytest.approx(wanted)


def test_a_rotated_box_of_the_file_as_it_lies_is_turned(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"a.xml": voc(thing("<robndbox><cx>50</cx><cy>50</cy><w>40</w><h>20</h><angle>0.5</angle></robndbox>"))},
    )

    found = only(tmp_path, size_wh=(100, 200), orientation=6)

    assert found.box_xywhr is not None
    corners = sorted(corners_of_box(found.box_xywhr))
    wanted = sorted((100 - y, x) for x, y in corners_of_box((50, 50, 40, 20, 0.5)))
    np.testing.assert_allclose(corners, wanted, atol=1e-3)


def test_a_size_that_is_neither_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.xml": voc(thing(BOX_XML))})

    with pytest.raises(LabelFileError, match=r"a\.xml is 200x100 there, but the image's file is 100x200"):
        read(tmp_path, size_wh=(100, 200))
    with pytest.raises(LabelFileError, match="is 200x100 there"):
        read(tmp_path, size_wh=(400, 200), orientation=6)


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>", "<width>x</width><height>1</height>"])
def test_without_a_size_any_will_do(tmp_path: Path, size: str) -> None:
    write(tmp_path, {"a.xml": voc(thing(BOX_XML), size=size)})

    assert only(tmp_path, size_wh=(400, 300)).box_xyxy == (20, 10, 120, 60.5)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (thing(""), "object 1 has no bndbox"),
        (thing(BOX_XML, " "), "object 1 has no name"),
        (thing(BOX_XML.replace("20<", "wide<")), "object 1: xmin should be a number of pixels, not wide"),
        (thing(BOX_XML.replace("20<", "nan<")), "object 1: xmin should be a number of pixels, not nan"),
        (thing(BOX_XML.replace("<xmin>20</xmin>", "")), "object 1: xmin should be a number of pixels, not nothing"),
        (thing("<polygon><x1>1</x1><y1>1</y1></polygon>"), "object 1: a polygon has three points at least"),
    ],
)
def test_an_odd_object_is_told_and_costs_no_other(tmp_path: Path, odd: str, message: str) -> None:
    write(tmp_path, {"a.xml": voc(odd, thing(BOX_XML))})

    of_image = read(tmp_path)

    assert len(of_image.found) == 1
    assert of_image.odd == [f"{tmp_path}/a.xml: {message}"]


BOMB = '<!DOCTYPE a [<!ENTITY b "{}"><!ENTITY c "{}">]><annotation><filename>&c;</filename></annotation>'.format(
    "x" * 10_000, "&b;" * 10_000
)
ELSEWHERE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><annotation><filename>&b;</filename></annotation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "defines entities, which no labels need: it isn't read"),
        (ELSEWHERE, "defines entities, which no labels need: it isn't read"),
        ("<annotation>", "is no whole XML: no element found"),
        (
            "<annotations><version>1.1</version></annotations>",
            "it is XML with <annotations>, as CVAT writes it: export",
        ),
        ("<html/>", "is no Pascal VOC: it is XML with <html>"),
    ],
    ids=["a bomb", "a file of the machine", "cut off", "CVAT", "a page"],
)
def test_what_is_no_voc_is_told_and_costs_no_other_file(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path, {"a.xml": voc(thing(BOX_XML)), "b.xml": content})

    with pytest.raises(LabelFileError) as caught:
        read_labels(tmp_path / "b.xml")
    of_image = read(tmp_path)

    assert message in str(caught.value)
    assert len(of_image.found) == 1
    assert of_image.odd == [str(caught.value)]
