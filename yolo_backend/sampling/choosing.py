"""Which images of a scored pool are chosen: the most uncertain ones, or random ones."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from yolo_backend.sampling.pool import PoolImage, Unscored
from yolo_backend.sampling.scoring import Scored

Strategy = Literal["uncertainty", "random"]

_CANDIDATES_PER_CHOSEN = 5
_UNSEEN_CANDIDATES = 1000


@dataclass(frozen=True)
class Sample:
    """What was chosen, how uncertain each image of the pool is, and what couldn't be scored."""

    chosen: list[Scored]
    pool: list[float]
    unscored: list[Unscored]


@dataclass(frozen=True)
class Choice:
    """How many to choose, and how. With `is_diverse`, more candidates are chosen first, for `diversify`."""

    count: int
    strategy: Strategy = "uncertainty"
    is_diverse: bool = False
    seed: int = 0

    def of(self, outcomes: Iterable[Scored | Unscored], pool_size: int) -> Sample:
        """Choose from the outcomes of a pool of this size. With `is_diverse`, these are candidates for `diversify`."""
        if self.strategy == "random":
            return sample_of(outcomes, lambda scored: at_random(scored, self.count, self.seed))
        count = candidates_for(self.count, pool_size) if self.is_diverse else self.count
        return sample_of(outcomes, lambda scored: most_uncertain(scored, count))

    def of_unseen(self, images: Iterable[PoolImage]) -> Sample:
        """Choose at random from a pool that nothing predicts yet. With `is_diverse`, candidates for `diversify`."""
        count = max(_CANDIDATES_PER_CHOSEN * self.count, _UNSEEN_CANDIDATES) if self.is_diverse else self.count
        return Sample(at_random(map(Scored.unseen, images), count, self.seed), [], [])


def sample_of(outcomes: Iterable[Scored | Unscored], choose: Callable[[Iterable[Scored]], list[Scored]]) -> Sample:
    """Choose from the outcomes. Only what `choose` keeps stays in memory."""
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
    """How many candidates there are for a diverse choice of `count` images.

    Never more than half of the pool, so that images of which the detector is sure don't come in.
    """
    return max(count, min(_CANDIDATES_PER_CHOSEN * count, pool // 2))


def most_uncertain(scored: Iterable[Scored], count: int) -> list[Scored]:
    """The most uncertain ones, beginning with the most. The order in which they come doesn't matter."""
    return heapq.nsmallest(count, scored, key=lambda item: (-item.uncertainty, *item.image.sort_key))


def at_random(scored: Iterable[Scored], count: int, seed: int) -> list[Scored]:
    """So many at random. Only the seed and the images' own keys decide."""

    def lot(item: Scored) -> tuple[float, int, str]:
        task_id, source = item.image.sort_key
        return random.Random(f"{seed} {task_id} {source}").random(), task_id, source

    return heapq.nsmallest(count, scored, key=lot)
