"""Which images of a scored pool are chosen: the most uncertain, or any."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from yolo_backend.sampling.pool import Unscored
from yolo_backend.sampling.scoring import Scored

Strategy = Literal["uncertainty", "random"]

_CANDIDATES_PER_CHOSEN = 5


@dataclass(frozen=True)
class Sample:
    """What was chosen, how uncertain each image of the pool is, and what couldn't be scored."""

    chosen: list[Scored]
    pool: list[float]
    unscored: list[Unscored]


@dataclass(frozen=True)
class Choice:
    """How many to choose, and by what; with `is_diverse`, more of the most uncertain come first, to be spread over."""

    count: int
    strategy: Strategy = "uncertainty"
    is_diverse: bool = False
    seed: int = 0

    def of(self, outcomes: Iterable[Scored | Unscored], pool_size: int) -> Sample:
        """Choose from what comes of a pool of this size; what is to be spread is left to `diversify`."""
        if self.strategy == "random":
            return sample_of(outcomes, lambda scored: at_random(scored, self.count, self.seed))
        count = candidates_for(self.count, pool_size) if self.is_diverse else self.count
        return sample_of(outcomes, lambda scored: most_uncertain(scored, count))


def sample_of(outcomes: Iterable[Scored | Unscored], choose: Callable[[Iterable[Scored]], list[Scored]]) -> Sample:
    """Choose from what comes, of which no more is kept than `choose` keeps."""
    pool: list[float] = []
    unscored: list[Unscored] = []

    def scored() -> Iterator[Scored]:
        for outcome in outcomes:
            if isinstance(outcome, Unscored):
                unscored.append(outcome)
            else:
                pool.append(outcome.uncertainty)
                yield outcome

    return Sample(choose(scored()), pool, unscored)


def candidates_for(count: int, pool: int) -> int:
    """How many of the most uncertain to spread a choice of `count` over.

    Never more than half of the pool, or it would be spread over images that the detector is sure of, too.
    """
    return max(count, min(_CANDIDATES_PER_CHOSEN * count, pool // 2))


def most_uncertain(scored: Iterable[Scored], count: int) -> list[Scored]:
    """The most uncertain first; the same ones in whatever order they come. Of the others, none is kept."""
    return heapq.nsmallest(count, scored, key=lambda item: (-item.uncertainty, *item.image.sort_key))


def at_random(scored: Iterable[Scored], count: int, seed: int) -> list[Scored]:
    """As many at random, by nothing but the seed and who they are."""

    def lot(item: Scored) -> tuple[float, int, str]:
        task_id, source = item.image.sort_key
        return random.Random(f"{seed} {task_id} {source}").random(), task_id, source

    return heapq.nsmallest(count, scored, key=lot)
