"""Pascal VOC's XML: boxes, rotated boxes (roLabelImg) and polygons (Roboflow), a file for each image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from yolo_backend.registering.objects import (
    FileObject,
    ImageLabels,
    LabelFileError,
    Point,
    SizeWH,
    box,
    of_image,
    polygon,
    rotated,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

SUFFIX = ".xml"
_FAR_PX = 1e9


def read_voc(file: Path) -> tuple[str, ImageLabels]:
    """The image's name as the file says it, and its labels. Raises LabelFileError."""
    root = _parse(file)
    if root.tag != "annotation":
        raise LabelFileError(f"{file} is no Pascal VOC: it is XML with <{root.tag}>{_what_it_seems(root.tag)}")
    readers = [
        partial(_object, element, f"{file}: object {number}")
        for number, element in enumerate(root.findall("object"), 1)
    ]
    return root.findtext("filename", "").strip(), of_image(str(file), readers, _size(root), may_be_as_it_lies=True)


def _parse(file: Path) -> Element:
    """The root of an XML that defines no entities, which could unfold to gigabytes, and fetches nothing."""
    try:
        root: Element = fromstring(file.read_bytes(), forbid_dtd=False)
    except OSError as error:
        raise LabelFileError(f"{file} can't be read: {error.strerror}") from None
    except DefusedXmlException:
        raise LabelFileError(f"{file} defines entities, which no labels need: it isn't read") from None
    except (ParseError, ValueError, LookupError) as error:
        raise LabelFileError(f"{file} is no whole XML: {error}") from None
    return root


def _what_it_seems(tag: str) -> str:
    known = {
        "annotations": ", as CVAT writes it: export it as COCO or YOLO",
        "dataset": ", as dlib writes it: export it as COCO or YOLO",
    }
    return known.get(tag, "")


def _size(root: Element) -> SizeWH | None:
    """The size that the file gives; None where it gives none, or 0."""
    try:
        width, height = (int(float(root.findtext(f"size/{side}", "0"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _object(element: Element, where: str) -> FileObject:
    label = element.findtext("name", "").strip()
    if not label:
        raise LabelFileError(f"{where} has no name")
    if (outline := element.find("polygon")) is not None:
        return polygon(label, [list(_corners(outline, where))], None, where)
    if (turned := element.find("robndbox")) is not None:
        x, y, width, height, radians = (_number(turned, name, where) for name in ("cx", "cy", "w", "h", "angle"))
        return rotated(label, (x, y, width, height, radians), None, where)
    place = element.find("bndbox")
    if place is None:
        raise LabelFileError(f"{where} has no bndbox")
    left, top, right, bottom = (_number(place, name, where) for name in ("xmin", "ymin", "xmax", "ymax"))
    return box(label, (left, top, right, bottom), None, where)


def _corners(outline: Element, where: str) -> Iterator[Point]:
    """The points x1, y1, x2, y2 and so on, or a `<pt>` for each."""
    if points := outline.findall("pt"):
        yield from ((_number(point, "x", where), _number(point, "y", where)) for point in points)
        return
    number = 1
    while outline.find(f"x{number}") is not None:
        yield _number(outline, f"x{number}", where), _number(outline, f"y{number}", where)
        number += 1


def _number(element: Element, name: str, where: str) -> float:
    text = element.findtext(name)
    try:
        number = float(text or "")
    except ValueError:
        number = _FAR_PX * 2
    if not abs(number) <= _FAR_PX:
        raise LabelFileError(f"{where}: {name} should be a number of pixels, not {text or 'nothing'}")
    return number
