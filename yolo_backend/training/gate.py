"""The gate: whether a new model may serve in the place of the present one, by what both found in the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from yolo_backend.messages import shortened
from yolo_backend.training.chance import MOST_AS_GOOD, Chance, map50_by_places
from yolo_backend.training.found import Findings
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.matching import (
    IOUS,
    Matches,
    TrueBoxes,
    as_upright,
    match_all,
)
from yolo_backend.training.scores import (
    RESAMPLES,
    Interval,
    Resampled,
    Scores,
    Weights,
    recall,
    resample,
    score,
)
from yolo_backend.training.things import BOXES, Things
from yolo_backend.training.thresholds import MIN_BOXES, ThresholdRule

MIN_IMAGES = 10
"""With fewer validation images nothing is judged."""
MAX_KEPT_PREDICTIONS = 0.3
"""If more of the validation boxes are predictions that were kept, only images drawn without help are judged."""
WORSE_SHARE = 0.9
"""A model that is worse in so many of the resamples is refused."""
MAX_RECALL_FALL = 0.1
RECALL_SHARE = 0.95
"""So many resamples have to say that the recall of a label falls by more than that."""

_DIGITS = 4

Verdict = Literal["promote", "refuse", "aside"]


@dataclass(frozen=True)
class LabelScore:
    """How well a label is found in the images that were looked at: AP50, and recall at its threshold.

    Both are None without boxes.
    """

    boxes: int
    ap50: float | None
    recall: float | None
    threshold: float


@dataclass(frozen=True)
class Comparison:
    """A score of both models. `interval` is that of the difference, 95 %; None is what there isn't."""

    current: float | None = None
    candidate: float | None = None
    difference: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class Judgement:
    """The gate's verdict, its reason in a sentence for people, and the scores that it goes by.

    `judged` are the indices of the images that were looked at. `own_interval` is that of the candidate's mAP50, and
    `chance` the mAP50 that shuffled boxes give; both None where nothing was judged. Of key points, a find counts for
    `chance` only if its box is a hit, too.
    """

    verdict: Verdict
    reason: str
    remarks: tuple[str, ...]
    labels: Mapping[str, LabelScore]
    map50: Comparison
    map50_95: Comparison
    judged: tuple[int, ...]
    own_interval: Interval | None = None
    chance: float | None = None

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each label."""
        return {label: each.threshold for label, each in self.labels.items()}

    def as_json(self) -> dict[str, Any]:
        """The scores as the command prints them, and as the run keeps them."""
        return {
            "labels": {
                label: {
                    "boxes": each.boxes,
                    "ap50": _rounded(each.ap50),
                    "recall": _rounded(each.recall),
                    "threshold": each.threshold,
                }
                for label, each in self.labels.items()
            },
            "map50": _comparison_as_json(self.map50),
            "map50_95": _comparison_as_json(self.map50_95),
        }


def judge(
    images: Sequence[LabelledImage],
    labels: Sequence[str],
    candidate: Findings,
    current: Findings | None,
    best: Findings | None = None,
    *,
    is_first: bool,
    rule: ThresholdRule,
    may_have_seen: str | None = None,
    seed: int = 0,
    things: Things = BOXES,
) -> Judgement:
    """Judge a candidate on the validation images, in all of which `candidate`, `current` and `best` were searched.

    If only some of them find rotated boxes, all are scored by upright hulls.
    `current` is what serves, None if nothing does; `best` is the best that was ever promoted, if it isn't that one.
    `is_first` says that nothing was promoted yet. `may_have_seen` names a base whose training nobody here knows.
    `things` are what people drew or chose.
    """
    bench = _bench(images, labels, things)
    candidate, current, best = _comparable(images, candidate, current, best)
    weights = resample(len(bench.numbers), seed)
    models = {
        name: _Model(found.at(bench.numbers), bench.truths, labels, weights, ious)
        for name, found, ious in (
            ("candidate", candidate, len(IOUS)),
            ("current", current, len(IOUS)),
            ("best", best, 1),
        )
        if found is not None
    }
    new, serving = models["candidate"], models.get("current")
    thresholds = rule.choose(new.shown)
    remarks = [*bench.remarks, *rule.remarks(new.shown, things)]
    if may_have_seen:
        remarks.append(
            f"The base {shortened(may_have_seen)} may have seen the validation images when it was trained: its scores, "
            "and those of what is trained from it, may be too good"
        )
    chance: Chance | None = None
    if bench.why_not_judged:
        verdict, reason = _without_judging(bench.why_not_judged, is_first=is_first)
    else:
        chance = Chance.of(bench.truths, candidate.at(bench.numbers).images, labels, seed)
        why_not = (
            _no_better_than_chance(new, chance, bench)
            or _worse(new, serving, "the serving model", bench)
            or _worse(new, models.get("best"), "the best model that was ever promoted", bench)
            or _forgotten(new, serving, rule)
        )
        verdict = "refuse" if why_not else "promote"
        reason = why_not or _why_promoted(new, serving, bench)
    is_judged = chance is not None
    return Judgement(
        verdict=verdict,
        reason=reason,
        remarks=tuple(remarks),
        labels={label: _label_score(new, label, thresholds[label]) for label in labels},
        map50=_compare(new.map50, None if serving is None else serving.map50, is_judged=is_judged),
        map50_95=_compare(
            new.scores.map50_95(), None if serving is None else serving.scores.map50_95(), is_judged=is_judged
        ),
        judged=tuple(bench.numbers),
        own_interval=new.map50.interval if is_judged else None,
        chance=chance.places if chance else None,
    )


def _comparable(
    images: Sequence[LabelledImage], candidate: Findings, current: Findings | None, best: Findings | None
) -> tuple[Findings, Findings | None, Findings | None]:
    """All by their upright hulls if only some find rotated boxes: those would be held against a narrower rectangle."""
    if len({each.is_rotated for each in (candidate, current, best) if each is not None}) == 1:
        return candidate, current, best
    sizes_wh = [image.size_wh for image in images]
    return (
        as_upright(candidate, sizes_wh),
        current and as_upright(current, sizes_wh),
        best and as_upright(best, sizes_wh),
    )


@dataclass(frozen=True)
class _Bench:
    """The images that are judged, by their numbers, or that scores are shown of, and then why they aren't judged."""

    numbers: list[int]
    truths: list[TrueBoxes]
    remarks: list[str]
    why_not_judged: str | None
    things: Things

    def __str__(self) -> str:
        return f"{len(self.numbers)} validation images"


