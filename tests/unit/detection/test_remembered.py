"""Remembered detections: the very same ones, for the thresholds that they serve, within a bounded memory."""

from __future__ import annotations

import gc
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.detection.masks import Mask
from yolo_backend.detection.remembered import ImageDetections, RememberedDetections

SIZE_WH = (640, 480)
DIGEST, OTHER_DIGEST = b"a" * 32, b"b" * 32


def made_up(count: int, *, rotated: bool = False, seed: int = 0) -> Detections:
    numbers = np.random.default_rng(seed)
    return Detections(
        boxes=numbers.uniform(0, 640, (count, 5 if rotated else 4)).astype(np.float32),
        scores=numbers.uniform(0, 1, count).astype(np.float32),
        class_ids=numbers.integers(0, 100_000, count),
        rotated=rotated,
    )


def assert_same(found: ImageDetections | None, expected: dict[str, Detections]) -> None:
    assert found is not None
    assert found.size_wh == SIZE_WH
    assert list(found.detections) == list(expected)
    for fingerprint, detections in expected.items():
        remembered = found.detections[fingerprint]
        for field in ("boxes", "scores", "class_ids"):
            one, other = getattr(remembered, field), getattr(detections, field)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert remembered.rotated == detections.rotated


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("rotated", [False, True])
def test_what_comes_back_is_what_was_found(count: int, rotated: bool) -> None:
    remembered = RememberedDetections(1e6)
    found = made_up(count, rotated=rotated)
    remembered.keep(DIGEST, "weights", 0.05, found, SIZE_WH)
    assert_same(remembered.find(DIGEST, {"weights": 0.25}), {"weights": found})
    assert remembered.find(OTHER_DIGEST, {"weights": 0.25}) is None
    assert remembered.find(DIGEST, {"others": 0.25}) is None


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("rotated", [False, True])
def test_what_was_found_beside_boxes_comes_back_too(count: int, rotated: bool) -> None:
    numbers = np.random.default_rng(1)
    extras = {
        "points_xy": numbers.uniform(0, 640, (count, 17, 2)).astype(np.float32),
        "masks": numbers.uniform(0, 1, (count, 5, 7)) > 0.5,
        "marks": numbers.integers(0, 9, count),
        "größe": numbers.uniform(0, 1, (count, 1))[:, ::-1],
    }
    found = replace(made_up(count, rotated=rotated), extras=extras)
    remembered = RememberedDetections(1e6)
    remembered.keep(DIGEST, "weights", 0.05, found, SIZE_WH)
    again = remembered.find(DIGEST, {"weights": 0.25})
    assert_same(again, {"weights": found})
    assert again is not None
    assert list(again.detections["weights"].extras) == list(extras)
    for name, values in again.detections["weights"].extras.items():
        assert values.dtype == extras[name].dtype
        np.testing.assert_array_equal(values, extras[name])


def test_what_was_found_beside_boxes_counts_as_memory() -> None:
    remembered = RememberedDetections(2000)
    found = made_up(3)
    remembered.keep(DIGEST, "weights", 0.05, found, SIZE_WH)
    with_masks = replace(found, extras={"masks": np.zeros((3, 20, 30), np.bool_)})
    remembered.keep(OTHER_DIGEST, "weights", 0.05, with_masks, SIZE_WH)
    assert remembered.find(OTHER_DIGEST, {"weights": 0.25}) is None
    assert remembered.find(DIGEST, {"weights": 0.25}) is not None


def disc(radius: int, offset_xy: tuple[int, int] = (0, 0)) -> Mask:
    """A round mask, such as a weights' may be."""
    ys, xs = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return Mask.of_bitmap(xs**2 + ys**2 <= radius**2, offset_xy)


def with_masks(found: Detections, *masks: Mask) -> Detections:
    return replace(found, masks=masks)


def assert_same_masks(found: ImageDetections | None, expected: tuple[Mask, ...]) -> None:
    assert found is not None
    masks = found.detections["weights"].masks
    assert masks is not None
    assert len(masks) == len(expected)
    for mask, other in zip(masks, expected, strict=True):
        assert mask.window_xywh == other.window_xywh
        assert mask.runs.dtype == np.uint32
        np.testing.assert_array_equal(mask.runs, other.runs)


