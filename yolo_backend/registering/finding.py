"""What a command line names, folders, globs, lists and addresses, to images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# What Label Studio takes of images, and what it doesn't though many a program writes it.
TAKEN_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp"})
_IMAGE_SUFFIXES = TAKEN_SUFFIXES | {".avif", ".dng", ".heic", ".heif", ".jp2", ".mpo", ".tif", ".tiff"}
_ADDRESS = re.compile(r"(https?|s3|gs|azure-blob)://[^\s/]|(/[^\s?]+)?/data/(upload/|local-files/\?d=)|data:image/")

Image = Path | str  # a file on this machine, or an address


class FindError(Exception):
    """What is named is no image, or can't be read; the message says where and what to do."""


def find_images(sources: Sequence[str], standard_input: Iterable[str] = ()) -> list[Image]:
    """The images that these folders, globs, files and addresses name, each once.

    A file that is no image is a list with an image or an address a line; `-` is such a list on standard input. A
    folder's images are those below it, sorted. Raises FindError.
    """
    found: dict[Image, None] = {}
    for source in sources:
        found.update(dict.fromkeys(_find(source, standard_input)))
    if not found:
        raise FindError(f"No image is named by {', '.join(sources)}")
    return list(found)


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its folders, sorted, but for hidden ones. Raises FindError."""
    files = []
    for parent, folders, names in os.walk(folder, onerror=_cant_read):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _find(source: str, standard_input: Iterable[str]) -> Iterator[Image]:
    path = Path(source)
    if source == "-":
        yield from _read_list(standard_input, Path(), "standard input")
    elif path.is_dir():
        images = [file for file in files_below(path) if _is_image(file)]
        if not images:
            raise FindError(f"No image is in the folder {source}")
        yield from images
    elif path.is_file():
        yield from [path] if _is_image(path) else _read_list_file(path)
    elif _ADDRESS.match(source):
        yield source
    elif glob.has_magic(source):
        paths = map(Path, sorted(glob.glob(source, recursive=True)))  # noqa: PTH207  of a Path, none may begin with /
        images = [path for path in paths if _is_image(path) and path.is_file()]
        if not images:
            raise FindError(f"No image matches {source}")
        yield from images
    else:
        raise FindError(
            f"{source} is no folder, no file, no glob that matches, and no address such as https:// or s3://"
        )


def _read_list_file(path: Path) -> Iterator[Image]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise FindError(f"{path} is neither an image nor a list of images: it can't be read as text") from None
    return _read_list(lines, path.parent, str(path))


def _read_list(lines: Iterable[str], folder: Path, where: str) -> Iterator[Image]:
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        path = folder / name
        if _ADDRESS.match(name):
            yield name
        elif _is_image(path) and path.is_file():
            yield path
        else:
            shown = name if len(name) <= 100 else name[:97] + "..."
            raise FindError(f"{where}:{number}: {shown} is no image's file, and no address such as https:// or s3://")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGE_SUFFIXES


def _cant_read(error: OSError) -> None:
    raise FindError(f"{error.filename} can't be read: {error.strerror}") from None
