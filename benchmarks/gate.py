"""How often the gate errs: `python -m benchmarks.gate`, written into docs/journal/training.md.

What two real detectors found in BCCD's validation photographs is recorded. Of that are made models that are as good,
better, worse, or trained on spoiled labels, and each is judged on photographs that are drawn anew.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tests.harness.findings import (
    LABELS,
    Recorded,
    noisy,
    recorded,
    spoiled_labels,
    spoiled_places,
    trained_on_random_places,
    trained_on_shuffled_labels,
    without,
)
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import ROOT
from yolo_backend.training.corrections import check_labels
from yolo_backend.training.found import Findings
from yolo_backend.training.gate import Judgement, judge
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.thresholds import ThresholdRule

_REPORT = ROOT / "docs" / "journal" / "training.md"
_COUNTS = (10, 20, 40)

Spoil = Callable[[list[LabelledImage], int], list[LabelledImage]]


@dataclass(frozen=True)
class Case:
    """What is judged: the candidate, what serves, and the best that was ever promoted, if any."""

    candidate: Findings
    current: Findings | None
    best: Findings | None = None


CASES: dict[str, Callable[[Recorded, int], Case]] = {
    "as good as the serving one": lambda some, seed: Case(noisy(some.better, seed), noisy(some.better, seed + 10**6)),
    "as good, and as good as the best one": lambda some, seed: Case(
        noisy(some.better, seed), noisy(some.better, seed + 10**6), noisy(some.better, seed + 2 * 10**6)
    ),
    "better: mAP50 0.82 after 0.79, two real detectors": lambda some, seed: Case(some.better, some.worse),
    "better: 5 % of the boxes lost after 25 %": lambda some, seed: Case(
        noisy(some.better, seed, dropped=0.05), noisy(some.better, seed + 10**6, dropped=0.25)
    ),
    "worse: mAP50 0.79 after 0.82, two real detectors": lambda some, seed: Case(some.worse, some.better),
    "worse: 25 % of the boxes lost after 5 %": lambda some, seed: Case(
        noisy(some.better, seed, dropped=0.25), noisy(some.better, seed + 10**6, dropped=0.05)
    ),
    "worse: half of the platelets lost": lambda some, seed: Case(
        without(some.better, "Platelets", 0.5, seed), some.better
    ),
}


def two_renamed(images: list[LabelledImage], seed: int) -> list[LabelledImage]:
    """A person gives two boxes another label."""
    chosen = np.random.default_rng(seed).permutation([at for at, image in enumerate(images) if image.boxes])[:2]

    def rename(image: LabelledImage) -> LabelledImage:
        first, *others = image.boxes
        label = LABELS[(LABELS.index(first.label) + 1) % len(LABELS)]
        return replace(image, boxes=(replace(first, label=label), *others))

    return [rename(image) if at in chosen else image for at, image in enumerate(images)]


def some_removed(images: list[LabelledImage], seed: int) -> list[LabelledImage]:
    """A person takes one red cell, of a dozen, out of three images of four."""

    def remove(image: LabelledImage) -> LabelledImage:
        removed = next((box for box in image.boxes if box.label == "RBC"), None)
        return replace(image, boxes=tuple(box for box in image.boxes if box is not removed))

    return [image if at % 4 == seed % 4 else remove(image) for at, image in enumerate(images)]


SPOILED: dict[str, Spoil] = {
    "all labels shuffled": spoiled_labels,
    "a third of the labels shuffled": lambda images, seed: spoiled_labels(images, seed, 1 / 3),
    "all places random": spoiled_places,
    "a third of the places random": lambda images, seed: spoiled_places(images, seed, 1 / 3),
    "right: two boxes get another label": two_renamed,
    "right: one red cell is removed from three images of four": some_removed,
}
FIRST: dict[str, Callable[[Recorded, int], tuple[list[LabelledImage], Findings]]] = {
    "all labels shuffled": lambda some, seed: (
        spoiled_labels(some.images, seed),
        trained_on_shuffled_labels(some.better, some.images, seed),
    ),
    "all places random": lambda some, seed: (
        spoiled_places(some.images, seed),
        trained_on_random_places(some.better, some.images, seed),
    ),
    "right; mAP50 0.82": lambda some, seed: (some.images, some.better),
    "right; a young model, mAP50 0.35": lambda some, seed: (
        some.images,
        noisy(some.worse, seed, dropped=0.6, logits=2),
    ),
    "right; only RBC learned, 85 % of the boxes": lambda some, seed: (
        some.images,
        without(without(some.better, "WBC", 1, 0), "Platelets", 1, 0),
    ),
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure how often the gate errs.")
    parser.add_argument("--trials", type=int, default=100, help="for each number")
    parser.add_argument("--only", choices=_TABLES, help="one of the tables")
    parser.add_argument("--no-report", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    head = ["validation images", *map(str, _COUNTS)]
    for section in [options.only] if options.only else _TABLES:
        began = time.monotonic()
        title, names, measure = _TABLES[section]
        rows = [[name, *_shares(measure(name, options.trials))] for name in names]
        made = made_by("gate", time.monotonic() - began, f"python -m benchmarks.gate --only {section}")
        text = f"{title}\n\n{table(head, rows)}\n\nEach number is of {options.trials} trials. {made}"
        print(text)
        if not options.no_report:
            write_section(section, text, _REPORT)


def refusals(name: str, trials: int) -> Iterator[float]:
    """For each number of validation images, the share of the trials in which such a candidate is refused."""
    for count in _COUNTS:
        reasons: Counter[str] = Counter()
        for seed in range(trials):
            some = _some(count, seed)
            case = CASES[name](some, seed)
            judgement = verdict_on(some.images, case, seed)
            if judgement.verdict == "refuse":
                reasons[" ".join(judgement.reason.split()[:6])] += 1
        print(name, count, dict(reasons), flush=True)
        yield reasons.total() / trials


def rejections(name: str, trials: int) -> Iterator[float]:
    """The share of the trials in which labels that were spoiled so are noticed."""
    for count in _COUNTS:
        noticed = 0
        for seed in range(trials):
            some = _some(count, seed)
            then = {image.digest: image.boxes for image in some.images}
            noticed += check_labels(SPOILED[name](some.images, seed), then, some.better, LABELS) is not None
        print(name, count, noticed, flush=True)
        yield noticed / trials


def first_refusals(name: str, trials: int) -> Iterator[float]:
    """The share of the trials in which such a first model is refused."""
    for count in _COUNTS:
        refused = 0
        for seed in range(trials):
            images, candidate = FIRST[name](_some(count, seed), seed)
            refused += verdict_on(images, Case(candidate, None), seed).verdict == "refuse"
        print("first:", name, count, refused, flush=True)
        yield refused / trials


def verdict_on(images: list[LabelledImage], case: Case, seed: int) -> Judgement:
    """The gate's."""
    return judge(
        images, LABELS, case.candidate, case.current, case.best, is_first=False, rule=ThresholdRule(), seed=seed
    )


_TABLES: dict[str, tuple[str, Iterable[str], Callable[[str, int], Iterator[float]]]] = {
    "gate": ("Refused, of models that are:", CASES, refusals),
    "gate-labels": ("Refused before training, because the labels of validation images changed:", SPOILED, rejections),
    "gate-first": (
        "Refused, of first models that were trained, and are judged, on labels that are:",
        FIRST,
        first_refusals,
    ),
}


def _some(count: int, seed: int) -> Recorded:
    return recorded().some(count, np.random.default_rng(seed))


def _shares(shares: Iterator[float]) -> list[str]:
    return [f"{100 * share:.1f} %" for share in shares]


if __name__ == "__main__":
    main()
