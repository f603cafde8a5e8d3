"""The gate's rules for choices: what a classifier says of images, and what is said of it in turn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.harness.chosen_images import WHOLE, image
from yolo_backend.training.corrections import check_labels
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.gate import Judgement, judge
from yolo_backend.training.labelled import LabelledImage, Origin
from yolo_backend.training.report import label_tags, write_report
from yolo_backend.training.things import BOXES, CHOICES, things_of
from yolo_backend.training.thresholds import ThresholdRule

LABELS = ("cat", "dog", "cow")

Generator = np.random.Generator

# A change has three; `make proofs` has twenty.
of_many_seeds = pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.proof) for seed in range(3, 20))]
)


def images_of(count: int, generator: Generator) -> list[LabelledImage]:
    return [image(number, LABELS[generator.integers(len(LABELS))]) for number in range(count)]


def classified(
    images: Sequence[LabelledImage], skill: float, generator: Generator, *, is_single: bool = True
) -> Findings:
    """What a softmax says: with more skill, more of what the image is."""
    found = []
    for each in images:
        wanted = np.array([label in {box.label for box in each.boxes} for label in LABELS], float)
        numbers = np.exp(skill * wanted + generator.normal(size=len(LABELS)))
        scores = numbers / numbers.sum()
        order = np.argsort(-scores)
        found.append(FoundBoxes(np.tile(WHOLE, (len(LABELS), 1)), scores[order], tuple(LABELS[i] for i in order)))
    return Findings(frozenset(LABELS), found, is_single)


def judged(
    images: Sequence[LabelledImage], candidate: Findings, current: Findings | None = None, **more: Any
) -> Judgement:
    return judge(
        images, LABELS, candidate, current, **{"is_first": False, "rule": ThresholdRule(), "things": CHOICES, **more}
    )


def test_a_classifier_that_knows_is_promoted() -> None:
    generator = np.random.default_rng(0)
    images = images_of(30, generator)
    judgement = judged(images, classified(images, 5, generator))
    assert judgement.verdict == "promote"
    assert judgement.map50.candidate is not None
    assert judgement.map50.candidate > 0.9
    assert judgement.map50_95.candidate == pytest.approx(judgement.map50.candidate), "an image overlaps itself by all"
    assert judgement.chance is not None
    assert 0.2 < judgement.chance < 0.7


@of_many_seeds
def test_what_was_learnt_from_shuffled_choices_is_refused(seed: int) -> None:
    """Both sides are shuffled, so what it finds has nothing to do with what it is held against."""
    generator = np.random.default_rng(seed)
    images = images_of(20, generator)
    found = classified(images, 5, generator)
    labels = generator.permutation([each.boxes[0].label for each in images]).tolist()
    shuffled = [image(number, label) for number, label in enumerate(labels)]
    judgement = judged(shuffled, found)
    assert judgement.verdict == "refuse"
    assert "choices of other images" in judgement.reason
    assert "box" not in judgement.reason


def test_a_worse_classifier_is_refused_and_a_better_one_is_not() -> None:
    generator = np.random.default_rng(1)
    images = images_of(40, generator)
    good, bad = classified(images, 6, generator), classified(images, 2, generator)
    assert judged(images, bad, good).verdict == "refuse"
    assert judged(images, good, bad).verdict == "promote"


def test_images_of_several_choices_count_for_each() -> None:
    generator = np.random.default_rng(2)
    images = [image(number, *(("cat", "dog") if number % 2 else ("cow",))) for number in range(20)]
    judgement = judged(images, classified(images, 5, generator, is_single=False))
    assert judgement.verdict == "promote"
    assert [judgement.labels[label].boxes for label in LABELS] == [10, 10, 10]


def ranked_rightly(images: Sequence[LabelledImage], generator: Generator) -> Findings:
    """All that was chosen has a higher score than anything that wasn't."""
    found = []
    for each in images:
        wanted = np.array([label in {box.label for box in each.boxes} for label in LABELS], float)
        scores = 0.5 * wanted + generator.uniform(0, 0.4, len(LABELS))
        order = np.argsort(-scores)
        boxes = np.tile(WHOLE, (len(LABELS), 1))
        found.append(FoundBoxes(boxes, scores[order], tuple(LABELS[number] for number in order)))
    return Findings(frozenset(LABELS), found)


@pytest.mark.parametrize("sets", [(("cat",), ("cat", "dog"), ("cat", "cow")), (("cat", "dog"), ("cow", "dog"))])
def test_who_ranks_all_of_several_choices_rightly_is_promoted(sets: Sequence[Sequence[str]]) -> None:
    images = [image(number, *sets[number % len(sets)]) for number in range(30)]
    judgement = judged(images, ranked_rightly(images, np.random.default_rng(0)))
    assert judgement.map50.candidate is not None
    assert judgement.map50.candidate > 0.99
    assert judgement.verdict == "promote", judgement.reason


