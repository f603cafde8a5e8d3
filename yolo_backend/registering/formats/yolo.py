"""YOLO's text files: boxes, rotated boxes by their corners, polygons and key points, also mixed in one file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import yaml

from yolo_backend.registering.formats.parsing import pairs, read_text
from yolo_backend.registering.objects import (
    MISSING_POINT,
    BoxXYXY,
    Entry,
    FileObject,
    ImageLabels,
    KeyPoint,
    LabelFileError,
    ObjectsRead,
    SizeWH,
    box,
    key_points,
    polygon,
    quadrilateral,
    read_each,
)

SUFFIX = ".txt"
_CLASS_FILES = (
    "classes.txt", "notes.json", "data.yaml", "dataset.yaml", "data.yml", "obj.names", "_darknet.labels",
    "predefined_classes.txt",
)  # fmt: skip
_ABOUT_THE_DATA = ("*.yaml", "*.yml", "*.names", "obj.data", "*.data")
_FAR_OUTSIDE = 2.0  # in images; a box beyond the edge is clipped, but a number beyond this is no fraction
_NUMBERS_OF_A_BOX = 4
_VISIBILITIES = {0.0, 1.0, 2.0}
_SEEN = 2.0  # a visibility, and so far off the image that no polygon has it
_EXPECTED = (
    "should be `class x y width height`, all numbers, perhaps with a score behind, or a polygon "
    "(`class x1 y1 x2 y2 x3 y3 ...`), a rotated box (its four corners) or key points behind the box, and no more"
)


@dataclass(frozen=True)
class Classes:
    """The names of classes by their numbers, and of their key points: how many, in how many numbers each, and names."""

    path: Path
    names: Mapping[int, str]
    points: tuple[int, int] | None = None
    point_names: Mapping[int, tuple[str, ...]] | None = None

    def of(self, number: float, where: str) -> str:
        """The class of this number. Raises LabelFileError."""
        if number not in self.names:
            raise LabelFileError(f"{where}: class {number:g} isn't one of the {len(self.names)} in {self.path}")
        return self.names[int(number)]


def is_about_the_data(file: Path) -> bool:
    """Returns True for the text files beside labels that are none: names of classes, lists of images, a readme."""
    name = file.name.lower()
    return name in _CLASS_FILES or name.startswith("readme") or _is_list(file)


def entries(files: Sequence[Path], classes: Classes) -> Iterator[Entry]:
    """The labels of each file: they are of the image with its name."""
    data_set = _DataSet(files, classes)
    for file in files:
        yield str(file.with_suffix("")), ImageLabels(str(file), partial(_objects, file, data_set))


def find_classes(folder: Path, given: Path | None) -> Classes:
    """The names of classes: of the file that is given, or of one in the folder or in those above. Raises."""
    if given is not None:
        return read_classes(given)
    folders = [folder, folder.parent]
    folders += [folder.parent.parent] if folder.parent.name == "labels" else []  # labels/train of Ultralytics' layout
    for parent in folders:
        for name in _CLASS_FILES:
            if (parent / name).is_file():
                return read_classes(parent / name)
        others = sorted({file for pattern in _ABOUT_THE_DATA for file in parent.glob(pattern) if file.is_file()})
        named = [file for file in others if _has_names(file)]
        if len(named) == 1:
            return read_classes(named[0])
    raise LabelFileError(
        f"{folder} has no classes.txt, data.yaml or obj.names with the names of the classes: give --classes"
    )


def read_classes(path: Path) -> Classes:
    """Names of classes: a name a line, a data.yaml, Label Studio's notes.json, or Darknet's obj.data. Raises."""
    text = read_text(path)
    try:
        if path.suffix.lower() in {".yaml", ".yml"}:
            return _of_yaml(path, yaml.safe_load(text))
        if path.suffix.lower() == ".json":
            categories = json.loads(text)["categories"]
            return Classes(path, {int(category["id"]): str(category["name"]) for category in categories})
        if path.suffix.lower() == ".data":
            said = dict(line.replace(" ", "").split("=", 1) for line in text.splitlines() if "=" in line)
            return read_classes(path.parent / Path(said["names"]).name)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LabelFileError(f"{path} should hold class names: `names` of a data.yaml, or a notes.json") from None
    return Classes(path, {number: line.strip() for number, line in enumerate(text.rstrip().splitlines())})


def _of_yaml(path: Path, content: Mapping[str, object]) -> Classes:
    names = _numbered(content["names"])
    shape = content.get("kpt_shape")
    points = (int(shape[0]), int(shape[1])) if isinstance(shape, list) and len(shape) == 2 else None
    named = content.get("kpt_names")
    of_each = named if isinstance(named, dict) else dict.fromkeys(names, named) if isinstance(named, list) else {}
    point_names = {int(number): tuple(map(str, each)) for number, each in of_each.items() if each}
    return Classes(path, names, points, point_names)


def _numbered(names: object) -> dict[int, str]:
    if not isinstance(names, list | dict):
        raise TypeError("names are a list, or by number")
    numbered = enumerate(names) if isinstance(names, list) else names.items()
    return {int(number): str(name) for number, name in numbered}


def _has_names(file: Path) -> bool:
    try:
        return bool(read_classes(file).names)
    except LabelFileError:
        return False


def _is_list(file: Path) -> bool:
    """Returns True for Darknet's lists of images, such as train.txt: a path a line."""
    if file.stem.lower() not in {"train", "val", "valid", "test"}:
        return False
    try:
        lines = read_text(file).splitlines()
    except LabelFileError:
        return False  # it is told as one of labels
    first = next((line for line in lines if line.strip()), "")
    return bool(first) and not first.lstrip()[0].isdigit()


