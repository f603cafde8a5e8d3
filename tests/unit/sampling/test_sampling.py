"""Scoring a pool and choosing from it, with the real detector and its real boxes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import requests

from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.failure_kinds import FailureKind
from yolo_backend.images.errors import ImageError
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.protocol import Task
from yolo_backend.sampling.choosing import Choice, Sample, at_random, candidates_for, most_uncertain, sample_of
from yolo_backend.sampling.diversity import diversify, k_center_greedy
from yolo_backend.sampling.pool import PoolImage, Unscored
from yolo_backend.sampling.scoring import PoolPredictor, Scored
from yolo_backend.serving.project_predictor import ProjectPredictor
from yolo_backend.serving.task import TaskImage


def scored(name: str, uncertainty: float, task_id: int | None = None) -> Scored:
    source: Any = name if task_id is None else {"id": task_id, "data": {}}
    return Scored(PoolImage(name, source), uncertainty, {"result": []}, {"result": []})


def names(chosen: Iterable[Scored]) -> list[str]:
    return [item.image.name for item in chosen]


def test_the_same_are_chosen_in_whatever_order_they_come() -> None:
    pool = [scored(f"{number}.jpg", number // 4 / 10) for number in range(40)]
    pool += [scored("task", 0.7, task_id) for task_id in range(1, 11)]
    shuffled = random.Random(1).sample(pool, len(pool))
    assert most_uncertain(pool, 20) == most_uncertain(shuffled, 20)
    assert at_random(pool, 20, seed=3) == at_random(shuffled, 20, seed=3)
    assert at_random(pool, 20, seed=3) != at_random(pool, 20, seed=4)


def test_the_most_uncertain_come_first_and_equal_ones_by_name() -> None:
    pool = [scored("c", 0.5), scored("b", 0.9), scored("a", 0.5), scored("d", 0.1)]
    assert names(most_uncertain(pool, 3)) == ["b", "a", "c"]
    assert names(most_uncertain(pool, 9)) == ["b", "a", "c", "d"]
    assert most_uncertain([], 3) == []


def test_at_random_every_image_has_the_same_chance() -> None:
    pool = [scored(f"{number}", number / 10) for number in range(10)]
    drawn = [name for seed in range(400) for name in names(at_random(pool, 2, seed))]
    # 80 of 800 are expected of each; four standard deviations are 32.
    assert all(48 <= drawn.count(item.image.name) <= 112 for item in pool)


@pytest.mark.parametrize(
    ("vectors", "count", "expected"),
    [
        ([], 3, []),
        ([[0, 0]], 3, [0]),
        ([[0, 0], [1, 0], [5, 0], [2, 0]], 3, [0, 2, 3]),
        ([[0, 0], [3, 0], [-3, 0]], 2, [0, 1]),  # as far: the earlier, which is more uncertain
        ([[1, 1], [1, 1], [1, 1]], 3, [0, 1, 2]),  # none is chosen twice
    ],
)
def test_k_center_greedy_takes_the_farthest(vectors: list[list[float]], count: int, expected: list[int]) -> None:
    assert k_center_greedy(np.array(vectors, np.float32).reshape(-1, 2), count) == expected


def pool_predictor(load_images: Callable[[Task], Sequence[TaskImage]]) -> PoolPredictor:
    """Of a project that can show images, and predict none."""
    plan = ProjectPlan((), "yolo26n-3f9a1c2e")
    predictor = ProjectPredictor(plan, "7", lambda *_: iter(()), lambda task, _plan, _project: load_images(task))
    return PoolPredictor(predictor, parse_labeling_config(BCCD_CONFIG).controls[0])


def test_a_diverse_sample_takes_few_of_a_video() -> None:
    frames = [scored(f"frame {number:03}", 0.9) for number in range(50)]
    others = [scored(f"other {number}", 0.5) for number in range(5)]
    gone = scored("gone", 0.7)
    directions = np.random.default_rng(0).normal(size=(6, 8))
    place_of = {item.image.name: directions[0] + number / 1000 for number, item in enumerate(frames)}
    place_of |= {item.image.name: place for item, place in zip(others, directions[1:], strict=True)}

    def images_of(task: Task) -> list[TaskImage]:
        name = task["data"]["image"]
        if name == "gone":
            raise ImageError(FailureKind.NOT_FOUND, "it is gone")
        return [TaskImage(name, np.array(place_of[name]), frozenset(), None)]

    candidates = Sample(most_uncertain([*others, *frames, gone], 56), [0.5], [])
    sample = diversify(candidates, 6, pool_predictor(images_of).load, lambda pixels: pixels.astype(np.float32))
    assert names(sample.chosen) == ["frame 000", *names(others)]
    assert [str(lost) for lost in sample.unscored] == ["gone: it is gone"]


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ImageError(FailureKind.BROKEN, "the image is broken"), FailureKind.BROKEN, "the image is broken"),
        (StudioError("it is away"), FailureKind.LABEL_STUDIO, "it is away"),
        (requests.Timeout("http://studio/?token=1"), FailureKind.LABEL_STUDIO, "Label Studio doesn't answer in time"),
        (PermissionError(13, "Permission denied"), FailureKind.UNREADABLE, "the file can't be read: Permission denied"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_image_that_cannot_be_had_says_why(error: Exception, kind: FailureKind, reason: str) -> None:
    def fail(_: Task) -> list[TaskImage]:
        raise error

    image = PoolImage("a", "https://images.test/a.jpg")
    assert pool_predictor(fail).load(image) == Unscored(image, kind, reason)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(2), ["9", "8"]),
        (Choice(2, is_diverse=True), ["9", "8", "7", "6", "5"]),  # candidates: half of the pool, of ten at most
        (Choice(20), [str(number) for number in reversed(range(10))]),
    ],
)
def test_a_choice_by_uncertainty_keeps_its_candidates(choice: Choice, expected: list[str]) -> None:
    pool = [scored(str(number), number / 10) for number in range(10)]
    assert names(choice.of(pool, len(pool)).chosen) == expected


def test_a_choice_at_random_is_that_of_its_seed() -> None:
    pool = [scored(str(number), number / 10) for number in range(10)]
    for seed in (1, 2):
        assert Choice(4, "random", seed=seed).of(pool, len(pool)).chosen == at_random(pool, 4, seed)


def test_a_choice_of_what_nothing_predicts_yet_is_that_of_its_seed() -> None:
    pool = [PoolImage(name, name) for name in "abcdefghij"]
    for seed in (1, 2):
        chosen = Choice(4, seed=seed).of_unseen(pool).chosen
        assert chosen == at_random(map(Scored.unseen, pool), 4, seed)
    assert names(chosen) != names(Choice(4, seed=1).of_unseen(pool).chosen)


def test_a_sample_knows_the_whole_pool() -> None:
    less, lost, more = (
        scored("a", 0.1),
        Unscored(PoolImage("lost", "lost"), FailureKind.NOT_FOUND, "it is gone"),
        scored("b", 0.3),
    )
    sample = sample_of([less, lost, more], lambda items: most_uncertain(items, 1))
    assert sample == Sample([more], [0.1, 0.3], [lost])


@pytest.mark.parametrize(
    ("count", "pool", "candidates"), [(100, 10_000, 500), (100, 300, 150), (100, 120, 100), (1, 1, 1), (5, 2, 5)]
)
def test_how_many_a_spread_is_chosen_from(count: int, pool: int, candidates: int) -> None:
    assert candidates_for(count, pool) == candidates
