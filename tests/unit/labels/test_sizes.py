"""How large a prediction may be: polygons get fewer points, and then the least sure shapes are left out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, cast

import pytest

from yolo_backend.labels.sizes import MAX_PREDICTION_BYTES, bounded
from yolo_backend.protocol import Region


def region(id_: str, score: float, value: dict[str, Any], **more: Any) -> Region:
    common = {"from_name": "l", "to_name": "i", "type": "polygonlabels", "image_rotation": 0}
    size = {"original_width": 1000, "original_height": 1000}
    return cast("Region", {**common, **size, "id": id_, "score": score, "value": value, **more})


def circle(points: int, radius: float = 40) -> dict[str, Any]:
    turns = [2 * math.pi * number / points for number in range(points)]
    return {
        "points": [[round(50 + radius * math.cos(turn), 4), round(50 + radius * math.sin(turn), 4)] for turn in turns],
        "closed": True,
        "polygonlabels": ["a"],
    }


def mask(numbers: int) -> dict[str, Any]:
    return {"format": "rle", "rle": [(7 * number) % 256 for number in range(numbers)], "brushlabels": ["a"]}


def size_of(regions: Sequence[Region]) -> int:
    return len(json.dumps(regions))


def test_what_is_small_enough_stays_as_it_is() -> None:
    regions = [region("a", 0.9, circle(100)), region("b", 0.5, mask(1000))]
    assert bounded(regions) == (regions, None)
    assert bounded([]) == ([], None)


def test_the_size_is_nearly_that_of_what_is_stored() -> None:
    """The bound is where the estimate says, give or take a tenth."""
    for regions in (
        [region(str(number), 0.9, mask(5000)) for number in range(200)],
        [region(str(number), 0.9, circle(200)) for number in range(200)],
    ):
        size = size_of(regions)
        assert bounded(regions, round(size * 1.1))[1] is None
        assert bounded(regions, round(size * 0.9))[1] is not None


def test_polygons_get_fewer_points_first() -> None:
    regions = [region(str(number), 0.9, circle(500, 20 + number)) for number in range(20)]
    kept, remark = bounded(regions, 100_000)
    assert len(kept) == 20
    assert size_of(kept) < 110_000
    assert remark is not None
    assert remark.startswith("the prediction would have 0.2 MB, and Label Studio takes too long for more than 0.1 MB: ")
    assert remark.endswith("its polygons are simplified by up to 1 pixels")
    assert all(len(each["value"]["points"]) >= 3 for each in kept)
    assert regions[0]["value"]["points"] == circle(500, 20)["points"]


@pytest.mark.parametrize("size_wh", [(4000, 100), (100, 4000)])
def test_a_polygon_is_simplified_by_pixels_of_its_own_image(size_wh: tuple[int, int]) -> None:
    """Of a bar along the long side: half a percent of the short side is half a pixel, three percent are three."""
    along = [10 + number / 5 for number in range(401)]
    rough = [(at, 40 + 0.5 * (number % 2)) for number, at in enumerate(along)]
    bar = [*rough, (90.0, 60.0), (50.2, 60.0), (50.0, 63.0), (49.8, 60.0), (10.0, 60.0)]
    points = [list(point if size_wh[0] > size_wh[1] else point[::-1]) for point in bar]
    size = {"original_width": size_wh[0], "original_height": size_wh[1]}
    value = {"points": points, "closed": True, "polygonlabels": ["a"]}
    kept, remark = bounded([region("a", 0.9, value, **size)], 1000)
    assert remark is not None
    assert remark.endswith("its polygons are simplified by up to 1 pixels")
    corners = [points[0], points[400], *points[401:]]
    assert sorted(kept[0]["value"]["points"]) == sorted(corners)


def test_then_the_least_sure_shapes_are_left_out_with_all_their_parts() -> None:
    regions = [region(str(number), 0.1 * number, mask(2000)) for number in range(1, 10)]
    regions += [region("part", 0.1, mask(10), parentID="1")]
    box = region("box", 0.01, {"x": 1, "y": 1, "width": 1, "height": 1, "rectanglelabels": ["a"]})
    kept, remark = bounded([*regions, box], 50_000)
    assert [each["id"] for each in kept] == ["5", "6", "7", "8", "9", "box"]
    assert remark is not None
    assert remark.endswith("4 of 9 shapes, those with the lowest scores, are left out")
    assert size_of(kept) <= 55_000


def test_two_regions_of_one_shape_go_together() -> None:
    regions = [
        region(str(number), 0.1 * number, value)
        for number in range(1, 10)
        for value in (mask(1000), {**mask(1000), "labels": ["a"]})
    ]
    kept, _ = bounded(regions, 50_000)
    ids = [each["id"] for each in kept]
    assert 0 < len(ids) < 18
    assert all(ids.count(id_) == 2 for id_ in ids)


@pytest.mark.parametrize("numbers", [10, 2_000_000])
def test_one_shape_that_is_too_large_is_left_out(numbers: int) -> None:
    kept, remark = bounded([region("a", 0.9, mask(numbers))])
    assert bool(kept) == (numbers * 4 < MAX_PREDICTION_BYTES) == (remark is None)
