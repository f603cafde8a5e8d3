"""Reads files of labels (YOLO's text format, COCO's JSON, JSON lines): boxes in pixels of the upright image."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from yolo_backend.errors import UserError
from yolo_backend.label_studio.projects import stored_name
from yolo_backend.registering.finding import FileOrAddress, files_below, shown

SizeWH = tuple[int, int]

_CLASS_FILES = ("classes.txt", "notes.json", "data.yaml", "dataset.yaml")
# Label Studio puts digits before a file's name when it is uploaded, and again when it is exported.
_PREFIX = re.compile(r"^([0-9a-f]{8}(-|__))+")
_ADDRESS = re.compile(r"[a-z0-9-]+://|/data/")
_FAR_OUTSIDE = 2.0  # in images; a box beyond the edge is clipped, but a number beyond this is no fraction


class LabelFileError(UserError):
    """A file of labels that can't be used; the message names file and line, and says what is wrong."""


@dataclass(frozen=True)
class FileBox:
    """A box in pixels of the upright image. `where` is its line or entry; `score` is None if none is given."""

    label: str
    box_xyxy: tuple[float, float, float, float]
    score: float | None
    where: str


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image. `boxes` needs the size (width, height) of the upright image; COCO's file may have it."""

    where: str
    boxes: Callable[[SizeWH], list[FileBox]]
    size_wh: SizeWH | None = None


class Labels:
    """The labels of many images, by the images' paths in the file."""

    def __init__(self, path: Path, entries: Iterable[tuple[str, ImageLabels]], *, by_stem: bool = False) -> None:
        self.path = path
        self._by_stem = by_stem
        self._entries: dict[str, list[tuple[tuple[str, ...], ImageLabels]]] = {}
        self._count = 0
        for name, labels in entries:
            parts = _parts(name)
            self._entries.setdefault(_key(parts[-1]), []).append((parts, labels))
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def of(self, images: Iterable[FileOrAddress]) -> dict[FileOrAddress, ImageLabels]:
        """The labels of these images, for those that have any.

        An image is known by the end of its path. Changes that Label Studio made to the name of an uploaded or exported
        file don't matter. Labels belong to one image only, the one whose path fits best. Raises LabelFileError if
        several could be meant.
        """
        claims: dict[ImageLabels, list[tuple[int, FileOrAddress]]] = defaultdict(list)
        for image in images:
            if found := self._find(image):
                fit, labels = found
                claims[labels].append((fit, image))
        return {image: labels for labels, rivals in claims.items() for image in _owners(labels, rivals)}

    def _find(self, image: FileOrAddress) -> tuple[int, ImageLabels] | None:
        """The labels that fit this image best, and how well they fit."""
        parts = _parts(image)
        if self._by_stem:
            parts = (*parts[:-1], PurePosixPath(parts[-1]).stem)
        named = self._entries.get(_key(parts[-1]), [])
        fits = [(_common_end(parts, others), labels) for others, labels in named if _is_named(parts[-1], others[-1])]
        best_fit = max((fit for fit, _ in fits), default=0)
        best = [labels for fit, labels in fits if fit == best_fit]
        if len(best) > 1:
            raise LabelFileError(f"{best[0].where} and {best[1].where} could both be the labels of {shown(image)}")
        return (best_fit, best[0]) if best else None


def read_labels(path: Path, classes_path: Path | None = None) -> Labels:
    """Read a folder of YOLO text files, a COCO `.json`, or a `.jsonl`.

    YOLO's class names come from `classes_path`, or from a file such as classes.txt in the folder or beside it. A label
    file's lines are read only when the boxes of the image are needed. Raises LabelFileError, FindError.
    """
    try:
        return _read(path, classes_path)
    except OSError as error:
        raise LabelFileError(f"{error.filename or path} can't be read: {error.strerror}") from None


def _read(path: Path, classes_path: Path | None) -> Labels:
    if path.is_dir():
        return _read_yolo(path, classes_path)
    readers = {".json": _read_coco, ".jsonl": _read_lines, ".ndjson": _read_lines}
    if path.suffix.lower() not in readers:
        raise LabelFileError(f"{path} should be a folder of YOLO text files, a COCO .json or a .jsonl")
    return Labels(path, readers[path.suffix.lower()](path, _read_text(path)))