@pytest.mark.parametrize(
    "masks",
    [
        (),
        (disc(9),),
        (disc(40, (3, 5)), Mask((7, 8, 0, 0), np.zeros(1, np.uint32)), disc(1, (600, 470))),
        (Mask((0, 0, 400, 300), np.array([70_000, 50_000], np.uint32)), disc(5)),  # runs of more than 16 bits
    ],
)
@pytest.mark.parametrize("extras", [{}, {"points_xy": np.ones((1, 2, 2), np.float32)}])
def test_masks_come_back_run_by_run(masks: tuple[Mask, ...], extras: dict[str, NDArray[np.float32]]) -> None:
    own = {name: np.repeat(values, len(masks), axis=0) for name, values in extras.items()}
    found = replace(made_up(len(masks)), masks=masks, extras=own)
    remembered = RememberedDetections(1e6)
    remembered.keep(DIGEST, "weights", 0.05, found, SIZE_WH)
    again = remembered.find(DIGEST, {"weights": 0.25}, {"weights"})
    assert_same(again, {"weights": found})
    assert_same_masks(again, masks)
    assert again is not None
    for name, values in again.detections["weights"].extras.items():
        np.testing.assert_array_equal(values, own[name])


def test_what_is_remembered_without_masks_serves_no_ask_for_masks() -> None:
    remembered = RememberedDetections(1e6)
    found = made_up(2)
    remembered.keep(DIGEST, "weights", 0.05, found, SIZE_WH)
    assert remembered.find(DIGEST, {"weights": 0.25}, {"weights"}) is None
    assert remembered.find(DIGEST, {"weights": 0.25}, {"others"}) is not None


def test_what_is_remembered_with_masks_serves_who_wants_none() -> None:
    """They get none, as if they had been detected without."""
    remembered = RememberedDetections(1e6)
    found = with_masks(made_up(2), disc(3), disc(4))
    remembered.keep(DIGEST, "weights", 0.2, found, SIZE_WH)
    plain = remembered.find(DIGEST, {"weights": 0.25})
    assert_same(plain, {"weights": found})
    assert plain is not None
    assert plain.detections["weights"].masks is None
    assert remembered.find(DIGEST, {"weights": 0.1}) is None


def test_boxes_of_a_lower_threshold_and_masks_of_a_higher_one_are_remembered_together() -> None:
    """Two projects ask in turns, and neither drives out what the other one needs."""
    remembered = RememberedDetections(1e6)
    boxes, masked = made_up(5), with_masks(made_up(2, seed=1), disc(3), disc(4))
    remembered.keep(DIGEST, "weights", 0.1, boxes, SIZE_WH)
    remembered.keep(DIGEST, "weights", 0.5, masked, SIZE_WH)
    assert_same(remembered.find(DIGEST, {"weights": 0.1}), {"weights": boxes})
    assert_same_masks(remembered.find(DIGEST, {"weights": 0.5}, {"weights"}), (disc(3), disc(4)))
    assert remembered.find(DIGEST, {"weights": 0.4}, {"weights"}) is None


