"""The gate's rules, on what two real detectors found; `benchmarks/gate.py` has the rates at which it errs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.harness.findings import (
    LABELS,
    Recorded,
    box,
    labelled,
    noisy,
    recorded,
    spoiled_labels,
    spoiled_places,
    trained_on_random_places,
    trained_on_shuffled_labels,
    with_labels,
    without,
)
from yolo_backend.training.corrections import check_labels
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.gate import Comparison, Judgement, judge
from yolo_backend.training.labelled import LabelledBox, LabelledImage, Origin
from yolo_backend.training.thresholds import ThresholdRule

pytestmark = pytest.mark.long  # thousands of resamples each

# Each takes a second. A change has three; `make proofs` has twenty.
of_many_seeds = pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.proof) for seed in range(3, 20))]
)


def some(count: int = 40, seed: int = 0) -> Recorded:
    return recorded().some(count, np.random.default_rng(seed))


def verdict_on(
    images: list[LabelledImage], candidate: Findings, current: Findings | None = None, **options: Any
) -> Judgement:
    return judge(images, LABELS, candidate, current, **{"is_first": False, "rule": ThresholdRule(), **options})


def with_origins(images: list[LabelledImage], *origins: Origin) -> list[LabelledImage]:
    """The boxes of each image have the origin whose turn it is."""
    return [
        replace(image, boxes=tuple(replace(each, origin=origins[number % len(origins)]) for each in image.boxes))
        for number, image in enumerate(images)
    ]


def nothing_found(images: int) -> Findings:
    return Findings(frozenset(LABELS), [FoundBoxes(np.zeros((0, 4)), np.zeros(0), ())] * images)


# Better, equal, worse


def test_a_better_model_is_promoted() -> None:
    those = recorded()
    judgement = verdict_on(those.images, those.better, noisy(those.better, 1, dropped=0.3))
    assert judgement.verdict == "promote"
    assert judgement.reason == (
        "It is better than the serving model: mAP50 0.82 against 0.63 on 87 validation images, a difference of +0.20 "
        "(+0.15 to +0.25)"
    )
    assert judgement.remarks == ()
    assert judgement.as_json() == {
        "labels": {
            "RBC": {"boxes": 967, "ap50": 0.7802, "recall": 0.788, "threshold": 0.38},
            "WBC": {"boxes": 87, "ap50": 0.9923, "recall": 1.0, "threshold": 0.43},
            "Platelets": {"boxes": 83, "ap50": 0.6982, "recall": 0.747, "threshold": 0.32},
        },
        "map50": {"current": 0.627, "candidate": 0.8235, "difference": 0.1966, "interval": [0.1486, 0.2479]},
        "map50_95": {"current": 0.3499, "candidate": 0.5225, "difference": 0.1726, "interval": [0.1426, 0.2061]},
    }


def test_the_same_model_is_promoted() -> None:
    those = some()
    judgement = verdict_on(those.images, those.better, those.better)
    assert judgement.verdict == "promote"
    assert judgement.map50.difference == 0.0
    assert judgement.map50.interval == (0.0, 0.0)
    assert judgement.reason.startswith("It is not clearly worse than the serving model: mAP50 ")


def test_a_worse_model_is_refused() -> None:
    those = recorded()
    judgement = verdict_on(those.images, those.worse, those.better)
    assert judgement.verdict == "refuse"
    assert judgement.reason == (
        "It is worse than the serving model in 97 % of 2,000 resamples of 87 validation images: mAP50 0.79 against 0.82"
    )


def test_another_order_of_the_classes_is_refused() -> None:
    those = some()
    turned = with_labels(those.better, dict(zip(LABELS, [*LABELS[1:], LABELS[0]], strict=True)))
    for current in (those.better, None):
        assert verdict_on(those.images, turned, current).verdict == "refuse"


def test_what_is_worse_than_the_best_ever_promoted_is_refused() -> None:
    those = recorded()
    judgement = verdict_on(those.images, those.worse, noisy(those.worse, 1, dropped=0.3), best=those.better)
    assert judgement.verdict == "refuse"
    assert judgement.reason.startswith("It is worse than the best model that was ever promoted in ")
    # Its scores are held against those of the model that serves.
    assert judgement.map50.difference is not None
    assert judgement.map50.difference > 0


def test_a_label_that_is_lost_is_refused_though_the_mean_is_better() -> None:
    those = recorded()
    current = without(without(those.better, "WBC", 0.6, 1), "RBC", 0.6, 1)
    judgement = verdict_on(those.images, without(those.better, "Platelets", 0.3, 2), current)
    assert judgement.map50.difference is not None
    assert judgement.map50.difference > 0.1
    assert judgement.verdict == "refuse"
    assert judgement.reason == (
        "It loses Platelets: its recall falls from 0.75 to 0.51, by more than 0.1 in 99 % of 2,000 resamples"
    )


def test_a_label_with_few_boxes_isnt_judged_by_itself() -> None:
    """Nine platelets of all are left: their recall falls to nothing."""
    those = recorded()
    left = iter([True] * 9)
    images = [
        replace(image, boxes=tuple(each for each in image.boxes if each.label != "Platelets" or next(left, False)))
        for image in those.images
    ]
    current = without(without(those.better, "WBC", 0.6, 1), "RBC", 0.6, 1)
    judgement = verdict_on(images, without(those.better, "Platelets", 1.0, 2), current)
    assert judgement.labels["Platelets"].boxes == 9
    assert judgement.labels["Platelets"].recall == 0.0
    assert "It loses" not in judgement.reason


def test_a_new_label_cant_hide_what_is_lost() -> None:
    """The serving model doesn't know platelets; the candidate does, and has become worse at all that it knew."""
    those = recorded()
    known = frozenset({"RBC", "WBC"})
    current = Findings(known, without(those.better, "Platelets", 1.0, 0).images)
    lost = without(without(those.better, "WBC", 0.09, 1), "RBC", 0.09, 1)
    judgement = verdict_on(those.images, lost, current)
    assert judgement.map50.difference is not None
    assert judgement.map50.difference > 0.1
    assert judgement.verdict == "refuse"
    assert judgement.reason.startswith("It is worse than the serving model over the labels that it knows in ")
    assert verdict_on(those.images, those.better, current).verdict == "promote"


