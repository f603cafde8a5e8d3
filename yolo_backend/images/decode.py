"""Bytes to pixels: upright, RGB, 8 bits, first frame."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
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
_TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.flip(pixels, -1),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    # Faster than cv2.rotate, which turns pixel by pixel.
    6: lambda pixels: cv2.flip(cv2.transpose(pixels), 1),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.flip(cv2.transpose(pixels), 0),
}
_SIDEWAYS = {5, 6, 7, 8}
_JPEG_SCALES = (8, 4, 2)  # those that libjpeg-turbo decodes faster


@dataclass(frozen=True)
class DecodedImage:
    """RGB pixels (height, width, 3) of an upright image, and the size it has: larger, where it was decoded smaller."""

    pixels: NDArray[np.uint8]
    size_wh: tuple[int, int]


def decode_image(content: bytes, max_megapixels: float, enough_px: int | None = None) -> DecodedImage:
    """Decode to RGB, turned upright by EXIF as the labeling page shows it.

    Alpha is dropped and 16 bits become 8 by their high byte, as OpenCV, and so Ultralytics, reads them. With
    `enough_px`, a JPEG is decoded at a half, a quarter or an eighth as long as its longer side has so many pixels.
    Raises ImageError for what isn't an image in one of our formats, is broken, or has too many pixels.
    """
    try:
        with _open(content) as image:
            check_pixels(image, max_megapixels)
            pixels = _jpeg_to_rgb(content, image, enough_px)
            if pixels is None:
                image.load()
                pixels = _to_rgb(image)
            turn = _TURNS.get(_orientation(image))
            return DecodedImage(np.ascontiguousarray(turn(pixels) if turn else pixels), _upright_size(image))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError("too_many_pixels", "the image has more pixels than Pillow opens") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ... on bad data
        raise ImageError("broken", f"the image is broken: {first_line(error)[:200]}") from None


def upright_size(content: bytes) -> tuple[int, int]:
    """The width and height of an image as the labeling page shows it, by its headers alone. Raises ImageError."""
    try:
        with _open(content) as image:
            return _upright_size(image)
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError("broken", f"the image is broken: {first_line(error)[:200]}") from None


def _jpeg_to_rgb(content: bytes, image: Image.Image, enough_px: int | None) -> NDArray[np.uint8] | None:
    """The pixels that Pillow would give, in a third of the time; None for what is to be left to Pillow."""
    if image.format != JpegImagePlugin.JpegImageFile.format or image.mode not in {"RGB", "L"}:
        return None
    scales = (scale for scale in _JPEG_SCALES if enough_px and max(image.size) >= scale * enough_px)
    scale = next(scales, 1)
    width, height = (math.ceil(side / scale) for side in image.size)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB", min_width=width, min_height=height)
    except ValueError:  # also of faults that don't matter: Pillow knows
        return None
    return pixels


def _open(content: bytes) -> Image.Image:
    # Not Image.open: Ultralytics puts its own in that place, which wants to install a package for an unknown format.
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(content[:_MAGIC_BYTES]) is True:
            if name == JpegImagePlugin.JpegImageFile.format:
                check_jpeg(content)
            return (TiffFile if name == TiffFile.format else factory)(io.BytesIO(content), "")
    raise ImageError("not_an_image", "not a JPEG, PNG, WebP, BMP, GIF or TIFF image")


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return image.size[::-1] if _orientation(image) in _SIDEWAYS else image.size


def _orientation(image: Image.Image) -> int:
    # Not ImageOps.exif_transpose, which writes all EXIF anew and fails on odd entries that turn nothing.
    if image.format == WebPImagePlugin.WebPImageFile.format or not has_readable_exif(image):
        return 1  # browsers turn no WebP, and OpenCV doesn't either
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # EXIF that can't be read turns nothing, as on the page
        return 1
    return orientation if isinstance(orientation, int) else 1


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
