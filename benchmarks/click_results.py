"""What the benchmark of clicks measures, and what of it has a target."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.speed_results import Ratio
from yolo_backend.cores import usable_cores

FOLDER, HTTP, BUCKET = "from the folder", "over HTTP", "from a bucket"


@dataclass(frozen=True)
class Part:
    """Images that a part of the way was asked for alone; `core_s` are the seconds of one core that it took."""

    images: int
    took_s: float
    core_s: float

    @property
    def images_per_s(self) -> float:
        return self.images / self.took_s

    @property
    def core_ms(self) -> float:
        """Of an image."""
        return self.core_s / self.images * 1e3


@dataclass(frozen=True)
class Click:
    """From the button until all predictions are stored, and how many were when Label Studio answered.

    `studio_core_s` and `backend_core_s` are the seconds of one core that Label Studio and the backend took.
    """

    tasks: int
    took_s: float
    answered_s: float
    stored_when_answered: int
    studio_core_s: float
    backend_core_s: float

    @property
    def images_per_s(self) -> float:
        return self.tasks / self.took_s

    @property
    def studio_core_ms(self) -> float:
        """Of an image, with the database's."""
        return self.studio_core_s / self.tasks * 1e3

    @property
    def backend_core_ms(self) -> float:
        """Of an image."""
        return self.backend_core_s / self.tasks * 1e3


@dataclass(frozen=True)
class Round:
    """A click, and on the same images what bounds it; from the folder, Label Studio serves nothing."""

    click: Click
    predict: Part
    serving: Part | None
    storing: Part
    model_images_per_s: float

    @property
    def of_predict(self) -> float:
        """The part of `/predict`'s speed that is left in a click."""
        return self.click.images_per_s / self.predict.images_per_s

    @property
    def core_ms(self) -> float:
        """What serving, predicting and storing an image take of one core, each measured alone."""
        return (self.serving.core_ms if self.serving else 0.0) + self.predict.core_ms + self.storing.core_ms

    @property
    def cores_allow(self) -> float:
        """The images per second at which these would keep all cores busy."""
        return usable_cores() * 1e3 / self.core_ms

    @property
    def of_cores(self) -> float:
        """The part of it that a click reaches."""
        return self.click.images_per_s / self.cores_allow


@dataclass(frozen=True)
class Row:
    """Clicks of one kind: so many photographs of a size, at the model's input size, got over this way."""

    database: str
    size: str
    tasks: int
    weights: str
    way: str
    rounds: list[Round]
    processes: int = 1  # of Label Studio

    def __str__(self) -> str:
        served = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.size}, {self.tasks:,} tasks at {self.weights}, {self.database}{served}, {self.way}"

    def typical(self, number: Callable[[Round], float]) -> float:
        """The median of a number of the rounds."""
        return statistics.median(map(number, self.rounds))

    @property
    def processes_allow(self) -> float:
        """The images per second at which Label Studio's processes would do nothing but what they did in the click."""
        at_once = min(self.processes, usable_cores())
        return at_once * 1e3 / self.typical(lambda it: it.click.studio_core_ms)


@dataclass
class Results:
    """All that was measured; `left_out` says what wasn't, and why."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def not_stored_once(predictions: Mapping[int, Sequence[Any]], count: int) -> list[str]:
    """What is wrong where not each of so many tasks holds one prediction; `predictions` are those of each task."""
    times = Counter(len(held) for held in predictions.values())
    if times == {1: count}:
        return []
    holders = ", ".join(f"{tasks} of {count} hold {number}" for number, tasks in sorted(times.items()))
    return [f"each task should hold one prediction: {holders or f'none of {count} is there'}"]


_OF_PREDICT = {"320": 0.75, "640": 0.85}
_OF_CORES = 0.9


def ratios(results: Results) -> list[Ratio]:
    """The numbers that have a target, of what was measured."""
    found = []
    for row in results.rows:
        if row.way == FOLDER:
            found.append(
                Ratio(f"{row}, of `/predict`", row.typical(lambda it: it.of_predict), _OF_PREDICT[row.weights])
            )
        elif row.way == HTTP:
            found.append(Ratio(f"{row}, of what the cores allow", row.typical(lambda it: it.of_cores), _OF_CORES))
    return found
