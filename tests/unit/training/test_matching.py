"""Which found boxes are hits, and what is confused with what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.harness.findings import box
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.places import corners_of_box
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.labelled import LabelledBox, Point
from yolo_backend.training.matching import (
    TrueBoxes,
    as_upright,
    count_confusions,
    match,
    match_all,
    overlap_matrix,
    shuffled_places,
)

LABELS = ("cat", "dog")
A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (60, 60, 70, 70)


def drawn(*boxes: tuple[str, Any], size_wh: tuple[int, int] = (100, 100)) -> TrueBoxes:
    return TrueBoxes.of([box(label, place) for label, place in boxes], size_wh, LABELS)


def found(*boxes: tuple[str, float, Any]) -> FoundBoxes:
    places = np.array([place for _, _, place in boxes], np.float64).reshape(-1, 4)
    return FoundBoxes(places, np.array([score for _, score, _ in boxes]), tuple(label for label, _, _ in boxes))


def rotated(*boxes_xywhr: tuple[float, ...]) -> FoundBoxes:
    scores = np.linspace(0.9, 0.1, len(boxes_xywhr), dtype=np.float64)
    return FoundBoxes(np.array(boxes_xywhr, np.float64).reshape(-1, 5), scores, ("cat",) * len(boxes_xywhr))


@pytest.mark.parametrize(
    ("place", "hits"),
    [
        ((0, 0, 10, 10), 10),
        ((0, 0, 10, 9.5), 10),
        ((0, 0, 10, 9.4), 9),
        ((0, 0, 10, 5.1), 1),
        ((0, 0, 10, 4.9), 0),
        ((50, 50, 60, 60), 0),
        ((0, 0, 0, 0), 0),
    ],
)
def test_a_hit_overlaps_by_so_much(place: Any, hits: int) -> None:
    matches = match_all([drawn(("cat", A))], [found(("cat", 0.5, place))], LABELS)
    assert matches["cat"].hits.sum() == hits
    assert (matches["cat"].boxes, matches["dog"].boxes) == (1, 0)


def test_the_better_score_takes_the_box_and_the_second_is_wrong() -> None:
    those = found(("cat", 0.9, (0, 0, 10, 8)), ("cat", 0.5, A))
    assert match_all([drawn(("cat", A))], [those], LABELS)["cat"].hits[:, 0].tolist() == [True, False]


def test_the_second_takes_the_box_where_the_first_overlaps_too_little() -> None:
    hits = match(np.array([[0.6], [0.96]]))
    assert hits[:, [0, 1, 2, 3, 8, 9]].tolist() == [
        [True, True, True, False, False, False],
        [False, False, False, True, True, True],
    ]


def test_a_box_takes_the_next_best_that_is_left() -> None:
    assert match(np.array([[0.9, 0.6], [0.8, 0.7]]), np.array([0.5])).tolist() == [[True], [True]]


def test_another_label_is_no_hit() -> None:
    matches = match_all([drawn(("cat", A), ("dog", B))], [found(("dog", 0.9, A), ("dog", 0.8, B))], LABELS)
    assert matches["dog"].hits[:, 0].tolist() == [False, True]
    assert len(matches["cat"].scores) == 0


def test_boxes_of_all_images_are_ordered_by_score() -> None:
    truths = [drawn(("cat", A)), drawn(), drawn(("cat", B))]
    those = [found(("cat", 0.5, A)), found(("cat", 0.9, A)), found(("cat", 0.7, B), ("cat", 0.5, FAR))]
    matches = match_all(truths, those, LABELS)["cat"]
    assert matches.scores.tolist() == [0.9, 0.7, 0.5, 0.5]
    assert matches.image_numbers.tolist() == [1, 2, 0, 2]
    assert matches.hits[:, 0].tolist() == [False, True, True, False]
    assert matches.boxes_of_image.tolist() == [1, 0, 1]


def test_nothing_found_and_nothing_drawn() -> None:
    assert match_all([], [], LABELS)["cat"].hits.shape == (0, 10)
    matches = match_all([drawn(), drawn(("cat", A))], [found(("cat", 0.3, A)), found()], LABELS)["cat"]
    assert matches.hits.any() is np.False_
    assert matches.boxes == 1


def test_a_label_that_is_left_out_is_no_box() -> None:
    assert TrueBoxes.of([box("cat", A), box("bird", B)], (9, 9), LABELS).labels == ("cat",)


# Rotated boxes


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, math.pi / 2, 2.5])
def test_a_rotated_box_is_held_against_the_drawn_one_as_it_was_drawn(angle: float) -> None:
    around = (50.0, 40.0, 30.0, 10.0, angle)
    truth = TrueBoxes.of([LabelledBox("cat", (0, 0, 100, 100), around)], (100, 100), LABELS)
    alike = (50.0, 40.0, 10.0, 30.0, angle + math.pi / 2)
    shorter = (50.0, 40.0, 24.0, 10.0, angle)
    overlaps = overlap_matrix(rotated(around, alike, shorter, (50.0, 40.0, 30.0, 10.0, angle + math.pi / 2)), truth)
    np.testing.assert_allclose(overlaps[:3, 0], [1, 1, 0.8], atol=1e-9)
    assert overlaps[3, 0] <= 0.2 + 1e-9  # a cross with it; so little may count as nothing


def test_rotated_boxes_that_are_upright_are_as_upright_ones() -> None:
    generator = np.random.default_rng(1)
    places = generator.uniform((0, 0, 60, 60), (50, 50, 110, 110), (40, 4))
    truth = drawn(*[("cat", place) for place in places[:20].tolist()])
    centers, sizes = (places[:, :2] + places[:, 2:]) / 2, places[:, 2:] - places[:, :2]
    turned = rotated(*np.concatenate([centers, sizes, np.zeros((40, 1))], axis=1).tolist())
    upright = FoundBoxes(places, turned.scores, turned.labels)
    expected = overlap_matrix(upright, truth)
    overlaps = overlap_matrix(turned, truth)
    np.testing.assert_allclose(overlaps[expected >= 0.5], expected[expected >= 0.5], atol=1e-9)
    assert not ((overlaps > 0) & (expected < 0.4)).any()
    assert (expected >= 0.5).sum() > 100


def test_corners_go_clockwise_from_the_top_left() -> None:
    assert corners_of_box((5, 10, 4, 2, 0)) == [(3, 9), (7, 9), (7, 11), (3, 11)]
    np.testing.assert_allclose(
        corners_of_box((5, 10, 4, 2, math.pi / 2)), [(6, 8), (6, 12), (4, 12), (4, 8)], atol=1e-9
    )


# Confusions


def test_confusions() -> None:
    truth = drawn(("cat", A), ("cat", B), ("dog", FAR))
    those = found(("dog", 0.9, A), ("cat", 0.8, A), ("dog", 0.7, B), ("cat", 0.6, (40, 40, 50, 50)))
    # Of the two on A the cat is right, though its score is lower; the dog is one where nothing is left.
    assert count_confusions([truth], [those], LABELS).tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert count_confusions([truth, drawn()], [found(), those], LABELS).tolist() == [[0, 0, 2], [0, 0, 1], [2, 2, 0]]


# Shuffled boxes


def test_each_image_gets_the_boxes_of_another_as_large_as_they_were() -> None:
    truths = [drawn(*[("cat", (0, 0, 10 + number, 10))] * number, size_wh=(100, 50)) for number in range(1, 7)]
    wider = [TrueBoxes(each.labels, each.boxes_xyxy, each.boxes_xywhr, (200, 50)) for each in truths[:1]]
    moved = shuffled_places([*wider, *truths[1:]], np.random.default_rng(0))
    counts = [len(each.labels) for each in moved]
    assert sorted(counts) == [1, 2, 3, 4, 5, 6]
    assert all(count != own for count, own in zip(counts, range(1, 7), strict=True))
    assert [each.size_wh for each in moved] == [(200, 50), *[(100, 50)] * 5]
    count = counts[0]
    assert moved[0].boxes_xyxy[0].tolist() == [0, 0, 2 * (10 + count), 10]
    np.testing.assert_allclose(
        moved[0].boxes_xywhr[0], [10 + count, 5, (10 + count) * math.sqrt(2), 10 * math.sqrt(2), 0]
    )


def test_rotated_boxes_become_their_hulls_within_the_image() -> None:
    turned = rotated((50, 50, 20, 10, math.pi / 2), (0, 50, 20, 10, 0))
    nothing = FoundBoxes(np.zeros((0, 5)), np.zeros(0), ())
    upright = found(("dog", 0.5, A))
    hulls = as_upright(Findings(frozenset(LABELS), [turned, nothing, upright]), [(100, 100)] * 3)
    assert not hulls.is_rotated
    np.testing.assert_allclose(hulls.images[0].boxes, [[45, 40, 55, 60], [0, 45, 10, 55]])
    assert hulls.images[0].scores is turned.scores
    assert hulls.images[0].labels == turned.labels
    assert hulls.images[2] is upright


# Masks


def painted(*boxes: tuple[str, float, Any]) -> FoundBoxes:
    """Full boxes as masks, in a picture half as large."""
    those = found(*boxes)
    masks = []
    for left, top, right, bottom in (those.boxes / 2).astype(int).tolist():
        masks.append(Mask.of_bitmap(np.ones((bottom - top, right - left), np.bool_), (left, top)))
    return replace(those, masks=tuple(masks), masks_wh=(50, 50))


def outlined(label: str, *lines: Any, hull: Any = A) -> LabelledBox:
    return replace(box(label, hull), outlines=lines)


def test_masks_are_held_against_outlines_and_not_against_boxes() -> None:
    rest = ((0, 0), (10, 0), (10, 4), (4, 4), (4, 10), (0, 10))
    truth = TrueBoxes.of([outlined("cat", rest), box("cat", B)], (100, 100), LABELS)
    overlaps = overlap_matrix(painted(("cat", 0.9, A), ("cat", 0.8, B)), truth)
    assert overlaps[0, 0] == pytest.approx(0.64), "so much of the box"
    assert overlaps[1, 1] == 1, "without outlines it is all of the box"
    assert overlap_matrix(found(("cat", 0.9, A)), truth)[0, 0] == 1


def test_masks_match_as_boxes_do() -> None:
    truths = [drawn(("cat", A), ("dog", B)), drawn()]
    those = [painted(("dog", 0.9, B), ("cat", 0.8, B), ("cat", 0.7, A)), painted(("cat", 0.5, A))]
    matches = match_all(truths, those, LABELS)
    assert matches["cat"].hits[:, 0].tolist() == [False, True, False]
    assert matches["dog"].hits[:, 0].tolist() == [True]
    assert count_confusions(truths, those, LABELS).tolist() == [[1, 0, 0], [0, 1, 0], [2, 0, 0]]


def test_those_above_a_threshold_keep_their_masks() -> None:
    those = painted(("dog", 0.9, B), ("cat", 0.8, A))
    (mask,) = those.above({"cat": 0.5}).masks or ()
    assert mask is (those.masks or ())[1]


def test_outlines_come_along_to_another_image() -> None:
    truth = TrueBoxes.of([outlined("cat", ((0, 0), (10, 0), (0, 10)))], (100, 100), LABELS)
    for moved in shuffled_places([truth, replace(truth, size_wh=(100, 100))], np.random.default_rng(0)):
        assert moved.outlines[0][0].tolist() == [[0, 0], [10, 0], [0, 10]]
    (moved, _) = shuffled_places([drawn(size_wh=(200, 50)), truth], np.random.default_rng(0))
    assert moved.outlines[0][0].tolist() == [[0, 0], [20, 0], [0, 5]]


# Key points


def posed(*things: tuple[str, Any, Sequence[Point | None]]) -> TrueBoxes:
    boxes = [replace(box(label, place), points=tuple(points)) for label, place, points in things]
    return TrueBoxes.of(boxes, (100, 100), LABELS)


def found_points(*things: tuple[str, float, Any, Sequence[Point]]) -> FoundBoxes:
    plain = found(*(thing[:3] for thing in things))
    return replace(plain, points_xy=np.array([points for *_, points in things], np.float64))


def test_key_points_that_lie_on_each_other_are_alike_wherever_their_boxes_are() -> None:
    truth = posed(("cat", A, [(2, 2), (8, 8)]), ("dog", B, [(22, 2), None]))
    those = found_points(("cat", 0.9, FAR, [(2, 2), (8, 8)]), ("dog", 0.8, B, [(22, 2), (0, 0)]))
    overlaps = overlap_matrix(those, truth)
    assert overlaps.diagonal() == pytest.approx([1, 1], abs=1e-6), "what nobody drew doesn't count"
    assert max(overlaps[0, 1], overlaps[1, 0]) < 0.2
    wanted = np.array([[False, True], [False, False]])
    assert overlap_matrix(those, truth, wanted)[0, 0] == 0


def test_a_box_of_which_no_point_was_drawn_goes_by_its_place() -> None:
    truth = posed(("cat", A, [None, None]))
    those = found_points(("cat", 0.9, (0, 0, 10, 8), [(50, 50), (60, 60)]))
    assert overlap_matrix(those, truth)[0, 0] == pytest.approx(0.8)


def test_a_point_that_the_weights_don_t_know_is_missed() -> None:
    truth = posed(("cat", A, [(2, 2), (8, 8)]))
    those = found_points(("cat", 0.9, A, [(2, 2), (math.nan, math.nan)]))
    assert overlap_matrix(those, truth)[0, 0] == pytest.approx(0.5, abs=1e-6)


def test_things_with_fewer_points_are_as_if_the_others_weren_t_drawn() -> None:
    truth = posed(("cat", A, [(2, 2), (8, 8)]), ("cat", B, ()))
    assert np.isnan(truth.points_xy).all(axis=-1).tolist() == [[False, False], [True, True]]


def test_points_keep_with_what_is_found() -> None:
    those = found_points(("cat", 0.9, A, [(2, 2)]), ("dog", 0.2, B, [(3, 3)]), ("cat", 0.5, FAR, [(4, 4)]))
    kept = those.above({"cat": 0.4, "dog": 0.4}).points_xy
    assert kept is not None
    assert kept.tolist() == [[[2, 2]], [[4, 4]]]


def test_points_are_moved_with_their_boxes() -> None:
    truths = [posed(("cat", (0, 0, 10, 10), [(5, 5), None])), TrueBoxes.of([], (200, 50), LABELS)]
    moved = shuffled_places(truths, np.random.default_rng(0))
    (there,) = (each for each in moved if each.labels)
    assert there.size_wh == (200, 50)
    assert there.points_xy[0, 0].tolist() == [10, 2.5]
    assert np.isnan(there.points_xy[0, 1]).all()
