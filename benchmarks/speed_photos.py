"""Photographs to measure speed by: real ones, scaled to the sizes that cameras have, with the noise of a sensor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from yolo_backend.cores import usable_cores

TEST_DATA = Path(os.environ.get("TEST_DATA_DIR", "../shared"))
WEIGHTS = TEST_DATA / "weights" / "bccd-yolo11n.pt"
LABELS = ("RBC", "WBC", "Platelets")
SMALL, MEDIUM, LARGE, MIXED = "0.3 MP", "1 MP", "12 MP", "mixed"
SIZES_WH: dict[str, tuple[tuple[int, int], ...]] = {
    SMALL: ((640, 480),),
    MEDIUM: ((1152, 864),),
    LARGE: ((4000, 3000),),
    MIXED: ((640, 480), (480, 640), (1152, 864), (864, 1152), (1280, 720), (720, 1280), (1920, 1080), (800, 800)),
}
PHOTOS = 24
_ORIGINALS = TEST_DATA / "data" / "bccd" / "images" / "val"
_NOISE_SIGMA = 2.0
_JPEG_QUALITY = 90


class PhotosMissingError(Exception):
    """The real photographs or weights aren't there; the message says where they should be."""


def make_photos(folder: Path, sets: Iterable[str]) -> None:
    """Write PHOTOS JPEGs of each set to `folder/<set>/<number>.jpg`. Raises PhotosMissingError."""
    originals = sorted(_ORIGINALS.glob("*.jpg"))[:PHOTOS]
    if len(originals) < PHOTOS or not WEIGHTS.is_file():
        raise PhotosMissingError(f"expected {PHOTOS} photographs in {_ORIGINALS}, and {WEIGHTS}: set TEST_DATA_DIR")
    with ThreadPoolExecutor(usable_cores()) as pool:
        for name in sets:
            (folder / name).mkdir(parents=True)
            sizes_wh = SIZES_WH[name]
            written = [
                pool.submit(_write, original, sizes_wh[number % len(sizes_wh)], photo_file(folder, name, number))
                for number, original in enumerate(originals)
            ]
            for each in written:
                each.result()


def photo_file(folder: Path, name: str, number: int) -> Path:
    """The file of a set's photograph; numbers go round."""
    return folder / name / f"{number % PHOTOS:03}.jpg"


def photo_files(folder: Path, name: str) -> list[Path]:
    """The files of a set."""
    return [photo_file(folder, name, number) for number in range(PHOTOS)]


def mean_kilobytes(files: Sequence[Path]) -> float:
    """The mean size of files."""
    return sum(file.stat().st_size for file in files) / len(files) / 1e3


def distinct(photo: bytes, number: int) -> bytes:
    """The same picture in a file of its own: what stands behind a JPEG's end changes nothing of it."""
    return photo + b"%d" % number


def _write(original: Path, size_wh: tuple[int, int], file: Path) -> None:
    with Image.open(original) as image:
        upright = image if size_wh[0] >= size_wh[1] else image.transpose(Image.Transpose.ROTATE_90)
        scaled = np.asarray(upright.convert("RGB").resize(size_wh, Image.Resampling.BICUBIC), np.float32)
    chance = np.random.default_rng(int(file.stem))
    noisy = scaled + _NOISE_SIGMA * chance.standard_normal(scaled.shape, np.float32)
    photo = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    photo.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling="4:2:0")