@of_many_seeds
def test_what_was_learnt_from_shuffled_sets_of_choices_is_refused(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sets = (("cat",), ("cat", "dog"), ("cat", "cow"))
    images = [image(number, *sets[number % 3]) for number in range(30)]
    order = generator.permutation(30).tolist()
    shuffled = [image(number, *sets[order[number] % 3]) for number in range(30)]
    assert judged(shuffled, ranked_rightly(images, generator)).verdict == "refuse"


@pytest.mark.parametrize(
    ("origins", "told"),
    [
        (["prediction"] + ["manual"] * 5, "16 % of the validation choices are predictions that were accepted"),
        (["prediction", "manual"], "only the 15 images labelled without help are judged"),
        (["prediction"] * 3 + ["manual"], "only 7 of the 30 validation images were labelled without help"),
    ],
)
def test_accepted_choices_are_told_as_such(origins: list[Origin], told: str) -> None:
    generator = np.random.default_rng(3)
    images = [image(number, LABELS[number % 3], origin=origins[number % len(origins)]) for number in range(30)]
    judgement = judged(images, classified(images, 5, generator))
    said = " ".join([judgement.reason, *judgement.remarks])
    assert told in said
    assert "box" not in said
    assert "drawn" not in said


# Thresholds


def sure_of(scores: Sequence[tuple[str, Sequence[float]]], *, is_single: bool) -> tuple[list[LabelledImage], Findings]:
    """Images with a label, and the probability of each of the labels."""
    images = [image(number, label) for number, (label, _) in enumerate(scores)]
    found = []
    for _, numbers in scores:
        order = np.argsort(-np.array(numbers), kind="stable")
        boxes = np.tile(WHOLE, (len(LABELS), 1))
        found.append(FoundBoxes(boxes, np.array(numbers)[order], tuple(LABELS[i] for i in order)))
    return images, Findings(frozenset(LABELS), found, is_single)


UNSURE = [("cat", (0.5, 0.45, 0.05)), ("dog", (0.45, 0.5, 0.05)), ("cow", (0.05, 0.45, 0.5))] * 10


def test_a_single_choice_is_shown_wherever_it_is_the_likeliest() -> None:
    """What is only the second likeliest isn't shown, so it is no reason for a higher threshold."""
    images, found = sure_of(UNSURE, is_single=True)
    judgement = judged(images, found)
    assert set(judgement.thresholds.values()) == {0.05}
    assert [judgement.labels[label].recall for label in LABELS] == [1, 1, 1]


def test_of_a_multiple_choice_all_above_the_threshold_are_shown() -> None:
    images, found = sure_of(UNSURE, is_single=False)
    thresholds = judged(images, found).thresholds
    assert all(0.4 <= thresholds[label] < 0.5 for label in ("cat", "dog"))
    assert thresholds["cow"] < 0.45


def test_where_the_likeliest_is_wrong_when_it_is_unsure_it_is_not_shown() -> None:
    images, found = sure_of([("cat", (0.9, 0.05, 0.05)), ("dog", (0.4, 0.3, 0.3))] * 15, is_single=True)
    thresholds = judged(images, found).thresholds
    assert 0.35 <= thresholds["cat"] < 0.9


def test_what_is_said_of_thresholds_is_of_choices() -> None:
    images, found = sure_of(UNSURE[:12], is_single=True)
    said = " ".join(judged(images, found).remarks)
    assert "Fewer than 10 validation choices are too few" in said


# Labels that changed


def test_choices_that_were_turned_around_are_noticed_and_single_corrections_pass() -> None:
    generator = np.random.default_rng(4)
    images = images_of(30, generator)
    found = classified(images, 6, generator)
    then = {each.digest: each.boxes for each in images}
    assert check_labels(images, then, found, LABELS) is None
    turned = [replace(each, boxes=image(0, other_than(each)).boxes) for each in images]
    told = check_labels(turned, then, found, LABELS)
    assert told is not None
    assert told.startswith("the labels of 30 of 30 validation images changed; the serving model fell from ")
    assert check_labels([*turned[:1], *images[1:]], then, found, LABELS) is None
    some = [turned[number] if number % 3 == 0 else each for number, each in enumerate(images)]
    assert check_labels(some, then, found, LABELS) is not None


def other_than(each: LabelledImage) -> str:
    return LABELS[(LABELS.index(each.boxes[0].label) + 1) % len(LABELS)]


# The report


def test_the_report_speaks_of_choices(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    file = tmp_path / "a.jpg"
    Image.fromarray(generator.integers(0, 255, (48, 64, 3), np.uint8)).save(file)
    images = [replace(each, file=file) for each in images_of(30, generator)]
    found = classified(images, 1.5, generator)
    judgement = judged(images, found)
    write_report(
        tmp_path / "report.html", judgement, images, found, title="Run 1", facts={}, max_megapixels=1, things=CHOICES
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    assert not re.findall(r"\b(?:[Bb]ox|[Bb]oxes|[Dd]rawn)\b", text)
    assert "Chosen as, found as" in text
    assert "Recall is the share of the choices" in text
    assert "&lt;Choice value=&#34;cat&#34; model_score_threshold=" in html
    # Each image is found to be one thing: none is wrong twice.
    mistakes = [int(wrong) for wrong in re.findall(r"(\d+) wrong", text)]
    assert max(mistakes) == 1


def test_the_tags_with_thresholds_are_those_of_the_control() -> None:
    assert label_tags({"a & b": 0.5}, CHOICES) == '<Choice value="a &amp; b" model_score_threshold="0.5"/>'
    assert label_tags({"car": 0.25}) == '<Label value="car" model_score_threshold="0.25"/>'


def test_what_each_kind_learns_from() -> None:
    assert things_of("classify") is CHOICES
    assert all(things_of(kind) is BOXES for kind in ("detect", "obb", None))
