"""What a browser makes of the EXIF orientation of each format: the table that decoding is held to."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from tests.harness.browser import chromium_page
from tests.harness.pictures import BEST, TURNED_BY_THE_PAGE, encode, turned
from tests.harness.turned_files import FIRST_FRAMES, TURNED_FILES, four_colours
from yolo_backend.images.decode import decode_image

_DRAW = """async address => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [canvas.width, canvas.height, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
}"""


def shown_as(page: Page, content: bytes) -> NDArray[np.int64]:
    """The pixels that a browser draws of a file, whose kind it finds out by itself."""
    address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    width, height, numbers = page.evaluate(_DRAW, address)
    return np.array(numbers, int).reshape(height, width, 4)[..., :3]


def turns_of(stored: NDArray[np.uint8], seen: NDArray[np.int64]) -> list[int]:
    """By which orientations `stored` becomes what is seen: one, if any."""
    pictures = {one: turned(stored, one) for one in range(1, 9)}
    return [one for one, it in pictures.items() if it.shape == seen.shape and np.abs(it - seen).mean() < 12]


def test_the_table_is_what_the_browser_shows(chromium: Path) -> None:
    stored = four_colours()
    shown: dict[str, dict[int, list[int]]] = {}
    with chromium_page(chromium, "http://127.0.0.1", "orientation") as (page, _):
        for image_format, options in BEST.items():
            shown[image_format] = {}
            for orientation in range(1, 9):
                exif = Image.Exif()
                exif[0x0112] = orientation
                content = encode(stored, image_format, exif=exif, **options)
                shown[image_format][orientation] = turns_of(stored, shown_as(page, content))
    assert shown == {name: {key: [value] for key, value in of.items()} for name, of in TURNED_BY_THE_PAGE.items()}


def test_odd_files_are_turned_as_the_browser_turns_them(chromium: Path) -> None:
    with chromium_page(chromium, "http://127.0.0.1", "odd-orientation") as (page, _):
        shown = {name: turns_of(four_colours(), shown_as(page, content)) for name, (content, _) in TURNED_FILES.items()}
    assert shown == {name: [orientation] for name, (_, orientation) in TURNED_FILES.items()}


def test_first_frames_lie_where_the_browser_shows_them(chromium: Path) -> None:
    with chromium_page(chromium, "http://127.0.0.1", "first-frames") as (page, _):
        for name, (content, (width, height), (x, y)) in FIRST_FRAMES.items():
            seen = shown_as(page, content)
            assert seen.shape == (height, width, 3), name
            assert turns_of(four_colours(), seen[y : y + 32, x : x + 48]) == [1], name


def test_avifs_look_as_the_browser_shows_them(chromium: Path) -> None:
    files = sorted((Path(__file__).parent.parent / "data" / "avif").glob("*.avif"))
    with chromium_page(chromium, "http://127.0.0.1", "avif") as (page, _):
        for file in files:
            if file.stem not in {"cropped", "144_megapixels", "frames_of_other_sizes"}:
                seen, decoded = shown_as(page, file.read_bytes()), decode_image(file.read_bytes(), 1).pixels
                assert seen.shape == decoded.shape, file.name
                assert np.abs(seen - decoded).mean() < 3, file.name
