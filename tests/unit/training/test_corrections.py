"""Corrections that a person makes, and labels that somebody spoiled: which of them end a run before its training.

More of `check_labels` is in test_gate.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.harness.findings import LABELS, Recorded, box, labelled, noisy, recorded, spoiled_labels, spoiled_places
from yolo_backend.labels.outlines import filled
from yolo_backend.training.corrections import check_labels
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.labelled import LabelledBox, LabelledImage

pytestmark = pytest.mark.long  # thousands of resamples each

SEEDS = range(20)
RBC, WBC, PLATELETS = LABELS
LEFT, RIGHT = (10, 10, 60, 60), (200, 10, 260, 60)


def some(count: int, seed: int) -> Recorded:
    return recorded().some(count, np.random.default_rng(seed))


def drawn_in(images: Sequence[LabelledImage]) -> dict[str, tuple[LabelledBox, ...]]:
    return {image.digest: image.boxes for image in images}


def pairs_of_cells(count: int = 12) -> list[LabelledImage]:
    """Images with a red cell on the left and a white one on the right."""
    return [labelled(number, [(RBC, LEFT), (WBC, RIGHT)]) for number in range(count)]


def perfect(images: Sequence[LabelledImage], score: float = 0.9) -> Findings:
    """A model that finds just what was drawn."""
    return Findings(
        frozenset(LABELS),
        [
            FoundBoxes(
                np.array([each.box_xyxy for each in image.boxes]).reshape(-1, 4),
                np.full(len(image.boxes), score),
                tuple(each.label for each in image.boxes),
            )
            for image in images
        ],
    )


def relabelled(images: Sequence[LabelledImage], count: int, label: str = PLATELETS) -> list[LabelledImage]:
    """The first box of so many images has another label."""
    return [
        replace(image, boxes=(replace(image.boxes[0], label=label), *image.boxes[1:])) if number < count else image
        for number, image in enumerate(images)
    ]


@pytest.mark.parametrize(
    ("spoil", "share", "count"),
    [
        (spoiled_labels, 1, 10),
        (spoiled_labels, 1 / 3, 20),
        (spoiled_places, 1, 10),
        (spoiled_places, 1 / 3, 10),
    ],
)
def test_spoiled_labels_are_noticed_in_few_images(spoil: Any, share: float, count: int) -> None:
    for seed in SEEDS:
        those = some(count, seed)
        assert check_labels(spoil(those.images, seed, share), drawn_in(those.images), those.better, LABELS)


def test_a_third_of_the_labels_shuffled_is_noticed_by_a_young_model() -> None:
    """Its score is so uncertain that it hardly falls, but it finds boxes rightly that have other labels now."""
    for seed in SEEDS:
        those = some(40, seed)
        young = noisy(those.worse, seed, dropped=0.6, logits=2)
        assert check_labels(spoiled_labels(those.images, seed, 1 / 3), drawn_in(those.images), young, LABELS)


def test_three_boxes_with_another_label_are_more_than_single_corrections() -> None:
    """The model, which never saw these images, had agreed with what was drawn in them."""
    images = pairs_of_cells(14)
    images[13] = labelled(13, [(PLATELETS, LEFT)])
    then = drawn_in(images)
    assert check_labels(relabelled(images, 2), then, perfect(images), LABELS) is None
    assert check_labels(relabelled(images, 3), then, perfect(images), LABELS) is not None


def test_images_of_nothing_and_without_findings_change_nothing() -> None:
    images = [*pairs_of_cells(14), labelled(14, [(PLATELETS, LEFT)]), labelled(15, []), labelled(16, [(RBC, LEFT)])]
    found = perfect([*images[:15], labelled(15, [(RBC, LEFT)]), labelled(16, [])])
    then = drawn_in(images)
    assert check_labels(relabelled(images, 2), then, found, LABELS) is None
    assert check_labels(relabelled(images, 3), then, found, LABELS) is not None


def test_a_few_among_many_boxes_are_single_corrections() -> None:
    """Three of a hundred of a label."""
    images = [
        labelled(number, [(RBC, (10 + 50 * at, 10, 50 + 50 * at, 60)) for at in range(9)]) for number in range(12)
    ]
    images[11] = labelled(11, [(WBC, (10 + 50 * at, 10, 50 + 50 * at, 60)) for at in range(9)])
    then = drawn_in(images)
    assert check_labels(relabelled(images, 3, WBC), then, perfect(images), LABELS) is None
    assert check_labels(relabelled(images, 11, WBC), then, perfect(images), LABELS) is not None


def test_labels_that_the_model_had_found_wrong_may_be_corrected() -> None:
    """People gave boxes a label that the model never agreed with; now they give them the one that it finds."""
    right = pairs_of_cells()
    wrong = relabelled(right, 4, WBC)
    assert check_labels(right, drawn_in(wrong), perfect(right), LABELS) is None


def test_boxes_that_the_model_had_missed_may_be_removed_or_get_another_label() -> None:
    images = pairs_of_cells(30)
    seen = [replace(image, boxes=image.boxes[1:]) if number < 8 else image for number, image in enumerate(images)]
    then = drawn_in(images)
    assert check_labels(relabelled(images, 8, WBC), then, perfect(seen), LABELS) is None
    assert check_labels(seen, then, perfect(seen), LABELS) is None


def test_boxes_may_be_added_where_the_model_saw_nothing() -> None:
    those = some(40, 0)
    added = [
        replace(image, boxes=(*image.boxes, box(PLATELETS, (2, 2, 30, 30)))) if number % 8 == 0 else image
        for number, image in enumerate(those.images)
    ]
    assert check_labels(added, drawn_in(those.images), those.better, LABELS) is None


def test_boxes_may_be_drawn_tighter() -> None:
    those = some(40, 0)

    def tighter(each: LabelledBox) -> LabelledBox:
        left, top, right, bottom = each.box_xyxy
        across, down = 0.05 * (right - left), 0.05 * (bottom - top)
        return box(each.label, (left + across, top + down, right - across, bottom - down))

    images = [replace(image, boxes=tuple(map(tighter, image.boxes))) for image in those.images]
    assert check_labels(images, drawn_in(those.images), those.better, LABELS) is None


def test_boxes_that_get_a_new_label_are_no_fall() -> None:
    """A label is split in two: the new one was on no box then, so nobody can say that it doesn't fit."""
    images = pairs_of_cells(40)
    assert check_labels(relabelled(images, 3, "new"), drawn_in(images), perfect(images), [*LABELS, "new"]) is None


