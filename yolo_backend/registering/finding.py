"""Finds the images that a command line names by folders, globs, lists and addresses."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from yolo_backend.addresses import redact
from yolo_backend.errors import UserError

# The suffixes of images that Label Studio takes, that its page shows too, and that it doesn't show though programs
# write them.
TAKEN_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp"})
SHOWN_SUFFIXES = TAKEN_SUFFIXES | {".avif"}
_IMAGE_SUFFIXES = SHOWN_SUFFIXES | {
    ".arw", ".cr2", ".cr3", ".dcm", ".dicom", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".hif", ".ico", ".j2k",
    ".jfif", ".jp2", ".jpe", ".jpf", ".jpx", ".jxl", ".jxr", ".mpo", ".nef", ".orf", ".pbm", ".pef", ".pfm", ".pgm",
    ".pnm", ".ppm", ".psd", ".raf", ".rw2", ".srw", ".tga", ".tif", ".tiff", ".xcf",
}  # fmt: skip
_ADDRESS = re.compile(r"(https?|s3|gs|azure-blob)://[^\s/]|data:image/")
# A path below Label Studio's address, which could also be a folder of this machine.
_STUDIO_PATH = re.compile(r"(/[^\s?]+)?/data/(upload/|local-files/\?d=)")
_MAY_HOLD_A_SECRET = re.compile(r"://|@|^\s*data:|\?.*=", re.IGNORECASE | re.DOTALL)
_SHOWN_CHARACTERS = 200

FileOrAddress = Path | str  # a file on this machine, or an address


class FindError(UserError):
    """A name means no image, or one that can't be read. The message says where, and what to do."""


def shown(image: FileOrAddress) -> str:
    """An image's name for a message: short, and without the signature or login that an address may have."""
    text = str(image)
    if isinstance(image, str) and _MAY_HOLD_A_SECRET.search(image):
        text = redact(image)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def readable(file: Path) -> str:
    """A file's path, with a mark for bytes in its name that are no text."""
    return str(file).encode(errors="replace").decode()


def find_images(sources: Sequence[str], standard_input: Iterable[str] = ()) -> list[FileOrAddress]:
    """The images that these folders, globs, files and addresses name, each once.

    A file that is no image is a list with a name in each line; `-` is such a list on standard input. A folder means the
    images below it, sorted. Raises FindError.
    """
    found: dict[FileOrAddress, None] = {}
    for source in sources:
        try:
            found.update(dict.fromkeys(_find(source, standard_input)))
        except OSError as error:
            raise FindError(f"{shown(source)} can't be read: {error.strerror}") from None
    if not found:
        raise FindError(f"No image is named by {', '.join(map(shown, sources))}")
    return list(found)


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its folders, sorted, without hidden ones. Raises FindError."""
    files = []
    for parent, folders, names in os.walk(folder, onerror=_cant_read):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def left_alone(sources: Sequence[str], labels: Sequence[Path] = ()) -> dict[str, int]:
    """How many files of the folders among these sources are no images, by their endings in lower case.

    Files of `labels`, which are folders or files, aren't counted, and neither are hidden ones. Raises FindError.
    """
    read = {path.resolve() for path in labels}
    files = {file.resolve() for source in sources if Path(source).is_dir() for file in files_below(Path(source))}
    others = [file for file in files if not _is_image(file) and not read & {file, *file.parents}]
    counts = Counter(file.suffix.lower() or "without an ending" for file in others)
    return dict(sorted(counts.items()))


def _find(source: str, standard_input: Iterable[str]) -> Iterator[FileOrAddress]:
    path = Path(source)
    if source == "-":
        yield from _read_standard_input(standard_input)
    elif _ADDRESS.match(source):
        yield source
    elif path.is_dir():
        images = [file for file in files_below(path) if _is_image(file)]
        if not images:
            raise FindError(f"No image is in the folder {source}")
        yield from images
    elif path.is_file():
        yield from [path] if _is_image(path) else _read_list_file(path)
    elif _STUDIO_PATH.match(source):
        yield source
    elif glob.has_magic(source):
        paths = map(Path, sorted(glob.glob(source, recursive=True)))  # noqa: PTH207  of a Path, none may begin with /
        images = [path for path in paths if _is_image(path) and path.is_file()]
        if not images:
            raise FindError(f"No image matches {shown(source)}")
        yield from images
    else:
        raise FindError(
            f"{shown(source)} is no folder, no file, no glob that matches, and no address such as https:// or s3://"
        )


def _read_standard_input(lines: Iterable[str]) -> Iterator[FileOrAddress]:
    try:
        yield from _read_list(lines, Path(), "standard input")
    except UnicodeDecodeError:
        raise FindError("Standard input is no list of images: it isn't text in UTF-8") from None


def _read_list_file(path: Path) -> Iterator[FileOrAddress]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise FindError(f"{path} is neither an image nor a list of images: it can't be read as text") from None
    return _read_list(lines, path.parent, str(path))


def _read_list(lines: Iterable[str], folder: Path, where: str) -> Iterator[FileOrAddress]:
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        if _ADDRESS.match(name) or _STUDIO_PATH.match(name):
            yield name
            continue
        path = folder / name
        try:
            is_image = _is_image(path) and path.is_file()
        except OSError as error:
            raise FindError(f"{where}:{number}: {shown(name)} can't be read: {error.strerror}") from None
        if not is_image:
            raise FindError(
                f"{where}:{number}: {shown(name)} is no image's file, and no address such as https:// or s3://"
            )
        yield path


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGE_SUFFIXES


def _cant_read(error: OSError) -> None:
    raise FindError(f"{error.filename} can't be read: {error.strerror}") from None