def _read_yolo(folder: Path, classes_path: Path | None) -> Labels:
    beside = (where / name for where in (folder, folder.parent) for name in _CLASS_FILES)
    classes_path = classes_path or next((file for file in beside if file.is_file()), None)
    if classes_path is None:
        raise LabelFileError(f"{folder} has no classes.txt or data.yaml with the names of the classes: give --classes")
    classes = _read_classes(classes_path)
    # The layout of Ultralytics and of Label Studio's export.
    root = folder / "labels" if (folder / "labels").is_dir() else folder
    files = [file for file in files_below(root) if file.suffix.lower() == ".txt" and file.name != "classes.txt"]
    if not files:
        raise LabelFileError(f"No .txt file is in the folder {root}")
    entries = ((file.with_suffix("").as_posix(), _yolo_file(file, classes, classes_path)) for file in files)
    return Labels(folder, entries, by_stem=True)


def _yolo_file(file: Path, classes: Mapping[int, str], classes_path: Path) -> ImageLabels:
    def boxes(size_wh: SizeWH) -> list[FileBox]:
        lines = enumerate(_read_text(file).splitlines(), 1)
        return [
            _yolo_box(line, size_wh, classes, classes_path, f"{file}:{number}")
            for number, line in lines
            if line.strip()
        ]

    return ImageLabels(str(file), boxes)


def _yolo_box(line: str, size_wh: SizeWH, classes: Mapping[int, str], classes_path: Path, where: str) -> FileBox:
    try:
        class_number, *numbers = (float(field) for field in line.split())
    except ValueError:
        numbers = []
    if len(numbers) not in {4, 5} or not all(map(math.isfinite, numbers)):
        raise LabelFileError(f"{where} should be `class x y width height`, perhaps with a score behind, and no more")
    if class_number not in classes:
        raise LabelFileError(f"{where}: class {class_number:g} isn't one of the {len(classes)} in {classes_path}")
    if max(map(abs, numbers[:4])) > _FAR_OUTSIDE:
        raise LabelFileError(f"{where}: {max(numbers[:4], key=abs):g} is no fraction of the image, as YOLO counts")
    score = numbers[4] if len(numbers) == 5 else None
    if score is not None and not 0 <= score <= 1:
        raise LabelFileError(f"{where}: the score should be from 0 to 1, not {score:g}")
    width, height = size_wh
    x, y, box_width, box_height = numbers[:4]
    left, top = (x - box_width / 2) * width, (y - box_height / 2) * height
    box_xyxy = (left, top, left + box_width * width, top + box_height * height)
    return FileBox(classes[int(class_number)], box_xyxy, score, where)


def _read_classes(path: Path) -> dict[int, str]:
    text = _read_text(path)
    try:
        if path.suffix.lower() in {".yaml", ".yml"}:
            names = yaml.safe_load(text)["names"]
            numbered = enumerate(names) if isinstance(names, list) else names.items()
            return {int(number): str(name) for number, name in numbered}
        if path.suffix.lower() == ".json":
            return {int(category["id"]): str(category["name"]) for category in json.loads(text)["categories"]}
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LabelFileError(f"{path} should hold class names: `names` of a data.yaml, or a notes.json") from None
    return {number: line.strip() for number, line in enumerate(text.rstrip().splitlines())}


_Parsed = TypeVar("_Parsed", bound=BaseModel)
_Pixels = Annotated[float, Field(ge=-1e9, le=1e9)]
_Score = Annotated[float, Field(ge=0, le=1)]


class _CocoImage(BaseModel):
    id: int | str
    file_name: str
    width: PositiveInt | None = None
    height: PositiveInt | None = None


class _CocoCategory(BaseModel):
    id: int
    name: str


class _CocoAnnotation(BaseModel):
    id: int | str | None = None
    image_id: int | str
    category_id: int
    bbox: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    score: _Score | None = None


class _Coco(BaseModel):
    info: Any = None
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]
    categories: list[_CocoCategory]


def _read_coco(path: Path, text: str) -> Iterator[tuple[str, ImageLabels]]:
    if text.lstrip().startswith("["):
        raise LabelFileError(f"{path} is a list of COCO results: it needs images and categories, too")
    coco = _parse(_Coco, text, str(path))
    names = {category.id: category.name for category in coco.categories}
    # The file has the image's size before it is turned upright, but boxes of the upright image.
    is_label_studio = isinstance(coco.info, dict) and coco.info.get("contributor") == "Label Studio"
    boxes: dict[int | str, list[FileBox]] = {image.id: [] for image in coco.images}
    for number, annotation in enumerate(coco.annotations):
        where = f"{path}: annotation {number if annotation.id is None else annotation.id}"
        if annotation.image_id not in boxes:
            raise LabelFileError(f"{where} is of image {annotation.image_id}, which isn't among the images")
        if annotation.category_id not in names:
            raise LabelFileError(f"{where} is of category {annotation.category_id}, which isn't among the categories")
        label = names[annotation.category_id]
        boxes[annotation.image_id].append(FileBox(label, _xyxy(*annotation.bbox), annotation.score, where))
    for image in coco.images:
        size_wh = (image.width, image.height) if image.width and image.height else None
        where = f"{path}: image {shown(image.file_name)}"
        yield image.file_name, _in_pixels(where, boxes[image.id], size_wh, is_as_it_lies=is_label_studio)


