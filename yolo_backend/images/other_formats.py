"""Formats that the labeling page doesn't show, and predicting doesn't read, but that can be made into others."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import (
    DdsImagePlugin,
    IcnsImagePlugin,
    IcoImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    PcxImagePlugin,
    PpmImagePlugin,
    PsdImagePlugin,
    QoiImagePlugin,
    SgiImagePlugin,
    TgaImagePlugin,
)

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.decode import to_rgb
from yolo_backend.images.depth import grey_16_to_8
from yolo_backend.images.errors import ImageError, NotAnImageError
from yolo_backend.images.headers import check_pixels
from yolo_backend.images.signatures import tell_apart
from yolo_backend.messages import first_line

# Pillow has more, which start other programs (EPS), or hold no picture.
_PLUGINS: tuple[type[Image.Image], ...] = (
    PpmImagePlugin.PpmImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    PsdImagePlugin.PsdImageFile,
    IcoImagePlugin.IcoImageFile,
    IcnsImagePlugin.IcnsImageFile,
    DdsImagePlugin.DdsImageFile,
    PcxImagePlugin.PcxImageFile,
    QoiImagePlugin.QoiImageFile,
    SgiImagePlugin.SgiImageFile,
)
_TGA = TgaImagePlugin.TgaImageFile  # it has no first bytes by which it is known
_HEIF_BRANDS = (b"hei", b"hev", b"mif", b"msf", b"avc")
_HOW_TO_GET_HEIC = (
    "install pip's pillow-heif (the extra `heic`) and run it again, or convert it to JPEG yourself, for example by "
    "`heif-convert`"
)


def decode_other(content: bytes, suffix: str, max_megapixels: float) -> NDArray[np.uint8]:
    """The upright RGB pixels (height, width, 3) of an image that `decode_image` doesn't read. Raises ImageError.

    The `suffix` is that of its name: a TGA is known by nothing else.
    """
    opener = _opener(content, suffix)
    if opener is None:
        raise tell_apart(content) or NotAnImageError("no image in a format that can be read", "make it a PNG or JPEG")
    try:
        with opener(content) as image:
            check_pixels(image, max_megapixels)
            image.load()
            is_16_bits = isinstance(image, PpmImagePlugin.PpmImageFile) and image.mode == "I"
            if is_16_bits:
                grey = grey_16_to_8(np.asarray(image).clip(0, 65_535).astype(np.uint16))
                return np.repeat(grey[..., None], 3, axis=2)
            return np.ascontiguousarray(to_rgb(image))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(FailureKind.TOO_MANY_PIXELS, "the image has more pixels than Pillow opens") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ... on bad data
        raise ImageError(FailureKind.BROKEN, f"the image is broken: {first_line(error)[:200]}") from None


def is_heic(start: bytes) -> bool:
    """Returns True for the start of a HEIC or HEIF."""
    return start[4:8] == b"ftyp" and start[8:11] in _HEIF_BRANDS


def _opener(content: bytes, suffix: str) -> Callable[[bytes], Image.Image] | None:
    if is_heic(content[:16]):
        return _open_heic
    # Not Image.open: Ultralytics replaces it by a function that installs a package for an unknown format.
    for plugin in _PLUGINS:
        accept = Image.OPEN[str(plugin.format)][1]
        if accept is not None and accept(content[:32]) is True:
            return lambda content, plugin=plugin: plugin(io.BytesIO(content), "")  # type: ignore[misc]
    if suffix.lower() == ".tga" and tell_apart(content) is None:
        return lambda content: _TGA(io.BytesIO(content), "")
    return None


def _open_heic(content: bytes) -> Image.Image:
    """A HEIC, turned upright by its container, if its decoder is installed."""
    try:
        import pillow_heif
    except ImportError:
        raise NotAnImageError("a HEIC, as iPhones make", _HOW_TO_GET_HEIC) from None
    image: Image.Image = pillow_heif.open_heif(content).to_pillow()
    return image