def test_what_is_below_its_threshold_was_not_found() -> None:
    """Guesses that a person would never see agree with anything."""
    images = pairs_of_cells(20)
    shown = perfect(images[6:])
    guessed = perfect(images[:6], score=0.02)
    found = replace(shown, images=[*guessed.images, *shown.images])
    assert check_labels(relabelled(images, 3, WBC), drawn_in(images), found, LABELS) is None
    assert (
        check_labels(
            relabelled(images[::-1], 3, WBC), drawn_in(images), replace(found, images=found.images[::-1]), LABELS
        )
        is not None
    )


# Outlines


def with_outlines(images: Sequence[LabelledImage], *, upside_down: int = 0) -> list[LabelledImage]:
    """Each box as a triangle within it; of so many images the other half of the box."""

    def outlined(each: LabelledBox, *, is_other: bool) -> LabelledBox:
        left, top, right, bottom = each.box_xyxy
        corners = (
            ((left, bottom), (right, top), (right, bottom)) if is_other else ((left, top), (right, top), (left, bottom))
        )
        return replace(each, outlines=(corners,))

    return [
        replace(image, boxes=tuple(outlined(each, is_other=number < upside_down) for each in image.boxes))
        for number, image in enumerate(images)
    ]


def masks_of(images: Sequence[LabelledImage]) -> Findings:
    """A model that finds the masks of just what was drawn."""
    those = perfect(images)
    return replace(
        those,
        images=[
            replace(
                found,
                masks=tuple(filled([np.array(line) for line in each.outlines], image.size_wh) for each in image.boxes),
                masks_wh=image.size_wh,
            )
            for found, image in zip(those.images, images, strict=True)
        ],
    )


def test_other_outlines_in_the_same_boxes_are_a_change() -> None:
    before = with_outlines(pairs_of_cells())
    found = masks_of(before)
    assert check_labels(before, drawn_in(before), found, LABELS) is None
    reason = check_labels(with_outlines(pairs_of_cells(), upside_down=8), drawn_in(before), found, LABELS)
    assert reason == "the labels of 8 of 12 validation images changed; the serving model fell from 0.99 to 0.11"


def test_key_points_that_were_moved_are_changed_labels() -> None:
    """Each image's cell has its two points, and then they are elsewhere: what the model finds fits no longer."""
    images = [
        replace(image, boxes=tuple(replace(each, points=((20.0, 20.0), (50.0, 50.0))) for each in image.boxes[:1]))
        for image in pairs_of_cells()
    ]
    points = np.array([[[20.0, 20.0], [50.0, 50.0]]])
    found = replace(perfect(images), images=[replace(each, points_xy=points) for each in perfect(images).images])

    def said_of(x: float) -> str | None:
        moved = [
            replace(image, boxes=tuple(replace(each, points=((x, 20.0), (x, 50.0))) for each in image.boxes))
            for image in images
        ]
        return check_labels(moved, drawn_in(images), found, LABELS)

    assert check_labels(images, drawn_in(images), found, LABELS) is None
    assert said_of(250) == "the labels of 12 of 12 validation images changed; the serving model fell from 0.99 to 0.00"
    assert said_of(45) is None, "so little is a correction"
