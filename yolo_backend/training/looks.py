"""Which images look the same: a perceptual hash, and pairs of hashes that are nearly equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# So many of 64 bits may differ. The same photograph smaller, compressed again or a little brighter differs by 4 at
# most; of 292 photographs of blood cells, two of the same cells differ by 2, and any others by 13 or more.
MOST_BITS = 4
_COLUMNS, _ROWS = 8, 8
_BLOCK = 256  # of 20,000 images, 40 MB at a time


def look_of(pixels: NDArray[np.uint8]) -> int:
    """64 bits for RGB pixels (height, width, 3): whether it gets brighter from each of 9 x 8 fields to the next."""
    fields = Image.fromarray(pixels).convert("L").resize((_COLUMNS + 1, _ROWS), Image.Resampling.BOX)
    brightness = np.asarray(fields)
    bits = np.packbits(brightness[:, 1:] > brightness[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def alike(looks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The pairs of indices, the lower one first, whose looks differ by `MOST_BITS` at most."""
    bits = np.array(looks, np.uint64)
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK, None]
        differing = np.bitwise_count(block ^ bits[None, start:])
        for row, column in np.argwhere(differing <= MOST_BITS).tolist():
            if row < column:
                yield start + row, start + column
