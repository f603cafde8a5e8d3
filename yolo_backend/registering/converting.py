"""Makes PNGs and JPEGs of images that Label Studio's page can't show, in a folder of their own."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from yolo_backend.errors import UserError
from yolo_backend.images.decode import decode_image, format_of
from yolo_backend.images.errors import ImageError
from yolo_backend.images.other_formats import decode_other, is_heic
from yolo_backend.label_studio.projects import MAX_UPLOAD_BYTES
from yolo_backend.registering.finding import FileOrAddress
from yolo_backend.registering.unfit import Unfit, set_apart

_JPEG_QUALITY = 95
_JPEG_SUFFIX, _PNG_SUFFIX = ".jpg", ".png"


class ConvertError(UserError):
    """An image that was made can't be written. The message says where, and what to do."""


@dataclass
class Converted:
    """The images, those that were made in the place of what they were made of; and the files that stay unfit.

    `originals` says what each was made of, `targets` where each stays, and `remarks` what a person should know of some.
    """

    images: list[FileOrAddress] = field(default_factory=list)
    unfit: Unfit = field(default_factory=dict)
    originals: dict[FileOrAddress, FileOrAddress] = field(default_factory=dict)
    targets: dict[FileOrAddress, Path] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def convert(
    images: Sequence[FileOrAddress],
    folder: Path,
    max_megapixels: float,
    *,
    uploaded: bool,
    written_to: Path | None = None,
) -> Converted:
    """Convert what the page can't show, and leave the other images as they are.

    What is made is upright, with 8 bits, as predicting decodes it. Its name is the original's with another ending, in
    the same folders below `folder` as the originals are in below theirs. Lossless formats become PNG, the others JPEG.
    A file that is there already stays, if it is the same. To try it, give another folder as `written_to`: the images
    are made there, and are what they would be in `folder` otherwise. Raises ConvertError.
    """
    found = Converted()
    root = _common_folder(images)
    made: set[Path] = set()  # below the folder
    for image in images:
        fit, unfit = set_apart([image], uploaded=uploaded)
        if fit or not isinstance(image, Path):
            found.images.append(image)
            continue
        try:
            content, suffix, remark = _convert(image, max_megapixels)
        except (ImageError, OSError) as error:
            why = error.told_of(image.name) if isinstance(error, ImageError) else f"can't be read: {error.strerror}"
            reason = next(iter(unfit)) if _is_no_file(image) else why
            found.unfit.setdefault(reason, []).append(image)
            continue
        name = image.parent.resolve().relative_to(root) / f"{image.stem}{suffix}"
        if name in made:  # of a.tif and a.ppm
            name = name.with_name(image.name + suffix)
        made.add(name)
        is_there = _is_there(folder / name, content)
        target = (written_to or folder) / name
        if written_to or not is_there:
            _write(target, content)
        found.images.append(target)
        found.originals[target] = image
        found.targets[target] = folder / name
        if remark:
            found.remarks.append(f"{image}: {remark}")
    return found


def _convert(file: Path, max_megapixels: float) -> tuple[bytes, str, str]:
    """The bytes of a PNG or JPEG, the ending of its name, and what is to be said of it. Raises ImageError, OSError."""
    if _is_no_file(file):
        raise OSError(0, "it is no regular file")
    content = file.read_bytes()
    try:
        kind = format_of(content)
    except ImageError:
        pixels, remark = decode_other(content, file.suffix, max_megapixels), ""
        lossy = is_heic(content[:16])
    else:
        if kind == "JPEG":  # a .jpe, .jfif or .mpo, which only has a name that isn't taken
            return content, _JPEG_SUFFIX, ""
        decoded = decode_image(content, max_megapixels)
        pixels, remark, lossy = decoded.pixels, decoded.remark, kind == "AVIF"
    written = io.BytesIO()
    image = Image.fromarray(pixels)
    if not lossy:
        image.save(written, "PNG")
    if lossy or written.tell() > MAX_UPLOAD_BYTES:
        written = io.BytesIO()
        image.save(written, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return written.getvalue(), _JPEG_SUFFIX, remark
    return written.getvalue(), _PNG_SUFFIX, remark


def _is_no_file(file: Path) -> bool:
    try:
        return not file.is_file() or not file.stat().st_size
    except OSError:
        return False


def _common_folder(images: Sequence[FileOrAddress]) -> Path:
    folders = [image.parent.resolve() for image in images if isinstance(image, Path)]
    return Path(os.path.commonpath(folders)) if folders else Path()


def _is_there(target: Path, content: bytes) -> bool:
    """Returns True if this file is there already. Raises ConvertError if another one is in its place."""
    try:
        if not target.exists():
            return False
        if target.read_bytes() == content:
            return True
    except OSError as error:
        raise ConvertError(f"{target} can't be written: {error.strerror}") from None
    raise ConvertError(f"{target} is there already, and is another image: give --convert another folder")


def _write(target: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.unfinished")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    except OSError as error:
        raise ConvertError(f"{target} can't be written: {error.strerror}") from None


def made_of(converted: Converted, folder: Path, *, dry_run: bool = False) -> str | None:
    """How many were made of which kinds, or would be, in a sentence; None where none was."""
    if not converted.originals:
        return None
    kinds = sorted({Path(str(original)).suffix.lower() for original in converted.originals.values()})
    count = len(converted.originals)
    verb = "Would make" if dry_run else "Made"
    return f"{verb} {count:,} {'image' if count == 1 else 'images'} in {folder} of {', '.join(kinds)}"
