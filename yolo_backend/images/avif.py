"""What an AVIF may ask of its decoder: its header names one size, and the AV1 within it may have another.

Pillow's decoder takes the size within up to 268 megapixels, whatever the header says, and has no option for less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError, NotAnImageError

_BRANDS = {b"avif", b"avis"}
_MAX_BOXES = 20_000
_MAX_EXTENTS = 20_000  # and items in the table of them; a grid has one for each tile
_MAX_UNITS = 5000  # of all coded pictures together
_MAX_SHARE = 4  # of the limit of pixels, all pictures together: the image, its alpha, a gain map, a thumbnail
_UNIT_BYTES = 1024  # of a unit are read; its header takes far fewer
_SEQUENCE_HEADER = 1
_FRAME_HEADERS = {3, 6, 7}  # alone, in a frame, redundant: if no other came before, dav1d takes the last for the first
_MAX_ZEROS = 31  # before a number of variable length
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_CHOSEN_BY_FRAME = 2


def is_avif(content: bytes) -> bool:
    """Returns True if the file says of itself that an AVIF reader can show it."""
    if content[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(content[:4], "big"), len(content), 1024)
    return content[8:12] in _BRANDS or any(
        content[position : position + 4] in _BRANDS for position in range(16, end, 4)
    )


def check_avif(content: bytes, max_megapixels: float) -> bytes:
    """The file without its EXIF, which turns nothing on the page, once its coded pictures are measured.

    Raises ImageError for pictures of more pixels than that, and for what can't be measured.
    """
    try:
        file = _File(content)
        units_left = _Budget(_MAX_UNITS)
        sizes_wh = [_coded_size(data, units_left) for data in file.pictures()]
    except (_BrokenError, IndexError, KeyError):
        sizes_wh = []
    if not sizes_wh:
        raise ImageError(FailureKind.BROKEN, "the image is broken, or an AVIF of an unusual kind: save it anew")
    if file.is_cropped:
        raise NotAnImageError(
            "an AVIF that is cropped by its header (clap), which programs show differently", "save it anew"
        )
    width, height = max(sizes_wh, key=lambda size_wh: size_wh[0] * size_wh[1])
    megapixels = sum(width * height for width, height in sizes_wh) / 1e6
    limit = f"more than {max_megapixels:g} megapixels (MAX_IMAGE_MEGAPIXELS)"
    if width * height > max_megapixels * 1e6:
        raise ImageError(FailureKind.TOO_MANY_PIXELS, f"the image has {width}x{height} pixels, {limit}")
    if megapixels > _MAX_SHARE * max_megapixels:
        raise ImageError(
            FailureKind.TOO_MANY_PIXELS,
            f"the image's {len(sizes_wh)} parts have {megapixels:g} megapixels, far {limit}",
        )
    return file.without_exif()


class _BrokenError(Exception):
    """Not what an AVIF must be."""


class _Budget:
    """An amount that may be spent, and no more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, amount: int = 1) -> None:
        """Raises _BrokenError if less is left."""
        self.left -= amount
        if self.left < 0:
            raise _BrokenError


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _by_key(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, _Value]:
    """These by their keys. Raises _BrokenError if one comes twice, because another reader may take the other value."""
    found: dict[_Key, _Value] = {}
    for key, value in pairs:
        if key in found:
            raise _BrokenError
        found[key] = value
    return found


@dataclass(frozen=True)
class _IsoBox:
    kind: bytes
    start: int
    end: int