def test_a_model_that_knows_none_of_the_labels_is_no_bar() -> None:
    those = some()
    unknown = Findings(frozenset(), nothing_found(40).images)
    judgement = verdict_on(those.images, those.worse, unknown)
    assert judgement.verdict == "promote"
    assert judgement.map50.current == 0.0


def test_the_verdict_is_that_of_the_seed() -> None:
    those = some()
    assert verdict_on(those.images, those.worse, those.better, seed=4) == verdict_on(
        those.images, those.worse, those.better, seed=4
    )


def tilted(number: int, radians: float) -> LabelledBox:
    """A narrow box, whose hull is nearly a square, each in another place."""
    x, y, width, height = 100 + 22 * number, 120 + 12 * number, 200, 20
    cos, sin = math.cos(radians), math.sin(radians)
    reach_x, reach_y = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    hull = (x - reach_x, y - reach_y, x + reach_x, y + reach_y)
    return LabelledBox("RBC", hull, (x, y, width, height, radians))


def test_weights_for_rotated_boxes_and_others_are_scored_by_the_same_hulls() -> None:
    """The rotated boxes are 12 degrees off, which is little to their hulls, and no hit to the narrow box."""
    angle = math.pi / 4
    images = [replace(labelled(number, []), boxes=(tilted(number, angle),)) for number in range(20)]
    upright = perfect(images)
    off = [np.array([tilted(number, angle + math.radians(12)).box_xywhr]) for number in range(20)]
    rotated = replace(upright, images=[FoundBoxes(boxes, np.array([0.9]), ("RBC",)) for boxes in off])
    for candidate, current in ((rotated, upright), (upright, rotated)):
        judgement = verdict_on(images, candidate, current)
        assert judgement.verdict == "promote"
        assert judgement.map50.difference == pytest.approx(0.0)
        assert judgement.map50.candidate == pytest.approx(0.995)
    # The best that was ever promoted counts, too; and where all are rotated, so are the scores.
    assert verdict_on(images, rotated, rotated, best=upright).map50.candidate == pytest.approx(0.995)
    assert verdict_on(images, rotated, rotated, best=rotated).map50.candidate == 0.0


