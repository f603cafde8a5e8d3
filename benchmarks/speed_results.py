"""What the speed benchmark measures, and what of it has a target."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.speed_limits import Limits
from benchmarks.speed_photos import LARGE, MEDIUM

# Of the best-known backend on these weights at their own 320 pixels, as seen on another day.
_BEST_KNOWN_IMAGES_PER_S = {MEDIUM: 5.5, LARGE: 3.4}
LARGE_FAST = f"{LARGE}, DECODE=fast"
ALONE, TOGETHER, UNDER_BULK = "alone", "8 at once", "under a bulk request"
INLINE, UPLOADS = "`data:` addresses", "uploads in Label Studio"


@dataclass(frozen=True)
class Throughput:
    """Requests of many tasks, repeated: images per second, and what the model alone did before and after each.

    `limits` are of Ultralytics' export, `own_limits` of the backend's; `loop` are the images per second of the
    hand-written loop, asked in between.
    """

    case: str
    weights: str
    tasks: int
    images_per_s: list[float]
    limits: list[tuple[float, float]]
    own_limits: list[tuple[float, float]]
    loop: list[float]
    boxes_per_image: float
    loop_boxes_per_image: float
    server_cpu_ms: float

    @property
    def typical(self) -> float:
        return statistics.median(self.images_per_s)

    @property
    def of_limit(self) -> float:
        """The part of the model's own speed that is left end to end."""
        return self._part_of(self.limits)

    @property
    def of_own_limit(self) -> float:
        """The same, of the model as the backend exports it."""
        return self._part_of(self.own_limits)

    @property
    def times_loop(self) -> float | None:
        pairs = zip(self.images_per_s, self.loop, strict=False)
        return statistics.median(rate / loop for rate, loop in pairs) if self.loop else None

    def _part_of(self, limits: Sequence[tuple[float, float]]) -> float:
        return statistics.median(
            rate / statistics.mean(around) for rate, around in zip(self.images_per_s, limits, strict=True)
        )


@dataclass(frozen=True)
class Delay:
    """Images per second from a server that is late with each answer, and the means of those without just around it."""

    late_by_s: float
    late: list[float]
    plain: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(late / plain for late, plain in zip(self.late, self.plain, strict=True))


@dataclass(frozen=True)
class Latency:
    """The seconds of one-task requests, and of one image in the model alone, before and after."""

    case: str
    seconds: list[float]
    model_alone_s: list[float]

    def percentile_ms(self, percent: float) -> float:
        """The milliseconds that so many of a hundred stay below."""
        return float(np.percentile(self.seconds, percent)) * 1e3


@dataclass(frozen=True)
class Growth:
    """One large request, with small ones before and after: seconds per image, and megabytes of all processes."""

    tasks: int
    seconds_per_image: float
    around_tasks: int
    around_seconds_per_image: list[float]
    idle_megabytes: float
    peak_megabytes: float

    @property
    def times_small(self) -> float:
        return self.seconds_per_image / statistics.median(self.around_seconds_per_image)


@dataclass(frozen=True)
class Repeat:
    """The seconds of the first time, of the same tasks for other projects, and then with other thresholds."""

    kind: str
    tasks: int
    first_s: float
    again_s: list[float]
    other_threshold_s: list[float]

    @property
    def times_faster(self) -> float:
        return self.first_s / statistics.median(self.again_s)

    @property
    def times_faster_at_other_threshold(self) -> float:
        return self.first_s / statistics.median(self.other_threshold_s)


@dataclass
class Results:
    """All that was measured; `limits` and `engines` go by weights, `file_kilobytes` by photographs."""

    file_kilobytes: dict[str, float] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    throughputs: list[Throughput] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """A measured number that has a target."""

    what: str
    measured: float
    target: float
    unit: str = "x"
    holds: Callable[[float, float], bool] = operator.ge

    @property
    def is_met(self) -> bool:
        return self.holds(self.measured, self.target)

    def row(self) -> list[str]:
        """What, measured, target, and whether it is met."""
        bound = "at least" if self.holds is operator.ge else "at most"
        digits = 1 if self.unit == "ms" or self.target >= 10 else 2
        measured, target = (f"{number:,.{digits}f} {self.unit}" for number in (self.measured, self.target))
        return [self.what, measured, f"{bound} {target}", "met" if self.is_met else "**NOT met**"]


_OF_LIMIT = {("640", MEDIUM): 0.85, ("640", LARGE): 0.45, ("640", LARGE_FAST): 0.6, ("320", MEDIUM): 0.6}
_TIMES_LOOP = 2.0
_TIMES_BEST_KNOWN = {MEDIUM: 5.0, LARGE: 4.0}
_LATE = 0.95
_LONE_EXTRA_MS = 20.0
_TIMES_SMALL = 1.05
_TIMES_FASTER = 50.0


def ratios(results: Results) -> list[Ratio]:
    """The numbers that have a target, of what was measured."""
    found = []
    for each in results.throughputs:
        name = f"{each.case} at {each.weights}"
        if target := _OF_LIMIT.get((each.weights, each.case)):
            found.append(Ratio(f"{name}, of the model alone", each.of_limit, target))
        if each.times_loop is not None:
            found.append(Ratio(f"{name}, against the hand-written loop", each.times_loop, _TIMES_LOOP))
        if each.weights == "320" and (best_known := _BEST_KNOWN_IMAGES_PER_S.get(each.case)):
            found.append(
                Ratio(
                    f"{name}, against {best_known:g} images/s of the best-known backend",
                    each.typical / best_known,
                    _TIMES_BEST_KNOWN[each.case],
                )
            )
    for delay in results.delays:
        found.append(Ratio(f"{delay.late_by_s * 1e3:.0f} ms late, against at once", delay.ratio, _LATE))
    for latency in results.latencies:
        if latency.case == ALONE:
            extra_ms = latency.percentile_ms(50) - statistics.mean(latency.model_alone_s) * 1e3
            found.append(
                Ratio("one task alone, p50 above the model alone", extra_ms, _LONE_EXTRA_MS, "ms", operator.le)
            )
    if results.growths and (largest := results.growths[-1]).tasks > largest.around_tasks:
        what = f"time per image of {largest.tasks:,} tasks, against {largest.around_tasks}"
        found.append(Ratio(what, largest.times_small, _TIMES_SMALL, holds=operator.le))
    for repeat in results.repeats:
        if repeat.kind in {INLINE, UPLOADS}:
            found.append(Ratio(f"{repeat.kind}, asked again", repeat.times_faster, _TIMES_FASTER))
            found.append(
                Ratio(
                    f"{repeat.kind}, asked with another threshold",
                    repeat.times_faster_at_other_threshold,
                    _TIMES_FASTER,
                )
            )
    return found
