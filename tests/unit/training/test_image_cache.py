"""The images on the disk: upright for every reader, kept within a limit, never half-written."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blake3 import blake3
from PIL import Image, ImageOps

from tests.harness.pictures import encode
from tests.harness.turned_files import FIRST_FRAMES, TURNED_FILES, four_colours, orientation, with_segments
from yolo_backend.images.decode import decode_image
from yolo_backend.images.errors import ImageError
from yolo_backend.training.image_cache import CachedImage, ImageCache, ImageCacheError

MAX_MEGAPIXELS = 50


def take(folder: Path, content: bytes, cache: ImageCache | None = None) -> CachedImage:
    return (cache or ImageCache(folder, MAX_MEGAPIXELS)).take(blake3(content).hexdigest(), content)


def seen(path: Path) -> list[Any]:
    """The pixels as the trainer's reader sees them, and as Pillow does: both follow what EXIF says."""
    by_opencv = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    with Image.open(path) as image:
        return [by_opencv, np.asarray(ImageOps.exif_transpose(image).convert("RGB"))]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", TURNED_FILES)
def test_every_reader_sees_what_the_page_shows(name: str, tmp_path: Path) -> None:
    content = TURNED_FILES[name][0]
    expected = decode_image(content, MAX_MEGAPIXELS)
    cached = take(tmp_path, content)
    assert cached.size_wh == expected.size_wh
    for pixels in seen(cached.file):
        assert pixels.shape == expected.pixels.shape
        assert np.abs(pixels.astype(int) - expected.pixels).mean() < 8  # what JPEG makes of sharp colours


@pytest.mark.parametrize("name", FIRST_FRAMES)
def test_a_first_frame_is_what_the_decoder_makes_of_it(name: str, tmp_path: Path) -> None:
    content = FIRST_FRAMES[name][0]
    assert take(tmp_path, content).size_wh == decode_image(content, MAX_MEGAPIXELS).size_wh