class _LineBox(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str
    x: _Pixels
    y: _Pixels
    width: _Pixels
    height: _Pixels
    score: _Score | None = None


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: str = Field(min_length=1)
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    boxes: list[_LineBox]


def _read_lines(path: Path, text: str) -> Iterator[tuple[str, ImageLabels]]:
    for number, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        where = f"{path}:{number}"
        line = _parse(_Line, content, where)
        boxes = [FileBox(box.label, _xyxy(box.x, box.y, box.width, box.height), box.score, where) for box in line.boxes]
        size_wh = (line.width, line.height) if line.width and line.height else None
        yield line.image, _in_pixels(where, boxes, size_wh)


def _in_pixels(where: str, boxes: list[FileBox], said_wh: SizeWH | None, *, is_as_it_lies: bool = False) -> ImageLabels:
    """Labels in pixels of an image for which the file gives this size. The image has to have it.

    With `is_as_it_lies`, it is the size before the image is turned upright, so the upright size isn't known.
    """

    def checked(size_wh: SizeWH) -> list[FileBox]:
        if said_wh not in {None, size_wh} and not (is_as_it_lies and said_wh == size_wh[::-1]):
            said, found = (f"{width}x{height}" for width, height in (said_wh or size_wh, size_wh))
            raise LabelFileError(f"{where} is {said} there, but the image's file is {found} (turned upright)")
        return boxes

    return ImageLabels(where, checked, None if is_as_it_lies else said_wh)


def _xyxy(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x, y, x + width, y + height


def _parse(model: type[_Parsed], text: str, where: str) -> _Parsed:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise LabelFileError(f"{where}: {field + ': ' if field else ''}{problem['msg']}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise LabelFileError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LabelFileError(f"{path} can't be read: it isn't text in UTF-8") from None


def _parts(image: FileOrAddress) -> tuple[str, ...]:
    """The parts of an image's path. The path of a Local File is in the address's query."""
    if isinstance(image, Path):
        return image.parts
    path = image.replace("\\", "/")
    if _ADDRESS.match(image):
        try:
            address = urlsplit(image)
        except ValueError as error:
            name = path.partition("?")[0].rpartition("/")[2]
            raise LabelFileError(f"The address of {shown(name)} can't be read: {error}") from None
        is_local_files = address.path.endswith("/data/local-files/")
        path = parse_qs(address.query).get("d", [""])[0] if is_local_files else unquote(address.path)
    return PurePosixPath(path).parts or (image,)


def _key(name: str) -> str:
    return _PREFIX.sub("", _stored(name))


def _stored(name: str) -> str:
    return stored_name(unquote(name))


def _is_named(name: str, other: str) -> bool:
    """Returns True if these names, which have one key, mean one image. Digits such as a date's are no prefix."""
    one, two = _stored(name), _stored(other)
    return one.endswith(two) or two.endswith(one)


def _owners(labels: ImageLabels, rivals: Sequence[tuple[int, FileOrAddress]]) -> list[FileOrAddress]:
    """The best of the images that could have these labels, by how well each fits; perhaps one in several spellings."""
    best_fit = max(fit for fit, _ in rivals)
    best = [image for fit, image in rivals if fit == best_fit]
    for other in best[1:]:
        if not _is_same(best[0], other):
            raise LabelFileError(f"{labels.where} could be the labels of {shown(best[0])} and of {shown(other)}")
    return best


def _is_same(one: FileOrAddress, other: FileOrAddress) -> bool:
    return isinstance(one, Path) and isinstance(other, Path) and one.resolve() == other.resolve()


def _common_end(parts: tuple[str, ...], others: tuple[str, ...]) -> int:
    pairs = list(zip(reversed(parts), reversed(others), strict=False))
    return next((number for number, (one, other) in enumerate(pairs) if one != other), len(pairs))
