"""What to label next: of a pool of images, each scored by its boxes, the most uncertain, or a spread of those."""

from __future__ import annotations

import base64
import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import requests
from numpy.typing import NDArray

from yolo_backend.cores import usable_cores
from yolo_backend.failures import Failure
from yolo_backend.images.errors import ImageError
from yolo_backend.images.sources import redact
from yolo_backend.label_studio.filters import task_filter
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.storing import explain
from yolo_backend.label_studio.studio import StudioError
from yolo_backend.labels.control import Control
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import ProjectPlan, ServedControl
from yolo_backend.labels.regions import count_boxes, region_label, task_score
from yolo_backend.labels.task_values import find_value
from yolo_backend.parallel import in_parallel
from yolo_backend.protocol import Prediction, Region, Task
from yolo_backend.registering.finding import Image
from yolo_backend.registering.registration import Item, by_local_files, register
from yolo_backend.sampling.uncertainty import AGGREGATES, MEASURES, image_uncertainty
from yolo_backend.serving.request import Outcome
from yolo_backend.serving.task import TaskImage

# Label Studio counts those that people skipped apart.
UNLABELLED = tuple(task_filter(f"{which}_annotations", "equal", 0, "Number") for which in ("total", "cancelled"))
_CANDIDATES_PER_CHOSEN = 5
_DIGITS = 6  # what differs by less does so by rounding, in whatever batch an image was

Extract = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
ImagesOf = Callable[[Task], Sequence[TaskImage]]
Stream = Callable[[Iterable[Task], ProjectPlan], Iterator[tuple[Task, Outcome]]]


@dataclass(frozen=True)
class PoolImage:
    """An image to choose from: a task of the project, or a file or an address that isn't registered yet."""

    name: str
    source: Image | Task

    @property
    def task_id(self) -> int | None:
        """The number of a task that is there already."""
        return int(self.source["id"]) if isinstance(self.source, Mapping) else None

    def to_task(self, control: Control) -> Task:
        """What to predict; of what isn't registered, a task for this control, with a file's content in it.

        Raises OSError.
        """
        if isinstance(self.source, Mapping):
            return self.source
        value = _inline(self.source) if isinstance(self.source, Path) else self.source
        return {"data": control.data_of(value)}


@dataclass(frozen=True)
class Scored:
    """An image of the pool, how uncertain it is, and its prediction, with boxes down to the floor.

    `above_threshold` counts those that a person gets to see.
    """

    image: PoolImage
    uncertainty: float
    prediction: Prediction
    above_threshold: int


@dataclass(frozen=True)
class Unscored:
    """An image of the pool that can't be chosen, for it couldn't be predicted."""

    image: PoolImage
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image.name}: {self.reason}"


@dataclass(frozen=True)
class Scoring:
    """How the boxes of an image become its uncertainty; `empty` is what an image without any above `floor` counts."""

    measure: str
    aggregate: str
    floor: float
    empty: float

    def uncertainty(self, regions: Sequence[Region], plan: ProjectPlan) -> float:
        """The uncertainty of an image with these regions."""
        labelled = [region for region in regions if region_label(region) is not None]
        threshold_of = _thresholds(plan)
        return image_uncertainty(
            [region["score"] for region in labelled],
            [threshold_of(region) for region in labelled],
            measure=MEASURES[self.measure],
            aggregate=AGGREGATES[self.aggregate],
            empty=self.empty,
        )


@dataclass(frozen=True)
class Sample:
    """What was chosen, how uncertain each image of the pool is, and what couldn't be scored."""

    chosen: list[Scored]
    pool: list[float]
    unscored: list[Unscored]


def unregistered(
    project: Project, images: Iterable[Image], control: Control, document_root: Path | None = None
) -> list[PoolImage]:
    """Of these images, those that the project has no task of; with a document root, files go by Local Files addresses.

    Raises RegisterError, StudioError, requests.Timeout.
    """
    items = [Item(image) for image in images]
    if document_root is not None:
        items = by_local_files(items, document_root)
    parts = register(project, items, control, dry_run=True)
    missing = [item.image for part in parts for item in part.items]
    return [PoolImage(str(image) if isinstance(image, Path) else redact(image), image) for image in missing]


def unlabelled_tasks(project: Project) -> Iterator[PoolImage]:
    """The project's tasks that nobody has labelled or skipped. Raises StudioError, requests.Timeout."""
    values_of = dict.fromkeys(control.value for control in parse_labeling_config(project.label_config).controls)
    for task in project.tasks(UNLABELLED, fields=["data"]):
        values = [find_value(task["data"], value) for value in values_of]
        first = next((value for value in values if value), None)
        yield PoolImage(redact(first[0] if isinstance(first, list) else first), task)


def empty_by_default(measure: str, floor: float, plan: ProjectPlan) -> float:
    """What an image without boxes counts: as much as one whose only box is just too low to be looked at."""
    threshold = min(_lowest_threshold(served) for served in plan.controls)
    return MEASURES[measure](min(floor, threshold), threshold)


def score_pool(
    images: Iterable[PoolImage], plan: ProjectPlan, control: Control, stream: Stream, scoring: Scoring
) -> Iterator[Scored | Unscored]:
    """Score images as `stream` predicts them, in any order; those that can't be predicted come with the reason."""
    under_way: dict[int, PoolImage] = {}
    unreadable: list[Unscored] = []

    def tasks() -> Iterator[Task]:
        for number, image in enumerate(images):
            try:
                task = image.to_task(control)
            except OSError as error:
                unreadable.append(_unreadable(image, error))
                continue
            under_way[number] = image
            yield {**task, "number": number}

    for task, outcome in stream(tasks(), lower_thresholds(plan, scoring.floor)):
        image = under_way.pop(task["number"])
        if isinstance(outcome, Failure):
            yield Unscored(image, outcome.kind, outcome.reason)
            continue
        uncertainty = round(scoring.uncertainty(outcome["result"], _plan_for(image, plan)), _DIGITS)
        yield Scored(image, uncertainty, outcome, count_boxes(as_served(outcome, plan, image)["result"]))
    yield from unreadable


