"""Files that Label Studio's page couldn't show. They are told before anything is registered, and left out."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from yolo_backend.cores import usable_cores
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.decode import decode_image, format_of
from yolo_backend.images.errors import ImageError, NotAnImageError
from yolo_backend.label_studio.projects import MAX_UPLOAD_BYTES
from yolo_backend.parallel import in_parallel
from yolo_backend.registering.finding import SHOWN_SUFFIXES, TAKEN_SUFFIXES, FileOrAddress

Unfit = dict[str, list[Path]]  # by the reason

# Which images that the page doesn't show can be made into ones that it does, by their names.
CONVERTED_SUFFIXES = frozenset({
    ".heic", ".heif", ".hif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpf", ".jpx", ".mpo", ".pbm", ".pgm", ".pnm",
    ".ppm", ".psd", ".tga", ".tif", ".tiff",
})  # fmt: skip
_START_BYTES = 4096
_DRAWN_BY_THE_PAGE = ".svg"  # it has no pixels to look at
_CUT_SHORT = re.compile("truncated", re.IGNORECASE)
_AS_SMALL_AS_CAN_BE_PX = 1  # decodes a JPEG in a fifth of the time


def set_apart(images: Iterable[FileOrAddress], *, uploaded: bool) -> tuple[list[FileOrAddress], Unfit]:
    """The images that Label Studio takes and shows, by their names, sizes and first bytes; and the others.

    Addresses are never left out, and neither are files that can't be read: reading them fails later, with a message.
    """
    fit: list[FileOrAddress] = []
    unfit: Unfit = {}
    for image in images:
        if isinstance(image, Path) and (why := _why_unfit(image, uploaded=uploaded)):
            unfit.setdefault(why, []).append(image)
        else:
            fit.append(image)
    return fit, unfit


def set_broken_apart(
    images: Sequence[FileOrAddress], max_megapixels: float
) -> tuple[list[FileOrAddress], dict[FileOrAddress, str]]:
    """The images that can be decoded, and why the others can't.

    All pixels are looked at, because a file that was cut short has its size at its start. Addresses, drawings and what
    can't be opened count as whole, and so does an image of too many pixels, which the page may show.
    """
    why_broken = partial(_why_broken, max_megapixels=max_megapixels)
    found = dict(in_parallel(why_broken, images, usable_cores(), "image"))
    broken = {image: why for image in images if (why := found[image])}
    return [image for image in images if image not in broken], broken


def has_pixels(image: FileOrAddress) -> bool:
    """Returns True for a file whose image has a size in pixels, which a drawing hasn't."""
    return isinstance(image, Path) and image.suffix.lower() != _DRAWN_BY_THE_PAGE


def _why_broken(image: FileOrAddress, max_megapixels: float) -> str | None:
    if not isinstance(image, Path) or not has_pixels(image):
        return None
    try:
        decode_image(image.read_bytes(), max_megapixels, _AS_SMALL_AS_CAN_BE_PX)
    except ImageError as error:
        if error.kind == FailureKind.TOO_MANY_PIXELS:
            return None
        # Without the numbers in it, files that were cut short at different bytes are told together.
        return "is cut short: copy it again" if _CUT_SHORT.search(str(error)) else error.told_of(image.name)
    except OSError:
        return None
    return None


def _why_unfit(file: Path, *, uploaded: bool) -> str | None:
    suffix = file.suffix.lower()
    if suffix not in SHOWN_SUFFIXES:
        way_out = ", or use --convert" if suffix in CONVERTED_SUFFIXES else ""
        return f"Label Studio takes no {file.suffix or 'such'} files: make it a PNG or JPEG{way_out}"
    if uploaded and suffix not in TAKEN_SUFFIXES:
        return f"Label Studio takes no {file.suffix} uploads: make it a PNG or JPEG, or use --how local-files"
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # because opening a pipe waits for a writer
            return "is no regular file but such as a pipe or a device: leave it out"
        with file.open("rb") as opened:
            start = opened.read(_START_BYTES)
    except OSError:
        return None
    if not status.st_size:
        return "has no bytes: replace it"
    if status.st_size > MAX_UPLOAD_BYTES:
        return f"has more than {MAX_UPLOAD_BYTES:,} bytes, which Label Studio doesn't take: make it smaller"
    return _why_not_shown(file, start) if has_pixels(file) else None


def _why_not_shown(file: Path, start: bytes) -> str | None:
    try:
        if format_of(start) == "TIFF":
            raise NotAnImageError("a TIFF, which no browser shows", "convert it to JPEG or PNG")
    except ImageError as error:
        return error.told_of(file.name)
    return None