def test_a_first_model_that_turns_its_boxes_wrongly_is_refused() -> None:
    """Their hulls are the drawn ones' own; the boxes themselves lie across."""
    images = [replace(labelled(number, []), boxes=(tilted(number, math.pi / 4),)) for number in range(20)]

    def turned(radians: float) -> Findings:
        boxes = [np.array([tilted(number, math.pi / 4 + radians).box_xywhr]) for number in range(20)]
        found = [FoundBoxes(each, np.array([0.9]), ("RBC",)) for each in boxes]
        return replace(perfect(images), images=found)

    assert verdict_on(images, turned(0.0), is_first=True).verdict == "promote"
    assert verdict_on(images, turned(math.pi), is_first=True).verdict == "promote"
    across = verdict_on(images, turned(math.pi / 2), is_first=True)
    assert across.verdict == "refuse"
    assert across.reason.startswith("It finds no more than chance does: mAP50 0.00 ")


# Chance


@of_many_seeds
def test_a_first_model_of_shuffled_labels_is_refused(seed: int) -> None:
    those = some(20, seed)
    candidate = trained_on_shuffled_labels(those.better, those.images, seed)
    judgement = verdict_on(spoiled_labels(those.images, seed), candidate, is_first=True, seed=seed)
    assert judgement.verdict == "refuse"
    assert judgement.reason.startswith("It tells labels apart no better than chance does: AP50 of ")


@of_many_seeds
def test_a_first_model_of_random_places_is_refused(seed: int) -> None:
    those = some(20, seed)
    candidate = trained_on_random_places(those.better, those.images, seed)
    judgement = verdict_on(spoiled_places(those.images, seed), candidate, is_first=True, seed=seed)
    assert judgement.verdict == "refuse"
    assert judgement.reason.startswith("It finds no more than chance does: mAP50 ")


def test_of_a_single_label_the_places_are_shuffled() -> None:
    those = some()
    everything = dict.fromkeys(LABELS, "cell")
    images = [
        replace(image, boxes=tuple(replace(each, label="cell") for each in image.boxes)) for image in those.images
    ]
    cells = with_labels(those.better, everything)

    def verdict(candidate: Findings) -> str:
        return judge(images, ["cell"], candidate, None, is_first=True, rule=ThresholdRule()).verdict

    assert verdict(replace(cells, labels=frozenset({"cell"}))) == "promote"
    assert verdict(trained_on_random_places(cells, images, 0)) == "refuse"


def test_a_first_model_that_finds_something_is_promoted() -> None:
    those = some()
    young = noisy(those.worse, 0, dropped=0.6, logits=2)
    judgement = verdict_on(those.images, young, is_first=True)
    assert judgement.verdict == "promote"
    assert judgement.reason == (
        "Nothing else serves these labels, and it finds more than chance does: mAP50 0.35 (0.28 to 0.42) on 40 "
        "validation images"
    )
    assert judgement.map50 == Comparison(candidate=judgement.map50.candidate)
    assert judgement.own_interval is not None
    assert judgement.chance is not None
    assert judgement.chance < judgement.own_interval[0]


def test_a_first_model_that_has_learned_one_label_of_several_is_promoted() -> None:
    those = some()
    only_rbc = without(without(those.better, "WBC", 1, 0), "Platelets", 1, 0)
    assert verdict_on(those.images, only_rbc, is_first=True).verdict == "promote"


def test_nothing_found_is_refused() -> None:
    those = some()
    judgement = verdict_on(those.images, nothing_found(40), is_first=True)
    assert judgement.verdict == "refuse"
    assert judgement.map50.candidate == 0.0
    assert set(judgement.thresholds.values()) == {0.25}


# Too little to judge


def test_with_few_images_the_first_serves_and_later_ones_wait() -> None:
    those = some(9)
    judgement = verdict_on(those.images, those.worse, is_first=True)
    assert judgement.verdict == "promote"
    assert judgement.reason == (
        "It serves as the first model, and was not judged: there are 9 validation images, and 10 are needed"
    )
    assert judgement.map50.candidate is not None
    assert (judgement.chance, judgement.own_interval) == (None, None)
    later = verdict_on(those.images, those.worse, those.better)
    assert later.verdict == "aside"
    assert later.reason == (
        "It is kept aside until somebody promotes it, because it was not judged: there are 9 validation images, and 10 "
        "are needed"
    )
    assert later.map50.difference is not None
    assert later.map50.interval is None
    assert verdict_on(some(10).images, some(10).worse, is_first=True).reason.startswith("Nothing else serves")


@pytest.mark.parametrize("count", [0, 1])
def test_no_images_and_one(count: int) -> None:
    those = some(count)
    judgement = verdict_on(those.images, those.worse, those.worse, is_first=True)
    assert judgement.verdict == "promote"
    assert (
        f"there {'is 1 validation image' if count else 'are 0 validation images'}, and 10 are needed"
        in judgement.reason
    )
    if not count:
        assert judgement.map50 == Comparison()
        assert judgement.as_json()["labels"]["RBC"] == {"boxes": 0, "ap50": None, "recall": None, "threshold": 0.25}


