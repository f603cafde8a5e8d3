"""How unsure a detector is of an image: a measure of each box, and what they make together.

Each class has a sigmoid of its own, and NMS leaves one score p of a box: all measures are of the two outcomes "it is
there" and "it isn't", p and 1 - p. They go from 0, sure, to 1. docs/sampling.md has their sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

Measure = Callable[[float, float], float]
Aggregate = Callable[[Sequence[float]], float]


def least_confidence(score: float, threshold: float) -> float:
    """What is left beside the likelier outcome, doubled: 2 (1 - max(p, 1 - p))."""
    return 2 * (1 - max(score, 1 - score))


def margin(score: float, threshold: float) -> float:
    """How near the two outcomes are, squared: (1 - |p - (1 - p)|)^2."""
    return (1 - abs(score - (1 - score))) ** 2


def entropy(score: float, threshold: float) -> float:
    """The entropy of the two outcomes, in bits."""
    return sum(-p * math.log2(p) for p in (score, 1 - score) if p > 0)


def near_threshold(score: float, threshold: float) -> float:
    """1 at the threshold, which decides whether a person sees the box, and from there straight down to 0 at 0 and 1."""
    if score == threshold:
        return 1.0
    return score / threshold if score < threshold else (1 - score) / (1 - threshold)


MEASURES: Mapping[str, Measure] = {
    "least-confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "threshold": near_threshold,
}
AGGREGATES: Mapping[str, Aggregate] = {"max": max, "mean": fmean, "sum": math.fsum}


def image_uncertainty(
    scores: Sequence[float], thresholds: Sequence[float], *, measure: Measure, aggregate: Aggregate, empty: float
) -> float:
    """How uncertain an image is by the scores of its boxes, each with its own threshold; `empty` without boxes."""
    measured = [measure(score, threshold) for score, threshold in zip(scores, thresholds, strict=True)]
    return aggregate(measured) if measured else empty