class _Model:
    """What one model found, matched and scored; `shown` are the matches that people would see, but for thresholds."""

    def __init__(
        self, found: Findings, truths: Sequence[TrueBoxes], labels: Sequence[str], weights: Weights, ious: int
    ) -> None:
        self.labels = found.labels
        self.matches: Mapping[str, Matches] = match_all(truths, found.images, labels)
        self.shown = match_all(truths, found.shown, labels) if found.is_single else self.matches
        self.weights = weights
        self.scores: Scores = score(self.matches, weights, ious)
        self.map50 = self.scores.map50()
        has_points = any(each.points_xy is not None for each in found.images)
        self.places = map50_by_places(truths, found.images, labels, weights) if has_points else self.map50

    def judged_labels(self) -> list[str]:
        """The labels with enough boxes to be judged by themselves."""
        return [label for label, matches in self.matches.items() if matches.boxes >= MIN_BOXES]


def _bench(images: Sequence[LabelledImage], labels: Sequence[str], things: Things) -> _Bench:
    def bench(numbers: Sequence[int], remarks: Sequence[str], why_not: str | None) -> _Bench:
        truths = [TrueBoxes.of(images[number].boxes, images[number].size_wh, labels) for number in numbers]
        if why_not is None and not any(truth.labels for truth in truths):
            why_not = f"none of the {len(numbers)} validation images has a {things.one}"
        return _Bench(list(numbers), truths, list(remarks), why_not, things)

    everything = range(len(images))
    if len(images) < MIN_IMAGES:
        counted = "is 1 validation image" if len(images) == 1 else f"are {len(images)} validation images"
        return bench(everything, [], f"there {counted}, and {MIN_IMAGES} are needed")
    boxes = [box for image in images for box in image.boxes if box.label in labels]
    kept = sum(box.origin == "prediction" for box in boxes) / max(len(boxes), 1)
    if not kept:
        return bench(everything, [], None)
    said = (
        f"{_percent(kept)} of the validation {things.several} are predictions that were accepted as they were, which "
        "flatters the model that made them"
    )
    if kept <= MAX_KEPT_PREDICTIONS:
        return bench(everything, [said], None)
    unaided = [number for number in everything if images[number].is_drawn_without_help]
    if len(unaided) < MIN_IMAGES:
        why_not = (
            f"{_percent(kept)} of the validation {things.several} are predictions that were accepted as they were, and "
            f"only {len(unaided)} of the {len(images)} validation images were {things.made} without help: {MIN_IMAGES} "
            "are needed"
        )
        return bench(everything, [], why_not)
    return bench(unaided, [f"{said}: only the {len(unaided)} images {things.made} without help are judged"], None)


def _without_judging(why: str, *, is_first: bool) -> tuple[Verdict, str]:
    if is_first:
        return "promote", f"It serves as the first model, and was not judged: {why}"
    return "aside", f"It is kept aside until somebody promotes it, because it was not judged: {why}"