def test_images_of_nothing_alone_arent_judged() -> None:
    images = [labelled(number, []) for number in range(12)]
    judgement = verdict_on(images, nothing_found(12))
    assert judgement.verdict == "aside"
    assert judgement.reason.endswith("none of the 12 validation images has a box")


# Boxes that were accepted as they were predicted


def test_the_share_of_kept_predictions_is_said() -> None:
    those = some()
    images = with_origins(those.images, "prediction", "manual", "prediction-changed", "manual")
    judgement = verdict_on(images, those.better, those.worse)
    assert judgement.judged == tuple(range(40))
    assert judgement.remarks == (
        "27 % of the validation boxes are predictions that were accepted as they were, which flatters the model that "
        "made them",
    )


def test_above_30_percent_only_images_drawn_without_help_are_judged() -> None:
    those = some()
    images = with_origins(those.images, "prediction", "manual", "prediction-changed", "prediction")
    judgement = verdict_on(images, those.better, those.worse)
    assert judgement.judged == tuple(range(1, 40, 4))
    assert judgement.remarks[0].endswith("the model that made them: only the 10 images drawn without help are judged")
    assert judgement.labels["RBC"].boxes == sum(
        each.label == "RBC" for number in judgement.judged for each in images[number].boxes
    )


def test_too_few_drawn_without_help_arent_judged() -> None:
    those = some(36)
    images = with_origins(those.images, "prediction", "manual", "prediction-changed", "prediction")
    judgement = verdict_on(images, those.better, those.worse)
    assert judgement.verdict == "aside"
    assert judgement.judged == tuple(range(36))
    assert judgement.reason.endswith("and only 9 of the 36 validation images were drawn without help: 10 are needed")


def test_a_base_that_may_have_seen_them_is_named() -> None:
    those = some()
    judgement = verdict_on(those.images, those.better, those.worse, may_have_seen="cells.pt")
    assert judgement.remarks == (
        "The base cells.pt may have seen the validation images when it was trained: its scores, and those of what is "
        "trained from it, may be too good",
    )


# The labels


def drawn_in(images: list[LabelledImage]) -> dict[str, tuple[LabelledBox, ...]]:
    return {image.digest: image.boxes for image in images}


def test_labels_that_stayed_are_trusted() -> None:
    those = some(32)
    assert check_labels(those.images, drawn_in(those.images), those.better, LABELS) is None
    nudged = [
        replace(image, boxes=tuple(box(each.label, [at + 0.4 for at in each.box_xyxy]) for each in image.boxes))
        for image in those.images
    ]
    assert check_labels(nudged, drawn_in(those.images), those.worse, LABELS) is None


def test_labels_that_dont_fit_any_more_are_named_with_the_fall() -> None:
    those = some(32)
    then = drawn_in(those.images)
    assert check_labels(spoiled_places(those.images, 0), then, those.better, LABELS) == (
        "the labels of 32 of 32 validation images changed; the serving model fell from 0.80 to 0.03"
    )
    assert check_labels(spoiled_labels(those.images, 0), then, those.better, LABELS) == (
        "the labels of 32 of 32 validation images changed; the serving model fell from 0.80 to 0.20"
    )


@pytest.mark.parametrize("share", [1, 1 / 3])
@pytest.mark.parametrize("spoil", [spoiled_labels, spoiled_places])
@of_many_seeds
def test_spoiled_labels_are_noticed(spoil: Any, share: float, seed: int) -> None:
    those = some(40, seed)
    assert check_labels(spoil(those.images, seed, share), drawn_in(those.images), those.better, LABELS)


@of_many_seeds
def test_a_few_corrections_are_no_fall(seed: int) -> None:
    """In 30 images of 40 one of a dozen red cells is taken away."""

    def corrected(image: LabelledImage) -> LabelledImage:
        first = next((each for each in image.boxes if each.label == "RBC"), None)
        return replace(image, boxes=tuple(each for each in image.boxes if each is not first))

    those = some(40, seed)
    images = [*map(corrected, those.images[:30]), *those.images[30:]]
    assert check_labels(images, drawn_in(those.images), those.better, LABELS) is None


