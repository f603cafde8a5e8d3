"""Which images look the same: a perceptual hash, and which hashes are nearly equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# So many of 64 bits may differ. The same photograph smaller, compressed again or a little brighter differs by 4 at
# most; of 292 photographs of blood cells, two of the same cells differ by 2, and any others by 13 or more.
MOST_BITS = 4
_COLUMNS, _ROWS = 8, 8


def look_of(pixels: NDArray[np.uint8]) -> int:
    """64 bits for RGB pixels (height, width, 3): whether it gets brighter from each of 9 x 8 fields to the next."""
    fields = Image.fromarray(pixels).convert("L").resize((_COLUMNS + 1, _ROWS), Image.Resampling.BOX)
    brightness = np.asarray(fields)
    bits = np.packbits(brightness[:, 1:] > brightness[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def near(look: int, others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the others (n,) differ by `MOST_BITS` at most: (n,)."""
    are_near: NDArray[np.bool_] = np.bitwise_count(others ^ np.uint64(look)) <= MOST_BITS
    return are_near


def chains(looks: Sequence[int]) -> Iterator[list[int]]:
    """Indices of looks that belong together: each is near another one of its chain, and near none of another chain.

    Each look is held once against those that are in no chain yet, so thousands that are all near each other take no
    longer than others.
    """
    left: NDArray[np.intp] = np.arange(len(looks))
    bits = np.array(looks, np.uint64)
    while len(left):
        chain = [int(left[0])]
        left, bits = left[1:], bits[1:]
        for index in chain:  # grows meanwhile
            are_near = near(looks[index], bits)
            if are_near.any():
                chain += left[are_near].tolist()
                left, bits = left[~are_near], bits[~are_near]
        yield chain
