"""Bytes to pixels: upright, RGB, 8 bits, first frame."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from yolo_backend.images.errors import ImageError
from yolo_backend.images.headers import TiffFile, check_jpeg, check_pixels, has_readable_exif
from yolo_backend.messages import first_line

# The JPEGs of phones that hold several pictures (MPO) are opened as JPEG.
_FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    GifImagePlugin.GifImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
)
_MAGIC_BYTES = 16
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(content: bytes, max_megapixels: float) -> NDArray[np.uint8]:
    """Decode to RGB (height, width, 3), turned upright by EXIF as the labeling page shows it.

    Alpha is dropped and 16 bits become 8 by their high byte, as OpenCV, and so Ultralytics, reads them. Raises
    ImageError for what isn't an image in one of our formats, is broken, or has too many pixels.
    """
    try:
        with _open(content) as image:
            check_pixels(image, max_megapixels)
            image.load()
            return np.ascontiguousarray(_to_rgb(_turned_upright(image)))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError("too_many_pixels", "the image has more pixels than Pillow opens") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ... on bad data
        raise ImageError("broken", f"the image is broken: {first_line(error)[:200]}") from None


def _open(content: bytes) -> Image.Image:
    # Not Image.open: Ultralytics puts its own in that place, which wants to install a package for an unknown format.
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(content[:_MAGIC_BYTES]) is True:
            if name == JpegImagePlugin.JpegImageFile.format:
                check_jpeg(content)
            return (TiffFile if name == TiffFile.format else factory)(io.BytesIO(content), "")
    raise ImageError("not_an_image", "not a JPEG, PNG, WebP, BMP, GIF or TIFF image")


def _turned_upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose, which writes all EXIF anew and fails on odd entries that turn nothing.
    if not has_readable_exif(image):
        return image
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # EXIF that can't be read turns nothing, as on the page
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N"}:
        return _grey_to_rgb((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        return _grey_to_rgb(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if image.mode == "F":
        return _grey_to_rgb(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)