class _DataSet:
    """What the lines of all files say together: whether they have key points, where no data.yaml says so."""

    def __init__(self, files: Sequence[Path], classes: Classes) -> None:
        self.classes = classes
        self._files = files

    def points_shape(self, numbers: Sequence[float]) -> tuple[int, int] | None:
        """How many key points are behind the box, in how many numbers each; None where there are none.

        Without the data.yaml that says it, they are those with a visibility each: 0, 1 or 2. A polygon that touches the
        edges of the image may look like that, but has no 2; without one, most of the data set's lines have to agree.
        """
        behind = len(numbers) - _NUMBERS_OF_A_BOX
        if self.classes.points:
            count, each = self.classes.points
            return self.classes.points if behind - count * each in {0, 1} else None
        if not _look_like_points(numbers):
            return None
        is_pose = _SEEN in numbers[_NUMBERS_OF_A_BOX + 2 :: 3] or len(numbers) == self._numbers_of_most
        return (behind // 3, 3) if is_pose else None

    @cached_property
    def _numbers_of_most(self) -> int | None:
        """How many numbers most lines with more than a box have, if there are several and they look like key points."""
        total = 0
        alike: Counter[int] = Counter()
        for _, numbers in filter(None, map(_parsed, self._lines())):
            if len(numbers) > _NUMBERS_OF_A_BOX + 1:
                total += 1
                alike[len(numbers)] += _look_like_points(numbers)
        count, lines = next(iter(alike.most_common(1)), (0, 0))
        return count if lines > max(1, total / 2) else None

    def _lines(self) -> Iterator[str]:
        for file in self._files:
            with suppress(LabelFileError):  # it is told where its image's labels are read
                yield from read_text(file).splitlines()


def _objects(file: Path, data_set: _DataSet, size_wh: SizeWH, _orientation: int) -> ObjectsRead:
    lines = enumerate(read_text(file).splitlines(), 1)
    return read_each(
        partial(_object, line, size_wh, data_set, f"{file}:{number}") for number, line in lines if line.strip()
    )


def _object(line: str, size_wh: SizeWH, data_set: _DataSet, where: str) -> FileObject:
    parsed = _parsed(line)
    if parsed is None:
        raise LabelFileError(f"{where} {_EXPECTED}")
    class_number, numbers = parsed
    label = data_set.classes.of(class_number, where)
    count = len(numbers)
    if shape := data_set.points_shape(numbers):
        points = _pose(numbers, shape, size_wh, where)
        score = _score(numbers[4 + shape[0] * shape[1] :], where)
        box_xyxy = _box_of(numbers, size_wh, where)
        names = (data_set.classes.point_names or {}).get(int(class_number), ())
        return key_points(label, points, score, where, box_xyxy=box_xyxy, names=names)
    if count in {4, 5}:
        return box(label, _box_of(numbers, size_wh, where), _score(numbers[4:], where), where)
    corners = [(x * size_wh[0], y * size_wh[1]) for x, y in pairs(numbers[: count // 2 * 2], where)]
    _check_fractions(numbers[: count // 2 * 2], where)
    score = _score(numbers[count // 2 * 2 :], where)
    if len(corners) == 4:
        return quadrilateral(label, corners, score, where)
    return polygon(label, [corners], score, where)


def _parsed(line: str) -> tuple[float, list[float]] | None:
    """The class's number and those behind it; None where the line isn't all numbers, or has fewer than a box."""
    try:
        class_number, *numbers = (float(field) for field in line.split())
    except ValueError:
        return None
    is_whole = len(numbers) >= _NUMBERS_OF_A_BOX and all(map(math.isfinite, numbers))
    return (class_number, numbers) if is_whole else None


def _look_like_points(numbers: Sequence[float]) -> bool:
    """Returns True if what is behind the box may be key points with a visibility each."""
    behind = numbers[_NUMBERS_OF_A_BOX:]
    visible = behind[2::3]
    is_seen = any(visible) or not any(behind)
    return bool(behind) and len(behind) % 3 == 0 and set(visible) <= _VISIBILITIES and is_seen


def _pose(numbers: Sequence[float], shape: tuple[int, int], size_wh: SizeWH, where: str) -> list[KeyPoint]:
    """The key points behind a box."""
    count, each = shape
    points: list[KeyPoint] = []
    for start in range(4, 4 + count * each, each):
        x, y, *more = numbers[start : start + each]
        # A visibility of 0 is a point that isn't there; without one, a point in the corner is.
        is_there = more[0] > 0 if more else bool(x or y)
        _check_fractions((x, y), where)
        seen = min(more[0], 1.0) if more else 1.0
        points.append((x * size_wh[0], y * size_wh[1], seen) if is_there else MISSING_POINT)
    return points


def _box_of(numbers: Sequence[float], size_wh: SizeWH, where: str) -> BoxXYXY:
    _check_fractions(numbers[:4], where)
    width, height = size_wh
    x, y, box_width, box_height = numbers[:4]
    left, top = (x - box_width / 2) * width, (y - box_height / 2) * height
    return left, top, left + box_width * width, top + box_height * height


def _check_fractions(numbers: Sequence[float], where: str) -> None:
    if max(map(abs, numbers)) > _FAR_OUTSIDE:
        raise LabelFileError(
            f"{where}: {max(numbers, key=abs):g} is no fraction of the image: YOLO's numbers are from 0 to 1"
        )


def _score(numbers: Sequence[float], where: str) -> float | None:
    if not numbers:
        return None
    if not 0 <= numbers[0] <= 1:
        raise LabelFileError(f"{where}: the score should be from 0 to 1, not {numbers[0]:g}")
    return numbers[0]
