"""What a browser makes of the EXIF orientation of each format: the table that decoding is held to."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.harness.browser import chromium_page
from tests.harness.pictures import BEST, TURNED_BY_THE_PAGE, encode, turned

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


def four_colours() -> NDArray[np.uint8]:
    """A picture that looks otherwise however it is turned."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = (
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0),
    )  # fmt: skip
    return pixels


def test_the_table_is_what_the_browser_shows(chromium: Path) -> None:
    stored = four_colours()
    shown: dict[str, dict[int, list[int]]] = {}
    with chromium_page(chromium, "http://127.0.0.1", "orientation") as (page, _):
        for image_format, options in BEST.items():
            shown[image_format] = {}
            for orientation in range(1, 9):
                exif = Image.Exif()
                exif[0x0112] = orientation
                content = base64.b64encode(encode(stored, image_format, exif=exif, **options)).decode()
                width, height, numbers = page.evaluate(_DRAW, f"data:image/{image_format.lower()};base64,{content}")
                seen = np.array(numbers, int).reshape(height, width, 4)[..., :3]
                shown[image_format][orientation] = [
                    one
                    for one in range(1, 9)
                    if turned(stored, one).shape == seen.shape and np.abs(turned(stored, one) - seen).mean() < 12
                ]
    assert shown == {name: {key: [value] for key, value in of.items()} for name, of in TURNED_BY_THE_PAGE.items()}