def perfect(images: list[LabelledImage]) -> Findings:
    """A model that finds just what was drawn."""
    found = [
        FoundBoxes(
            np.array([each.box_xyxy for each in image.boxes]).reshape(-1, 4),
            np.full(len(image.boxes), 0.9),
            tuple(each.label for each in image.boxes),
        )
        for image in images
    ]
    return Findings(frozenset(LABELS), found)


def test_a_box_that_was_forgotten_is_no_fall() -> None:
    """Where the serving model is perfect, any correction makes it worse."""
    images = [labelled(number, [("RBC", (10, 10, 60, 60))]) for number in range(12)]
    forgotten = box("RBC", (200, 200, 260, 260))
    corrected = [replace(images[0], boxes=(*images[0].boxes, forgotten)), *images[1:]]
    assert check_labels(corrected, drawn_in(images), perfect(images), LABELS) is None
    moved = [replace(image, boxes=(forgotten,)) for image in images[:4]]
    assert check_labels([*moved, *images[4:]], drawn_in(images), perfect(images), LABELS) is not None


def test_a_single_box_that_gets_another_label_is_no_fall() -> None:
    """The average precision of a label with one box is all or nothing."""
    images = [labelled(number, [("RBC", (10, 10, 60, 60))]) for number in range(12)]
    images[0] = labelled(0, [("WBC", (10, 10, 60, 60))])
    corrected = [labelled(0, [("RBC", (10, 10, 60, 60))]), *images[1:]]
    assert check_labels(corrected, drawn_in(images), perfect(images), LABELS) is None


def test_an_image_of_two_tasks_is_not_compared() -> None:
    """By its digest only the boxes of the last of them are known."""
    images = [labelled(number, [("RBC", (10, 10, 60, 60))]) for number in range(18)]
    again = [replace(labelled(100 + at, [("RBC", (200, 200, 260, 260))]), digest=images[at].digest) for at in range(6)]
    both = [*images, *again]
    found = perfect([*again, *images[6:], *again])
    assert check_labels(both, drawn_in(both), found, LABELS) is None
    moved = [replace(image, boxes=again[0].boxes) for image in images[6:]]
    assert check_labels([*images[:6], *moved, *again], drawn_in(both), found, LABELS) == (
        "the labels of 12 of 12 validation images changed; the serving model fell from 0.99 to 0.00"
    )


def test_where_all_labels_have_few_boxes_all_are_compared() -> None:
    images = [labelled(number, [(LABELS[number % 2], (10, 10, 60, 60))]) for number in range(14)]
    moved = [labelled(number, [(LABELS[number % 2], (200, 10, 260, 60))]) for number in range(14)]
    assert check_labels(moved, drawn_in(images), perfect(images), LABELS) == (
        "the labels of 14 of 14 validation images changed; the serving model fell from 0.99 to 0.00"
    )


def test_a_label_that_is_new_or_gone_is_no_fall() -> None:
    those = some()
    boxes = {image.digest: tuple(each for each in image.boxes if each.label != "RBC") for image in those.images}
    assert check_labels(those.images, boxes, those.better, LABELS) is None
    without_rbc = [replace(image, boxes=boxes[image.digest]) for image in those.images]
    assert check_labels(without_rbc, drawn_in(those.images), those.better, LABELS[1:]) is None
    # A label that is still in the config, but on no box any more, was taken off all of them.
    reason = check_labels(without_rbc, drawn_in(those.images), those.better, LABELS)
    assert reason == "the labels of 37 of 40 validation images changed; the serving model fell from 0.79 to 0.55"


def test_images_that_no_earlier_run_used_dont_count() -> None:
    those = some(30)
    spoiled = spoiled_places(those.images, 0)
    assert check_labels(spoiled, {}, those.better, LABELS) is None
    assert check_labels(spoiled, drawn_in(those.images[:9]), those.better, LABELS) is None
    assert check_labels(spoiled, drawn_in(those.images[:20]), those.better, LABELS) is not None


# What is printed


def test_scores_are_json() -> None:
    those = some()
    judgement = verdict_on(those.images, those.better, rule=ThresholdRule(own={"WBC": 0.6}))
    printed = judgement.as_json()
    assert list(printed) == ["labels", "map50", "map50_95"]
    assert printed["labels"]["WBC"]["threshold"] == 0.6
    assert printed["map50"] == {
        "current": None,
        "candidate": round(judgement.map50.candidate or 0, 4),
        "difference": None,
        "interval": None,
    }
    assert judgement.thresholds == {label: each["threshold"] for label, each in printed["labels"].items()}
