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
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.avif import check_avif, is_avif
from yolo_backend.images.depth import grey_16_to_8, numbers_to_8
from yolo_backend.images.errors import ImageError, NotAnImageError
from yolo_backend.images.headers import TiffFile, check_jpeg, check_pixels
from yolo_backend.images.orientation import orientation_of
from yolo_backend.images.signatures import tell_apart
from yolo_backend.messages import first_line

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # we decode on all cores already

# The JPEGs of phones that hold several pictures (MPO) are opened as JPEG.
_FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    GifImagePlugin.GifImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
)
_AVIF = "AVIF"
_MAGIC_BYTES = 16
_BITS_OF_PNG = 24  # the position at which a PNG says how many each colour has
_BITS_OF_TIFF, _PHOTOMETRIC_OF_TIFF, _FORM_OF_TIFF = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_NEARLY_BLACK = 16
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
_JPEG_SCALES = (8, 4, 2)  # those at which libjpeg-turbo decodes faster


@dataclass(frozen=True)
class DecodedImage:
    """RGB pixels (height, width, 3) of an upright image, and its own size: larger if it was decoded smaller.

    `remark` is what a person should know of it, such as that it is nearly black. `orientation` is EXIF's number of how
    the file's own pixels were turned.
    """

    pixels: NDArray[np.uint8]
    size_wh: tuple[int, int]
    remark: str = ""
    orientation: int = 1


def decode_image(content: bytes, max_megapixels: float, enough_px: int | None = None) -> DecodedImage:
    """Decode to RGB, turned as the labeling page shows it.

    Alpha is dropped. Of 16 bits the high byte is taken, as OpenCV does it for Ultralytics. With `enough_px`, a JPEG is
    decoded at a half, a quarter or an eighth, if its longer side still has so many pixels. Raises ImageError for what
    isn't an image in one of our formats, is broken, or has too many pixels.
    """
    try:
        with _open(content, max_megapixels) as image:
            check_pixels(image, max_megapixels)
            pixels = _jpeg_to_rgb(content, image, enough_px)
            if pixels is None:
                _go_to_first_frame(image)
                image.load()
                pixels = to_rgb(image)
            orientation = orientation_of(image, content)
            turn = _TURNS.get(orientation)
            remark = _remark(image, content, pixels)
            upright = np.ascontiguousarray(turn(pixels) if turn else pixels)
            return DecodedImage(upright, _turned(image.size, orientation), remark, orientation)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(FailureKind.TOO_MANY_PIXELS, "the image has more pixels than Pillow opens") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ... on bad data
        raise ImageError(FailureKind.BROKEN, f"the image is broken: {first_line(error)[:200]}") from None


def size_and_orientation(content: bytes) -> tuple[tuple[int, int], int]:
    """The width and height of an image as the labeling page shows it, and EXIF's number of how the file is turned.

    By its headers alone. Raises ImageError.
    """
    try:
        with _open(content, math.inf) as image:
            orientation = orientation_of(image, content)
            return _turned(image.size, orientation), orientation
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(FailureKind.BROKEN, f"the image is broken: {first_line(error)[:200]}") from None


def format_of(start: bytes) -> str:
    """The format of a file that begins like this, such as `JPEG`. Raises ImageError for one that isn't decoded."""
    if is_avif(start):
        return _AVIF
    for name in _FORMATS:
        accept = Image.OPEN[name][1]
        if accept is not None and accept(start[:_MAGIC_BYTES]) is True:
            return name
    raise tell_apart(start) or ImageError(
        FailureKind.NOT_AN_IMAGE, "not a JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF image"
    )


def _jpeg_to_rgb(content: bytes, image: Image.Image, enough_px: int | None) -> NDArray[np.uint8] | None:
    """The pixels that Pillow would give, in a third of the time; None if Pillow has to decode it."""
    if image.format != JpegImagePlugin.JpegImageFile.format or image.mode not in {"RGB", "L"}:
        return None
    scales = (scale for scale in _JPEG_SCALES if enough_px and max(image.size) >= scale * enough_px)
    scale = next(scales, 1)
    width, height = (math.ceil(side / scale) for side in image.size)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB", min_width=width, min_height=height)
    except ValueError:  # also for faults that don't matter, which Pillow knows
        return None
    return pixels


def _open(content: bytes, max_megapixels: float) -> Image.Image:
    # Not Image.open: Ultralytics replaces it by a function that installs a package for an unknown format.
    name = format_of(content)
    factory = TiffFile if name == TiffFile.format else Image.OPEN[name][0]
    if name == JpegImagePlugin.JpegImageFile.format:
        check_jpeg(content)
    elif name == _AVIF and not AvifImagePlugin.SUPPORTED:
        raise NotAnImageError("an AVIF, which the installed Pillow doesn't read", "install Pillow's own wheel")
    elif name == _AVIF:
        content = check_avif(content, max_megapixels)
    return factory(io.BytesIO(content), "")


def _go_to_first_frame(image: Image.Image) -> None:
    """Skip the first picture of an animated PNG if it is only for programs that show no animation."""
    if isinstance(image, PngImagePlugin.PngImageFile) and image.is_animated and image.default_image:
        image.seek(1)


def _turned(size_wh: tuple[int, int], orientation: int) -> tuple[int, int]:
    return size_wh[::-1] if orientation in _SIDEWAYS else size_wh


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an opened image, not turned: RGB with 8 bits. Raises ImageError."""
    if image.mode in {"I;16", "I;16L", "I;16B", "I;16N"}:
        bits = image.number(_BITS_OF_TIFF, 16) if isinstance(image, TiffFile) else 16
        return _grey_to_rgb(image, grey_16_to_8(np.asarray(image), bits))
    if image.mode in {"I", "F"}:
        numbers = np.asarray(image)
        if isinstance(image, TiffFile) and numbers.dtype == np.int32 and image.number(_BITS_OF_TIFF, 0) == 32:
            # Pillow has no mode for unsigned ones.
            numbers = numbers.view(np.uint32) if image.number(_FORM_OF_TIFF, _UNSIGNED) == _UNSIGNED else numbers
        return _grey_to_rgb(image, numbers_to_8(numbers))
    if image.mode == "La":  # which Pillow can't convert to RGB
        image = image.convert("LA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_to_rgb(image: Image.Image, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(image, TiffFile) and image.number(_PHOTOMETRIC_OF_TIFF, 1) == _WHITE_IS_ZERO:
        grey = 255 - grey  # which Pillow does for 8 bits only
    return np.repeat(grey[..., None], 3, axis=2)


def _remark(image: Image.Image, content: bytes, pixels: NDArray[np.uint8]) -> str:
    if isinstance(image, TiffFile):
        has_16_bits = image.number(_BITS_OF_TIFF, 8) == 16
    else:
        has_16_bits = image.format == PngImagePlugin.PngImageFile.format and content[_BITS_OF_PNG] == 16
    if has_16_bits and pixels.max(initial=0) < _NEARLY_BLACK:
        return (
            "it is nearly black, as it is for Ultralytics: its 16 bits are used to a sixteenth at most. "
            "Stretch it to 0 to 65535, or save it with 8 bits"
        )
    if isinstance(image, TiffFile) and image.is_animated:
        return "only the first of its pages is looked at"
    return ""