@pytest.mark.long
def test_masks_are_bounded_too_and_take_less_than_their_runs() -> None:
    max_bytes = 3_000_000
    remembered = RememberedDetections(max_bytes)
    found = with_masks(made_up(20), *(disc(50 + 5 * number, (number, 2 * number)) for number in range(20)))
    assert found.masks is not None
    runs_bytes = sum(mask.nbytes for mask in found.masks)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2 * max_bytes // runs_bytes * 4):
            remembered.keep(number.to_bytes(32, "big"), "weights", 0.05, found, SIZE_WH)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max_bytes / 2 < used_bytes < max_bytes * 1.1
    kept = [
        remembered.find(number.to_bytes(32, "big"), {"weights": 0.05}, {"weights"}) is not None
        for number in range(2 * max_bytes // runs_bytes * 4)
    ]
    assert kept[-1]
    assert not kept[0]
    assert sum(kept) > 2 * max_bytes / runs_bytes


@pytest.mark.parametrize(
    ("threshold", "floor"), [(0.25, 0.1), (1.0, 0.1), (0.1, 0.1), (0.09, 0.09), (0.001, 0.001), (0.0, 0.0)]
)
def test_it_serves_thresholds_from_its_floor_on(threshold: float, floor: float) -> None:
    remembered = RememberedDetections(1e6)
    assert remembered.floor(threshold) == floor
    remembered.keep(DIGEST, "weights", floor, made_up(3), SIZE_WH)
    for asked in (threshold, floor, 0.9):
        assert remembered.find(DIGEST, {"weights": asked}) is not None
    assert remembered.find(DIGEST, {"weights": floor - 1e-6}) is None


def test_all_of_the_weights_or_none() -> None:
    remembered = RememberedDetections(1e6)
    one, two = made_up(3, seed=1), made_up(4, seed=2)
    remembered.keep(DIGEST, "one", 0.05, one, SIZE_WH)
    assert remembered.find(DIGEST, {"one": 0.25, "two": 0.25}) is None
    remembered.keep(DIGEST, "two", 0.2, two, SIZE_WH)
    assert_same(remembered.find(DIGEST, {"one": 0.1, "two": 0.25}), {"one": one, "two": two})
    assert remembered.find(DIGEST, {"one": 0.1, "two": 0.1}) is None


def test_those_used_last_are_kept() -> None:
    remembered = RememberedDetections(3 * (450 + 24 + 10 * 24))
    for digest in (b"a", b"b", b"c"):
        remembered.keep(digest, "weights", 0.05, made_up(10), SIZE_WH)
    assert remembered.find(b"a", {"weights": 0.25}) is not None
    remembered.keep(b"d", "weights", 0.05, made_up(10), SIZE_WH)
    kept = [remembered.find(digest, {"weights": 0.25}) is not None for digest in (b"a", b"b", b"c", b"d")]
    assert kept == [True, False, True, True]


def test_what_is_larger_than_the_memory_drives_nothing_out() -> None:
    remembered = RememberedDetections(1000)
    remembered.keep(DIGEST, "weights", 0.05, made_up(1), SIZE_WH)
    remembered.keep(OTHER_DIGEST, "weights", 0.05, made_up(100), SIZE_WH)
    assert remembered.find(OTHER_DIGEST, {"weights": 0.25}) is None
    assert remembered.find(DIGEST, {"weights": 0.25}) is not None


@pytest.mark.long
def test_its_bytes_are_bounded() -> None:
    max_bytes = 2_000_000
    remembered = RememberedDetections(max_bytes)
    few, many = made_up(3), made_up(100)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(8000):
            digest = number.to_bytes(32, "big")
            remembered.keep(digest, "weights", 0.05, few if number % 4 else many, SIZE_WH)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max_bytes / 2 < used_bytes < max_bytes * 1.1


def test_without_memory_nothing_is_kept_and_nothing_more_is_asked_of_the_model() -> None:
    remembered = RememberedDetections(0)
    remembered.keep(DIGEST, "weights", 0.05, made_up(1), SIZE_WH)
    assert remembered.find(DIGEST, {"weights": 0.25}) is None
    assert remembered.floor(0.25) == 0.25


def test_eight_threads_get_what_they_ask_for() -> None:
    remembered = RememberedDetections(50 * 1000)
    expected = [made_up(20, seed=number) for number in range(100)]

    def work(seed: int) -> int:
        order = random.Random(seed)
        hits = 0
        for _ in range(500):
            number = order.randrange(100)
            found = remembered.find(bytes([number]), {"weights": 0.25})
            if found:
                hits += 1
                assert_same(found, {"weights": expected[number]})
            else:
                remembered.keep(bytes([number]), "weights", 0.05, expected[number], SIZE_WH)
        return hits

    with ThreadPoolExecutor(8) as threads:
        assert all(list(threads.map(work, range(8))))
