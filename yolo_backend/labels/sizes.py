"""How large a prediction may be: Label Studio takes seconds to store and to show megabytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from yolo_backend.labels.outlines import within_tolerance
from yolo_backend.protocol import Region

MAX_PREDICTION_BYTES = 4_000_000
"""So much is stored in about a second (docs/journal/shapes.md)."""

_TOLERANCES_PX = (1, 2, 4, 8, 16)
_DIGITS = 4
# As Label Studio stores them, a comma and a space after each.
_BYTES_OF_A_NUMBER = 4.6  # of an RLE
_BYTES_OF_A_POINT = 20
_BYTES_OF_THE_REST = 300


def bounded(regions: Sequence[Region], most_bytes: int = MAX_PREDICTION_BYTES) -> tuple[list[Region], str | None]:
    """The regions of a prediction in so many bytes of JSON, more or less; and what was done for it, if anything.

    Polygons get fewer points. If that isn't enough, the masks and polygons with the lowest scores are left out.
    """
    kept, size = list(regions), _size_of(regions)
    if size <= most_bytes:
        return kept, None
    told: list[str] = []
    for tolerance_px in _TOLERANCES_PX:
        if _size_of(kept) <= most_bytes or not any(map(_points_of, kept)):
            break
        kept = [_simplified(region, tolerance_px) for region in regions]
        told[:] = [f"its polygons are simplified by up to {tolerance_px} pixels"]
    things = _things(kept)
    left_out = set(_least_sure(things, _size_of(kept) - most_bytes))
    if left_out:
        told.append(f"{len(left_out)} of {len(things)} shapes, those with the lowest scores, are left out")
    return [region for region in kept if _thing_of(region) not in left_out], (
        f"the prediction would have {size / 1e6:.1f} MB, and Label Studio takes too long for more than "
        f"{most_bytes / 1e6:.1f} MB: {'; '.join(told)}"
    )


def _size_of(regions: Sequence[Region]) -> int:
    return sum(map(_size_of_one, regions))


def _size_of_one(region: Region) -> int:
    numbers = len(region["value"].get("rle", ()))
    return round(_BYTES_OF_THE_REST + _BYTES_OF_A_NUMBER * numbers + _BYTES_OF_A_POINT * len(_points_of(region)))


def _points_of(region: Region) -> list[list[float]]:
    points: list[list[float]] = region["value"].get("points", [])
    return points


def _simplified(region: Region, tolerance_px: float) -> Region:
    percent = _points_of(region)
    if not percent:
        return region
    size_wh = np.array([region["original_width"], region["original_height"]]) / 100
    points = within_tolerance(np.array(percent) * size_wh, tolerance_px) / size_wh
    value: dict[str, Any] = {**region["value"], "points": points.clip(0, 100).round(_DIGITS).tolist()}
    return {**region, "value": value}


def _thing_of(region: Region) -> str:
    """The id of what was found, of which the region may be a part."""
    return region.get("parentID", region["id"])


def _things(regions: Sequence[Region]) -> dict[str, tuple[float, int]]:
    """The score and the size of each thing that is a mask or a polygon, by its id."""
    things: dict[str, tuple[float, int]] = {}
    for region in regions:
        if _points_of(region) or region["value"].get("rle"):
            _, size = things.get(_thing_of(region), (0.0, 0))
            things[_thing_of(region)] = (region.get("score", 0.0), size + _size_of_one(region))
    return things


def _least_sure(things: dict[str, tuple[float, int]], too_many_bytes: int) -> Iterator[str]:
    """The things that are left out so that there are so many bytes less, the lowest score first."""
    for id_, (_, size) in sorted(things.items(), key=lambda item: item[1]):
        if too_many_bytes <= 0:
            return
        too_many_bytes -= size
        yield id_
