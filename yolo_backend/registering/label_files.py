"""Files of labels, in any of the formats that are read: which labels are of which image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from yolo_backend.addresses import path_in
from yolo_backend.label_studio.projects import stored_name
from yolo_backend.registering.finding import FileOrAddress, shown
from yolo_backend.registering.formats.table import FileLabels, read_format
from yolo_backend.registering.objects import Entry, ImageLabels, LabelFileError

# Label Studio puts digits before a file's name when it is uploaded, and again when it is exported.
_PREFIX = re.compile(r"^([0-9a-f]{8}(-|__))+")
_ADDRESS = re.compile(r"[a-z0-9-]+://|/data/")


class Labels:
    """The labels of many images, by the images' paths in the file. `odd` tells what is of no image; `classes` are those
    that the file lists, whether an object has them or not."""

    def __init__(self, path: Path, found: FileLabels) -> None:
        self.path = path
        self.odd, self.classes = found.aside.odd, found.aside.classes
        self._count = len(found.entries)
        self._names = _Names(found.entries, by_stem=found.by_stem)
        self._said = _Names(found.said, by_stem=False)

    def __len__(self) -> int:
        return self._count

    def of(self, images: Iterable[FileOrAddress]) -> dict[FileOrAddress, ImageLabels]:
        """The labels of these images, for those that have any.

        An image is known by the end of its path. Changes that Label Studio made to the name of an uploaded or exported
        file don't matter. Labels belong to one image only, the one whose path fits best. A file beside an image is that
        image's; if there is none of its name, it is of the image that it names. Raises LabelFileError if several could
        be meant.
        """
        images = list(images)
        found = _owned(images, self._names)
        owned = set(found.values())
        others = [image for image in images if image not in found]
        said = _owned(others, self._said, leaving=owned)
        return {image: labels for image in images if (labels := found.get(image) or said.get(image))}

    def of_others(
        self, images: Iterable[FileOrAddress], owned: Iterable[ImageLabels]
    ) -> dict[FileOrAddress, ImageLabels]:
        """The labels of images that aren't registered, as far as no other image owns them."""
        leaving = set(owned)
        found = {}
        for image in images:
            with suppress(LabelFileError):  # several could be meant
                if fit := self._names.find(image, leaving) or self._said.find(image, leaving):
                    found[image] = fit[1]
        return found


class _Names:
    """Labels by the ends of their images' paths; with `by_stem`, without the endings of names."""

    def __init__(self, entries: Iterable[Entry], *, by_stem: bool) -> None:
        self._by_stem = by_stem
        self._entries: dict[str, list[tuple[tuple[str, ...], ImageLabels]]] = {}
        for name, labels in entries:
            parts = _parts(name)
            self._entries.setdefault(_key(parts[-1]), []).append((parts, labels))

    def find(self, image: FileOrAddress, leaving: set[ImageLabels]) -> tuple[int, ImageLabels] | None:
        """The labels that fit this image best, and how well they fit."""
        parts = _parts(image)
        if self._by_stem:
            parts = (*parts[:-1], PurePosixPath(parts[-1]).stem)
        named = self._entries.get(_key(parts[-1]), [])
        fits = [
            (_common_end(parts, others), labels)
            for others, labels in named
            if labels not in leaving and _is_named(parts[-1], others[-1])
        ]
        best_fit = max((fit for fit, _ in fits), default=0)
        best = [labels for fit, labels in fits if fit == best_fit]
        if len(best) > 1:
            raise LabelFileError(f"{best[0].where} and {best[1].where} could both be the labels of {shown(image)}")
        return (best_fit, best[0]) if best else None


def read_labels(path: Path, classes_path: Path | None = None) -> Labels:
    """Read a file or a folder of labels, in any of the formats in `formats/`.

    YOLO's class names come from `classes_path`, or from a file such as classes.txt in the folder or beside it. Most
    objects are read only when those of the image are needed. Raises LabelFileError, FindError.
    """
    try:
        return Labels(path, read_format(path, classes_path))
    except OSError as error:
        raise LabelFileError(f"{error.filename or path} can't be read: {error.strerror}") from None


def _parts(image: FileOrAddress) -> tuple[str, ...]:
    """The parts of an image's path. The path of a Local File is in the address's query."""
    if isinstance(image, Path):
        return image.parts
    path = image.replace("\\", "/")
    if _ADDRESS.match(image):
        try:
            path = path_in(image)
        except ValueError as error:
            name = path.partition("?")[0].rpartition("/")[2]
            raise LabelFileError(f"The address of {shown(name)} can't be read: {error}") from None
    return PurePosixPath(path).parts or (image,)


def _key(name: str) -> str:
    return _PREFIX.sub("", _stored(name))


def _stored(name: str) -> str:
    return stored_name(unquote(name))


def _is_named(name: str, other: str) -> bool:
    """Returns True if these names, which have one key, mean one image. Digits such as a date's are no prefix."""
    one, two = _stored(name), _stored(other)
    return one.endswith(two) or two.endswith(one)


def _owned(
    images: Iterable[FileOrAddress], names: _Names, leaving: set[ImageLabels] | None = None
) -> dict[FileOrAddress, ImageLabels]:
    """Which labels are whose."""
    claims: dict[ImageLabels, list[tuple[int, FileOrAddress]]] = defaultdict(list)
    for image in images:
        if found := names.find(image, leaving or set()):
            fit, labels = found
            claims[labels].append((fit, image))
    return {image: labels for labels, rivals in claims.items() for image in _owners(labels, rivals)}


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