def _no_better_than_chance(new: _Model, chance: Chance, bench: _Bench) -> str | None:
    low, high = new.places.interval
    if not low > chance.places:
        counted = "" if new.places is new.map50 else ", of finds whose box fits as well as their points"
        return (
            f"It finds no more than chance does: mAP50 {new.places.value:.2f} ({low:.2f} to {high:.2f}) on {bench}, "
            f"and {chance.places:.2f} with the {bench.things.several} of other images{counted}"
        )
    if chance.points and chance.points.as_good > MOST_AS_GOOD:
        return (
            "It tells key points apart no better than chance does: those of "
            f"{chance.points.things:,} things on {bench} fit what it finds as well in {chance.points.as_good:,} of "
            f"{RESAMPLES:,} shuffles, in which the points of each thing change places"
        )
    shuffled = chance.labels
    if shuffled is None:  # then only places can be shuffled
        return None
    own = new.scores.ap50
    if shuffled.as_good <= MOST_AS_GOOD and any(own[label].interval[0] > ap50 for label, ap50 in shuffled.ap50.items()):
        return None
    label = max(shuffled.ap50, key=lambda each: own[each].value - shuffled.ap50[each])
    low, high = own[label].interval
    fit_too = (
        f", which fit what it finds as well in {shuffled.as_good:,} of {RESAMPLES:,} shuffles"
        if shuffled.as_good > MOST_AS_GOOD
        else ""
    )
    return (
        f"It tells labels apart no better than chance does: AP50 of {shortened(label, 30)} {own[label].value:.2f} "
        f"({low:.2f} to {high:.2f}) on {bench}, and {shuffled.ap50[label]:.2f} with {bench.things.shuffled}{fit_too}"
    )


def _worse(new: _Model, other: _Model | None, name: str, bench: _Bench) -> str | None:
    """Over all labels, and over those that the other one knows: a label that is new can't hide what is lost."""
    if other is None:
        return None
    for labels in (None, other.labels):
        mine, theirs = new.scores.map50(labels), other.scores.map50(labels)
        share = (mine - theirs).share_below(0.0)
        if share >= WORSE_SHARE:
            whose = "" if labels is None or other.labels >= new.labels else " over the labels that it knows"
            return (
                f"It is worse than {name}{whose} in {_percent(share)} of {RESAMPLES:,} resamples of {bench}: mAP50 "
                f"{mine.value:.2f} against {theirs.value:.2f}"
            )
    return None


def _forgotten(new: _Model, serving: _Model | None, rule: ThresholdRule) -> str | None:
    """A label whose recall falls. The thresholds of both are chosen in the same way, on the same images: else a model
    would be refused for showing fewer boxes that are more often right.
    """
    if serving is None:
        return None
    thresholds, its_thresholds = rule.choose(new.shown), rule.choose(serving.shown)
    for label in new.judged_labels():
        if label not in serving.labels:
            continue
        mine = recall(new.shown[label], thresholds[label], new.weights)
        theirs = recall(serving.shown[label], its_thresholds[label], new.weights)
        share = (mine - theirs).share_below(-MAX_RECALL_FALL)
        if share >= RECALL_SHARE:
            return (
                f"It loses {shortened(label, 30)}: its recall falls from {theirs.value:.2f} to {mine.value:.2f}, by "
                f"more than {MAX_RECALL_FALL:g} in {_percent(share)} of {RESAMPLES:,} resamples"
            )
    return None


def _why_promoted(new: _Model, serving: _Model | None, bench: _Bench) -> str:
    value = new.map50.value
    if serving is None:
        low, high = new.map50.interval
        return (
            f"Nothing else serves these labels, and it finds more than chance does: mAP50 {value:.2f} ({low:.2f} to "
            f"{high:.2f}) on {bench}"
        )
    difference = new.map50 - serving.map50
    low, high = difference.interval
    how = "better" if low > 0 else "not clearly worse"
    return (
        f"It is {how} than the serving model: mAP50 {value:.2f} against {serving.map50.value:.2f} on {bench}, a "
        f"difference of {difference.value:+.2f} ({low:+.2f} to {high:+.2f})"
    )


def _label_score(new: _Model, label: str, threshold: float) -> LabelScore:
    matches = new.shown[label]
    if not matches.boxes:
        return LabelScore(0, None, None, threshold)
    recalled = recall(matches, threshold, new.weights[:0]).value
    return LabelScore(matches.boxes, new.scores.ap50[label].value, recalled, threshold)


def _compare(candidate: Resampled, current: Resampled | None, *, is_judged: bool) -> Comparison:
    if math.isnan(candidate.value):
        return Comparison()
    if current is None:
        return Comparison(candidate=candidate.value)
    difference = candidate - current
    interval = difference.interval if is_judged else None
    return Comparison(current.value, candidate.value, difference.value, interval)


def _percent(share: float) -> str:
    """Never 100 % of what isn't all of it."""
    return f"{math.floor(100 * share):g} %"


def _comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    interval = comparison.interval
    return {
        "current": _rounded(comparison.current),
        "candidate": _rounded(comparison.candidate),
        "difference": _rounded(comparison.difference),
        "interval": None if interval is None else [_rounded(end) for end in interval],
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DIGITS)