def lower_thresholds(plan: ProjectPlan, floor: float) -> ProjectPlan:
    """The same plan, for boxes down to the floor. Lower boxes change nothing about those above them."""
    return replace(plan, controls=tuple(served.lowered(floor) for served in plan.controls))


def as_served(prediction: Prediction, plan: ProjectPlan, image: PoolImage) -> Prediction:
    """Of a prediction with boxes down to a floor, what the server says of the image: those above its thresholds."""
    threshold_of = _thresholds(_plan_for(image, plan))
    # By the id, for a box may be two regions: its place, and its label.
    served = {
        region["id"]
        for region in prediction["result"]
        if region_label(region) is not None and region["score"] > threshold_of(region)
    }
    regions = [region for region in prediction["result"] if region["id"] in served]
    return {**prediction, "result": regions, "score": task_score(regions)}


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
    return heapq.nsmallest(count, scored, key=lambda item: (-item.uncertainty, *_identity(item)))


def at_random(scored: Iterable[Scored], count: int, seed: int) -> list[Scored]:
    """As many at random, by nothing but the seed and who they are."""

    def lot(item: Scored) -> tuple[float, int, str]:
        task_id, source = _identity(item)
        return random.Random(f"{seed} {task_id} {source}").random(), task_id, source

    return heapq.nsmallest(count, scored, key=lot)


def diversify(
    sample: Sample,
    count: int,
    control: Control,
    images_of: ImagesOf,
    extract: Extract,
) -> Sample:
    """Of a sample, those that lie apart by the features that `extract` sees in their images.

    What was chosen is taken for candidates, the most uncertain first. One whose images can't be had isn't chosen.
    """
    seen, features, unscored = [], [], list(sample.unscored)
    for candidate, vector in zip(sample.chosen, _features(sample.chosen, control, images_of, extract), strict=True):
        if isinstance(vector, Unscored):
            unscored.append(vector)
        else:
            seen.append(candidate)
            features.append(vector)
    chosen = [seen[index] for index in sorted(k_center_greedy(np.array(features), count))]
    return Sample(chosen, sample.pool, unscored)


def load_images(image: PoolImage, control: Control, images_of: ImagesOf) -> Sequence[TaskImage] | Unscored:
    """The pixels of an image of the pool, or of all of its task; or why they can't be had."""
    try:
        return images_of(image.to_task(control))
    except (StudioError, requests.Timeout) as error:
        return Unscored(image, "label_studio", explain(error))
    except ImageError as error:
        return Unscored(image, error.kind, str(error))
    except OSError as error:
        return _unreadable(image, error)


def k_center_greedy(vectors: NDArray[np.float32], count: int) -> list[int]:
    """Rows of (n, d), each the farthest from those before it, beginning with the first; of equal ones, the earlier."""
    distances = np.full(len(vectors), np.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(vectors))):
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(vectors - vectors[chosen[-1]], axis=1))
        distances[chosen] = -1.0  # else it is chosen again where all that are left equal others
    return chosen


def _features(
    candidates: Sequence[Scored],
    control: Control,
    images_of: ImagesOf,
    extract: Extract,
) -> list[NDArray[np.float32] | Unscored]:
    """The features of each candidate, the mean over its images; or why these can't be had."""

    def load(index: int) -> Sequence[TaskImage] | Unscored:
        return load_images(candidates[index].image, control, images_of)

    features: dict[int, NDArray[np.float32] | Unscored] = {}
    for index, images in in_parallel(load, range(len(candidates)), usable_cores(), "image"):
        if isinstance(images, Unscored):
            features[index] = images
        else:
            features[index] = np.stack([extract(image.pixels) for image in images]).mean(axis=0)
    return [features[index] for index in range(len(candidates))]


def _identity(item: Scored) -> tuple[int, str]:
    return (item.image.task_id, "") if item.image.task_id is not None else (0, str(item.image.source))


def _plan_for(image: PoolImage, plan: ProjectPlan) -> ProjectPlan:
    """The plan with the labels that a task of the pool brings, if they come with the tasks."""
    return plan.for_task(image.source.get("data"))[0] if isinstance(image.source, Mapping) else plan


def _thresholds(plan: ProjectPlan) -> Callable[[Region], float]:
    """The threshold of a region's label: by the plan, and the control's where labels come with the tasks."""
    of_control = {served.control.from_name: _lowest_threshold(served) for served in plan.controls}
    of_label = {
        (served.control.from_name, label): served.label_map.threshold_of_class[number]
        for served in plan.controls
        for number, label in served.label_map.label_of_class.items()
    }

    def threshold_of(region: Region) -> float:
        name = region["from_name"]
        return of_label.get((name, region_label(region) or ""), of_control[name])

    return threshold_of


def _lowest_threshold(served: ServedControl) -> float:
    thresholds = served.label_map.threshold_of_class.values()
    return min(thresholds) if thresholds else served.own_threshold


def _unreadable(image: PoolImage, error: OSError) -> Unscored:
    return Unscored(image, "unreadable", f"the file can't be read: {error.strerror}")


def _inline(file: Path) -> str:
    return "data:;base64," + base64.b64encode(file.read_bytes()).decode()