def test_a_plain_photograph_keeps_its_pixels_bit_by_bit(tmp_path: Path, bccd_files: list[Path]) -> None:
    content = bccd_files[0].read_bytes()
    about = with_segments(content, (0xE1, b"Exif\0\0" + orientation(1)), (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"))
    for plain in (content, about):
        cached = take(tmp_path, plain)
        for pixels in seen(cached.file):
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert b"Exif" not in cached.file.read_bytes()


def test_what_follows_the_end_of_a_jpeg_is_no_part_of_what_is_kept(tmp_path: Path) -> None:
    """Ultralytics would encode such a file anew, and lose pixels."""
    content = encode(four_colours(), "JPEG", quality=95) + b"more"
    assert take(tmp_path, content).file.read_bytes().endswith(b"\xff\xd9")


def test_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = np.dstack([four_colours(), np.full((32, 48), 10, np.uint8)])
    cached = take(tmp_path, encode(Image.fromarray(pixels, "RGBA")))
    assert np.abs(seen(cached.file)[0].astype(int) - four_colours()).mean() < 8


def test_a_known_image_is_not_decoded_again(tmp_path: Path) -> None:
    content = encode(four_colours())
    first = take(tmp_path, content)
    written_at = first.file.stat().st_ino
    # What isn't looked at may be anything.
    assert ImageCache(tmp_path, MAX_MEGAPIXELS).take(blake3(content).hexdigest(), b"no image") == first
    assert first.file.stat().st_ino == written_at


@pytest.mark.parametrize("left", [b"", b"\xff\xd8\xff", b"garbage"])
def test_what_a_power_cut_left_is_made_again(tmp_path: Path, left: bytes) -> None:
    content = encode(four_colours())
    cached = take(tmp_path, content)
    cached.file.write_bytes(left)
    assert take(tmp_path, content) == cached
    assert seen(cached.file)[0].shape == (32, 48, 3)


@pytest.mark.parametrize("content", [b"", b"text", encode(four_colours())[:60]])
def test_what_is_no_image_is_an_error_of_the_image(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ImageError):
        take(tmp_path, content)
    assert list(tmp_path.iterdir()) == []


def test_an_image_with_too_many_pixels_is_an_error_of_the_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="MAX_IMAGE_MEGAPIXELS"):
        ImageCache(tmp_path, 0.001).take("d", encode(four_colours()))
    with pytest.raises(ImageError, match="too long to train on"):
        take(tmp_path, encode(np.zeros((2, 66_000, 3), np.uint8)))


def picture(number: int) -> bytes:
    return encode(np.full((16, 16, 3), number, np.uint8))


def used_at(file: Path, seconds_ago: float) -> None:
    os.utime(file, (time.time() - seconds_ago,) * 2)


def test_what_was_used_least_recently_goes_first_and_what_this_run_took_stays(tmp_path: Path) -> None:
    earlier = [take(tmp_path, picture(number)).file for number in range(4)]
    for age, file in enumerate(earlier):
        used_at(file, 1000 - age)
    size = earlier[0].stat().st_size
    cache = ImageCache(tmp_path, MAX_MEGAPIXELS, max_bytes=2 * size + size // 2)
    mine = [take(tmp_path, picture(0), cache).file]  # now it was used
    cache.make_room()
    assert sorted(tmp_path.iterdir()) == sorted([earlier[3], *mine])
    mine += [take(tmp_path, picture(number), cache).file for number in range(10, 14)]
    cache.make_room()
    assert sorted(tmp_path.iterdir()) == sorted(mine)  # more than the limit, but all of it is needed
    ImageCache(tmp_path, MAX_MEGAPIXELS, max_bytes=0).make_room()
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_used_again_is_kept_for_the_next(tmp_path: Path) -> None:
    earlier = [take(tmp_path, picture(number)).file for number in range(3)]
    for age, file in enumerate(earlier):
        used_at(file, 1000 - age)
    take(tmp_path, picture(0))  # the oldest of them
    ImageCache(tmp_path, MAX_MEGAPIXELS, max_bytes=earlier[0].stat().st_size + 1).make_room()
    assert list(tmp_path.iterdir()) == [earlier[0]]


def test_after_a_run_that_needed_more_a_new_cache_keeps_the_limit(tmp_path: Path) -> None:
    taking = ImageCache(tmp_path, MAX_MEGAPIXELS, max_bytes=0)
    taken = [take(tmp_path, picture(number), taking).file for number in range(5)]
    for age, file in enumerate(taken):
        used_at(file, 1000 - age)
    taking.make_room()
    assert sorted(tmp_path.iterdir()) == sorted(taken)
    sizes = [file.stat().st_size for file in taken]
    after = ImageCache(tmp_path, MAX_MEGAPIXELS, max_bytes=sum(sizes[3:]))
    after.make_room()
    assert sorted(tmp_path.iterdir()) == sorted(taken[3:])
    after.make_room()  # again, with nothing to do
    assert sorted(tmp_path.iterdir()) == sorted(taken[3:])


def test_a_whole_cache_within_the_limit_stays(tmp_path: Path) -> None:
    taken = [take(tmp_path, picture(number)).file for number in range(3)]
    ImageCache(tmp_path, MAX_MEGAPIXELS).make_room()
    assert sorted(tmp_path.iterdir()) == sorted(taken)


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path) -> None:
    old, young = tmp_path / ".a.jpg.01234567", tmp_path / ".b.jpg.01234567"
    for file, age in ((old, 7200), (young, 10)):
        file.write_bytes(b"half")
        used_at(file, age)
    ImageCache(tmp_path, MAX_MEGAPIXELS).make_room()
    assert list(tmp_path.iterdir()) == [young]


def test_room_is_made_where_there_is_none_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    ImageCache(tmp_path / "images", MAX_MEGAPIXELS).make_room()
    assert take(tmp_path / "a" / "images", picture(1)).file.is_file()


class SmallDisk:
    """A disk that takes so many files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, files: int) -> None:
        write = Path.write_bytes

        def write_bytes(path: Path, content: Any) -> int:
            if len(list(folder.iterdir())) >= files:
                write(path, content[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(path, content)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_on_a_full_disk_what_is_not_needed_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tmp_path, picture(1))
    SmallDisk(monkeypatch, tmp_path, 1)
    cached = take(tmp_path, picture(2))
    assert list(tmp_path.iterdir()) == [cached.file]


def test_a_full_disk_is_told_in_a_sentence_and_nothing_is_left_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallDisk(monkeypatch, tmp_path, 1)
    cache = ImageCache(tmp_path, MAX_MEGAPIXELS)
    first = take(tmp_path, picture(1), cache)
    with pytest.raises(
        ImageCacheError, match=rf"kept in {re.escape(str(tmp_path))} \(No space left on device\): make room"
    ):
        take(tmp_path, picture(2), cache)
    assert list(tmp_path.iterdir()) == [first.file]


def test_many_threads_may_take_the_same_image(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, MAX_MEGAPIXELS)
    contents = [picture(number) for number in range(4)] * 8
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda content: take(tmp_path, content, cache), contents))
    assert len({cached.file for cached in taken}) == len(list(tmp_path.iterdir())) == 4
    assert math.prod(taken[0].size_wh) == 256
