"""Grey values of more than 8 bits, and numbers with a point, to 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from yolo_backend.images.errors import NotAnImageError

Numbers = NDArray[np.float32] | NDArray[np.int32] | NDArray[np.uint32]

_ROWS = 256  # at a time, because each step makes new arrays
_MAX_16_BITS = 65_535
# The number of white, and the range of the highest number then: a resampled image exceeds white, a dark one doesn't
# reach it.
_WHITES = ((1, 0, 2), (255, 32, 510), (_MAX_16_BITS, 16_384, _MAX_16_BITS))
_FAR = 1e30  # beyond any scale
_MAX_BELOW_BLACK = 0.25  # of white
_MIN_SHARE = 0.5  # of the numbers have to be ones that an image can have; others mark pixels without a value


def grey_16_to_8(grey: NDArray[np.uint16], bits: int = 16) -> NDArray[np.uint8]:
    """The high byte of 16 bits, as OpenCV reads it for Ultralytics; of `bits`, if the file says that it has fewer."""
    return (grey >> (bits - 8)).astype(np.uint8)


def numbers_to_8(values: Numbers) -> NDArray[np.uint8]:
    """Numbers up to 1, 255 or 65535, whichever fits. What lies a little beyond is clipped, and NaN is black.

    Ultralytics reads no such files. Raises NotAnImageError if it isn't clear which number is black and which is white.
    """
    scale = _scale_of(values)
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        rows = np.nan_to_num(values[start : start + _ROWS].astype(np.float64), posinf=_FAR, neginf=-_FAR)
        grey[start : start + _ROWS] = np.clip(rows * scale, 0, 255).astype(np.uint8)
    return grey


def _scale_of(values: Numbers) -> float:
    """The factor that makes white 255."""
    low, high, count, of_all = 0.0, 0.0, 0, 0
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS]
        rows = rows[np.isfinite(rows)]
        of_all += rows.size
        rows = rows[(rows >= -_MAX_16_BITS) & (rows <= _MAX_16_BITS)]
        if rows.size:
            low, high, count = min(low, float(rows.min())), max(high, float(rows.max())), count + rows.size
    if not of_all:
        told = "are all NaN or infinite"
    elif count >= _MIN_SHARE * of_all:
        for white, least, most in _WHITES:
            if least <= high <= most and low >= -_MAX_BELOW_BLACK * white:
                return 1 / 256 if white == _MAX_16_BITS else 255 / white
        told = f"go from {low:.6g} to {high:.6g}"
    else:
        told = f"go beyond {_MAX_16_BITS}"
    raise NotAnImageError(
        f"an image whose numbers {told}, so that black and white are unknown",
        "save it as PNG with 8 bits, or with numbers from 0 to 1",
    )
