"""Label Studio's run-length encoding of a mask: what a brush region holds.

It is of the bytes of an RGBA picture, 4 x width x height values, as a stream of bits, each number with its highest bit
first. The head: 32 bits how many values there are; 5 bits how many bits a value has, less one; four times 4 bits how
many bits a length may have, less one. Then records: 1 bit is set if the record is a run of one value; 2 bits say which
of the four lengths comes; then the length, less one; then the run's value, or as many values as the length says.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.masks import Mask

_CHANNELS = 4
_VALUE_BITS = 8
_OPAQUE = 255
_VISIBLE = 128  # the alpha from which a pixel belongs to a mask
_LONGEST_BITS = 16
_LONGEST = 1 << _LONGEST_BITS
_HEAD_BITS = 32 + 5 + 4 * 4
_NOT_FOR_IT = 1 << 20

# Which four sizes of lengths there may be, and how many bits a length of so many bits takes with them.
_SIZES = np.array(list(combinations(range(1, _LONGEST_BITS + 1), 4)), np.int64)
_FIRST_FIT = (_SIZES[:, :, None] < np.arange(1, _LONGEST_BITS + 1)).sum(axis=1)
_COSTS = np.where(_FIRST_FIT < 4, np.take_along_axis(_SIZES, _FIRST_FIT.clip(max=3), axis=1), _NOT_FOR_IT)

Runs = NDArray[np.int64]


def encode_rle(mask: Mask, size_wh: tuple[int, int]) -> list[int]:
    """The mask as the RLE of an image of this size in pixels: white and opaque within it, transparent outside."""
    runs = _runs_of_image(mask, size_wh) * _CHANNELS
    values = np.arange(len(runs)) % 2 * _OPAQUE
    pieces = -(-runs // _LONGEST)  # none of an empty run
    lengths = np.full(int(pieces.sum()), _LONGEST, np.int64)
    lasts = np.cumsum(pieces)[pieces > 0] - 1
    lengths[lasts] = (runs - (pieces - 1) * _LONGEST)[pieces > 0]
    values = np.repeat(values, pieces)

    bits_of_each = _bits_needed(lengths - 1)
    sizes = _SIZES[(_COSTS @ np.bincount(bits_of_each, minlength=_LONGEST_BITS + 1)[1:]).argmin()]
    which = np.searchsorted(sizes, bits_of_each)
    size_of_each = sizes[which]
    records = ((4 | which) << size_of_each | (lengths - 1)) << _VALUE_BITS | values
    head = int(runs.sum()) << 21 | (_VALUE_BITS - 1) << 16
    head |= sum((int(size) - 1) << 4 * (3 - number) for number, size in enumerate(sizes))
    numbers = np.concatenate([[head], records])
    return _packed(numbers, np.concatenate([[_HEAD_BITS], 3 + size_of_each + _VALUE_BITS]))


def decode_rle(rle: Sequence[int], size_wh: tuple[int, int]) -> Mask:
    """The mask of an RLE for an image of this size: the pixels that are at least half opaque.

    Raises ValueError if it is no RLE, or for an image of another size.
    """
    width, height = size_wh
    starts, ends, values, count = _records(rle, _CHANNELS * width * height)
    # The alpha is each fourth value: how many of them a record has.
    alphas = ends // _CHANNELS - starts // _CHANNELS
    inside = values[alphas > 0] >= _VISIBLE
    borders = np.cumsum(alphas[alphas > 0])
    changes = np.flatnonzero(inside[1:] != inside[:-1])
    begins_inside = [0] if inside[:1].any() else []
    runs = np.diff(np.concatenate([[0], begins_inside, borders[changes], [count // _CHANNELS]])).astype(np.uint32)
    return Mask((0, 0, width, height), runs)


def _runs_of_image(mask: Mask, size_wh: tuple[int, int]) -> Runs:
    """The lengths of the mask's runs through all of the image, by turns outside and inside."""
    borders = np.stack(mask.spans(size_wh), axis=1).ravel()
    return np.diff(np.concatenate([[0], borders, [size_wh[0] * size_wh[1]]]))


def _bits_needed(numbers: Runs) -> Runs:
    """How many bits each number has, one at least."""
    bits: Runs = np.frexp(numbers.astype(np.float64))[1].astype(np.int64).clip(min=1)
    return bits


def _packed(numbers: Runs, bits_of_each: Runs) -> list[int]:
    """The numbers one after the other in so many bits each, as bytes; the last byte is filled with zeros."""
    ends = np.cumsum(bits_of_each)
    places = np.repeat(ends, bits_of_each) - 1 - np.arange(ends[-1])
    bits = np.repeat(numbers, bits_of_each) >> places & 1
    packed: list[int] = np.packbits(bits.astype(np.uint8)).tolist()
    return packed


def _records(rle: Sequence[int], expected: int) -> tuple[Runs, Runs, Runs, int]:
    """Where each run of equal values starts and ends, its value, and how many values there are. Raises ValueError."""
    try:
        content = np.frombuffer(bytes(list(rle)) + bytes(8), np.uint8)
    except (TypeError, ValueError):
        raise ValueError("an RLE is a list of bytes") from None
    # Of each byte the number that it and the seven after it make: any number of 32 bits is within one of them.
    at_byte: NDArray[np.uint64] = np.zeros(len(content) - 7, np.uint64)
    for number in range(8):
        at_byte = (at_byte << np.uint64(8)) | content[number : len(content) - 7 + number].astype(np.uint64)
    words: list[int] = at_byte.tolist()
    total_bits = (len(content) - 8) * 8
    position = 0

    def read(bits: int) -> int:
        nonlocal position
        if position + bits > total_bits:
            raise ValueError("the RLE ends too early")
        number = words[position >> 3] >> (64 - (position & 7) - bits) & ((1 << bits) - 1)
        position += bits
        return number

    count = read(32)
    if count != expected:
        raise ValueError(f"the RLE is of {count} values, and the image has {expected}")
    value_bits = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    starts: list[Runs] = []
    values: list[Runs] = []
    done = 0
    while done < count:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        if done + length > count:
            raise ValueError("the RLE has more values than it says")
        if is_run:
            starts.append(np.array([done]))
            values.append(np.array([read(value_bits)]))
        else:
            if position + length * value_bits > total_bits:
                raise ValueError("the RLE ends too early")
            places = position + np.arange(length) * value_bits
            shifts = (64 - (places & 7) - value_bits).astype(np.uint64)
            values.append((at_byte[places >> 3] >> shifts).astype(np.int64) & ((1 << value_bits) - 1))
            starts.append(done + np.arange(length))
            position += length * value_bits
        done += length
    all_starts = np.concatenate([np.empty(0, np.int64), *starts])
    return (
        all_starts,
        np.append(all_starts[1:], [count][:count]),
        np.concatenate([np.empty(0, np.int64), *values]),
        count,
    )