class _File:
    """The boxes of an AVIF."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._boxes_left = _Budget(_MAX_BOXES)
        self._tracks: list[_IsoBox] = []
        meta: list[_IsoBox] = []
        for box in self._boxes_of_file():
            if box.kind == b"meta":
                meta += self._boxes(box.start + 4, box.end)
            elif box.kind == b"moov":
                self._tracks += [track for track in self._boxes(box.start, box.end) if track.kind == b"trak"]
        self._meta = _by_key((box.kind, box) for box in meta)
        self._items = _by_key(self._read_items())
        properties = [box for box in meta if box.kind == b"iprp"]
        containers = [inner for box in properties for inner in self._boxes(box.start, box.end) if inner.kind == b"ipco"]
        self.is_cropped = any(one.kind == b"clap" for box in containers for one in self._boxes(box.start, box.end))

    def pictures(self) -> Iterator[bytes]:
        """The AV1 data of each picture, and of the first one of each track."""
        bytes_left = _Budget(_MAX_SHARE * len(self._content))  # pictures may lie in the same span
        for spans in self._read_spans():
            bytes_left.spend(sum(end - start for start, end in spans))
            yield b"".join(self._content[start:end] for start, end in spans)
        for track in self._tracks:
            tables = _by_key((box.kind, box) for box in self._below(track, b"mdia", b"minf", b"stbl"))
            sizes, offsets = tables[b"stsz"], tables.get(b"stco") or tables.get(b"co64")
            if offsets is None:
                raise _BrokenError
            size = self._number(sizes.start + 4, 4) or self._number(sizes.start + 12, 4)
            offset = self._number(offsets.start + 8, 4 if offsets.kind == b"stco" else 8)
            bytes_left.spend(min(size, len(self._content)))
            yield self._content[offset : offset + size]

    def without_exif(self) -> bytes:
        """The file with each EXIF renamed, because Pillow fails on EXIF that it can't read."""
        positions = [position for kind, position in self._items.values() if kind == b"Exif"]
        if not positions:
            return self._content
        changed = bytearray(self._content)
        for position in positions:
            changed[position : position + 4] = b"skip"
        return bytes(changed)

    def _boxes_of_file(self) -> Iterator[_IsoBox]:
        """The outermost boxes. Some programs leave other bytes at the end, where this stops."""
        try:
            yield from self._boxes(0, len(self._content))
        except _BrokenError:
            if self._boxes_left.left < 0:
                raise

    def _boxes(self, start: int, end: int) -> Iterator[_IsoBox]:
        while start + 8 <= end:
            self._boxes_left.spend()
            size, kind, head = self._number(start, 4), self._content[start + 4 : start + 8], 8
            if size == 1:
                size, head = self._number(start + 8, 8), 16
            elif size == 0:
                size = end - start
            if size < head or start + size > end:
                raise _BrokenError
            yield _IsoBox(kind, start + head, start + size)
            start += size

    def _below(self, box: _IsoBox, *path: bytes) -> list[_IsoBox]:
        boxes = [box]
        for kind in path:
            boxes = [inner for one in boxes for inner in self._boxes(one.start, one.end) if inner.kind == kind]
        return [inner for one in boxes for inner in self._boxes(one.start, one.end)]

    def _number(self, position: int, length: int) -> int:
        return int.from_bytes(self._content[position : position + length], "big")

    def _read_items(self) -> Iterator[tuple[int, tuple[bytes, int]]]:
        """The id of each item, its kind, and the position of its kind."""
        table = self._meta.get(b"iinf")
        if table is None:
            return
        for entry in self._boxes(table.start + (8 if self._content[table.start] else 6), table.end):
            id_bytes = 2 if self._content[entry.start] < 3 else 4
            position = entry.start + 4 + id_bytes + 2
            yield self._number(entry.start + 4, id_bytes), (self._content[position : position + 4], position)

    def _read_spans(self) -> Iterator[list[tuple[int, int]]]:
        """Where the data of each picture begins and ends: the spans of its extents."""
        table = self._meta.get(b"iloc")
        if table is None:
            return
        version, position = self._content[table.start], table.start + 4

        def take(length: int) -> int:
            nonlocal position
            position += length
            if position > table.end:
                raise _BrokenError
            return self._number(position - length, length)

        sizes = take(2)
        offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
        index_bytes = sizes & 15 if version else 0
        extents_left = _Budget(_MAX_EXTENTS)
        for _ in range(take(4 if version == 2 else 2)):
            extents_left.spend()
            item = take(4 if version == 2 else 2)
            method = take(2) & 15 if version else 0
            take(2)
            base = take(base_bytes)
            extents = []
            count = take(2)
            extents_left.spend(count)
            if count > 1 and not offset_bytes + length_bytes:
                raise _BrokenError  # each is the same
            for _ in range(count):
                take(index_bytes)
                offset, length = take(offset_bytes), take(length_bytes)
                extents.append((base + offset, length))
            if self._items.get(item, (b"", 0))[0] == b"av01":
                yield self._spans_of(method, extents)

    def _spans_of(self, method: int, extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Where each extent begins and ends in the file; one of no length goes to the end of it, or of its box."""
        start, end = 0, len(self._content)
        if method == 1:
            box = self._meta[b"idat"] if b"idat" in self._meta else _IsoBox(b"", 0, 0)
            start, end = box.start, box.end
        elif method:
            raise _BrokenError
        spans = []
        for offset, length in extents:
            first = min(start + offset, end)
            spans.append((first, min(first + length, end) if length else end))
        if sum(last - first for first, last in spans) > len(self._content):
            raise _BrokenError
        return spans


class _Bits:
    """Numbers of any count of bits, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._number = int.from_bytes(content[:_UNIT_BYTES], "big")
        self._left = 8 * min(len(content), _UNIT_BYTES)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise _BrokenError
        return self._number >> self._left & (1 << count) - 1


@dataclass
class _Sequence:
    """What a sequence header says, as far as it is needed to read the start of a frame header."""

    width: int = 0
    height: int = 0
    is_still: bool = False
    time_bits: int = 0
    id_bits: int = 0
    screen_content: int = _CHOSEN_BY_FRAME
    integer_motion: int = _CHOSEN_BY_FRAME


def _coded_size(data: bytes, units_left: _Budget) -> tuple[int, int]:
    """The largest width and height that a frame in this AV1 data has. Raises _BrokenError."""
    sequence: _Sequence | None = None
    largest = 0, 0
    for kind, unit in _units(data):
        units_left.spend()
        if kind == _SEQUENCE_HEADER:
            sequence = _read_sequence(_Bits(unit))
            largest = max(largest[0], sequence.width), max(largest[1], sequence.height)
        elif kind in _FRAME_HEADERS and (sequence is None or _has_own_size(_Bits(unit), sequence)):
            raise _BrokenError
    if sequence is None:
        raise _BrokenError
    return largest


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind of each unit of AV1 (OBU), and its start."""
    position = 0
    while position < len(data):
        head = data[position]
        position += 2 if head & 4 else 1
        size = len(data) - position
        if head & 2:
            size = shift = 0
            while True:
                byte = data[position]
                position, size, shift = position + 1, size | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
                if shift > 56:
                    raise _BrokenError
        yield head >> 3 & 15, data[position : position + min(size, _UNIT_BYTES)]
        position += size


def _read_sequence(bits: _Bits) -> _Sequence:
    sequence = _Sequence()
    bits.take(4)  # profile, still picture
    sequence.is_still = bool(bits.take(1))
    if sequence.is_still:
        bits.take(5)  # level
    else:
        _read_operating_points(bits, sequence)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    sequence.width, sequence.height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    if sequence.is_still:
        return sequence
    if bits.take(1):  # frames have numbers
        sequence.id_bits = bits.take(4) + bits.take(3) + 3
    bits.take(3 + 4)  # block size, filters; kinds of motion
    if bits.take(1):  # order hints
        bits.take(2)
    sequence.screen_content = _CHOSEN_BY_FRAME if bits.take(1) else bits.take(1)
    if sequence.screen_content:
        sequence.integer_motion = _CHOSEN_BY_FRAME if bits.take(1) else bits.take(1)
    return sequence


def _read_operating_points(bits: _Bits, sequence: _Sequence) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        is_even = bits.take(1)
        if is_even:
            zeros = 0
            while not bits.take(1):
                zeros += 1
                if zeros > _MAX_ZEROS:
                    raise _BrokenError
            bits.take(zeros)
        if bits.take(1):  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5)
            sequence.time_bits = 0 if is_even else bits.take(5) + 1
            if is_even:
                bits.take(5)
    has_delays = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_delays and bits.take(1):
            bits.take(4)


def _has_own_size(bits: _Bits, sequence: _Sequence) -> bool:
    """Returns True if a frame gives a size of its own, which may be larger than its sequence's."""
    if sequence.is_still or bits.take(1):  # a frame that is shown again
        return False
    kind, is_shown = bits.take(2), bits.take(1)
    bits.take(sequence.time_bits if is_shown else 1)
    if kind != _SWITCH_FRAME and not (kind == _KEY_FRAME and is_shown):
        bits.take(1)
    bits.take(1)
    screen_content = bits.take(1) if sequence.screen_content == _CHOSEN_BY_FRAME else sequence.screen_content
    if screen_content and sequence.integer_motion == _CHOSEN_BY_FRAME:
        bits.take(1)
    bits.take(sequence.id_bits)
    return kind == _SWITCH_FRAME or bool(bits.take(1))
