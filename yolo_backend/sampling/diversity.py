"""Chooses among the most uncertain images those whose features are far apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from yolo_backend.cores import usable_cores
from yolo_backend.parallel import in_parallel
from yolo_backend.sampling.choosing import Sample
from yolo_backend.sampling.pool import PoolImage, Unscored
from yolo_backend.sampling.scoring import Scored
from yolo_backend.serving.task import TaskImage

Extract = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Load = Callable[[PoolImage], Sequence[TaskImage] | Unscored]


def diversify(sample: Sample, count: int, load: Load, extract: Extract) -> Sample:
    """The images of a sample that are far apart, by the features that `extract` gets from them.

    The chosen images of the sample are the candidates, the most uncertain first. If one's images can't be had, it isn't
    chosen.
    """
    seen, features, unscored = [], [], list(sample.unscored)
    for candidate, vector in zip(sample.chosen, _features(sample.chosen, load, extract), strict=True):
        if isinstance(vector, Unscored):
            unscored.append(vector)
        else:
            seen.append(candidate)
            features.append(vector)
    chosen = [seen[index] for index in sorted(k_center_greedy(np.array(features), count))]
    return Sample(chosen, sample.pool, unscored)


def k_center_greedy(vectors: NDArray[np.float32], count: int) -> list[int]:
    """Rows of (n, d), each the farthest from those before it, beginning with the first. If equal, the earlier one."""
    distances = np.full(len(vectors), np.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(vectors))):
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(vectors - vectors[chosen[-1]], axis=1))
        distances[chosen] = -1.0  # otherwise it would be chosen again if all that are left equal others
    return chosen


def _features(candidates: Sequence[Scored], load: Load, extract: Extract) -> list[NDArray[np.float32] | Unscored]:
    """The features of each candidate, as the mean over its images; or why its images can't be had."""
    features: dict[int, NDArray[np.float32] | Unscored] = {}
    loaded = in_parallel(lambda index: load(candidates[index].image), range(len(candidates)), usable_cores(), "image")
    for index, images in loaded:
        if isinstance(images, Unscored):
            features[index] = images
        else:
            features[index] = np.stack([extract(image.pixels) for image in images]).mean(axis=0)
    return [features[index] for index in range(len(candidates))]
