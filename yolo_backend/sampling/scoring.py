"""How uncertain each image of a pool is, by the scores of its boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import requests

from yolo_backend.failure_kinds import FailureKind
from yolo_backend.failures import Failure
from yolo_backend.images.errors import ImageError
from yolo_backend.label_studio.errors import StudioError, explain
from yolo_backend.labels.control import Control
from yolo_backend.labels.plans import UNTRAINED, ProjectPlan
from yolo_backend.labels.regions import count_boxes
from yolo_backend.protocol import Prediction, Region, Task
from yolo_backend.sampling.pool import PoolImage, Unscored
from yolo_backend.sampling.thresholds import (
    as_served,
    lower_thresholds,
    lowest_threshold,
    measured,
    shown,
    thresholds,
)
from yolo_backend.sampling.uncertainty import AGGREGATES, MEASURES, image_uncertainty
from yolo_backend.serving.project_predictor import ProjectPredictor
from yolo_backend.serving.task import TaskImage

_DIGITS = 6  # smaller differences are rounding, which depends on the batch


@dataclass(frozen=True)
class Scored:
    """An image of the pool, how uncertain it is, its prediction down to the floor, and its prediction as served.

    Both are empty and it isn't uncertain if nothing predicts the project yet: then `is_predicted` is False.
    """

    image: PoolImage
    uncertainty: float
    prediction: Prediction
    served: Prediction
    is_predicted: bool = True

    @classmethod
    def unseen(cls, image: PoolImage) -> Scored:
        """An image that no weights have looked at."""
        nothing: Prediction = {"result": [], "score": 0.0, "model_version": UNTRAINED}
        return cls(image, 0.0, nothing, nothing, is_predicted=False)

    @property
    def above_threshold(self) -> int:
        """How many boxes a person sees."""
        return count_boxes(self.served["result"])


@dataclass(frozen=True)
class Scoring:
    """How the boxes of an image become its uncertainty. `empty` is that of an image without boxes above `floor`."""

    measure: str
    aggregate: str
    floor: float
    empty: float

    def uncertainty(self, regions: Sequence[Region], plan: ProjectPlan) -> float:
        """The uncertainty of an image with these regions."""
        labelled = measured(regions, plan)
        threshold_of = thresholds(plan)
        return image_uncertainty(
            [region["score"] for region in labelled],
            [threshold_of(region) for region in labelled],
            measure=MEASURES[self.measure],
            aggregate=AGGREGATES[self.aggregate],
            empty=self.empty,
        )


class _NumberedTask(Task):
    """A task that is known again by its number: most images of a pool have no id yet."""

    number: int


@dataclass(frozen=True)
class PoolPredictor:
    """Predicts images of a pool. Those that are no tasks yet are treated as tasks for `control`."""

    predictor: ProjectPredictor
    control: Control

    def score(self, images: Iterable[PoolImage], scoring: Scoring) -> Iterator[Scored | Unscored]:
        """Score images as they are predicted, in any order. Those that can't be predicted come with the reason."""
        plan = self.predictor.plan
        under_way: dict[int, PoolImage] = {}
        unreadable: list[Unscored] = []

        def tasks() -> Iterator[_NumberedTask]:
            for number, image in enumerate(images):
                try:
                    task = image.to_task(self.control)
                except OSError as error:
                    unreadable.append(Unscored.unreadable(image, error))
                    continue
                under_way[number] = image
                yield {**task, "number": number}

        lowered = replace(self.predictor, plan=lower_thresholds(plan, scoring.floor))
        for task, outcome in lowered.outcomes_of(tasks()):
            image = under_way.pop(cast("_NumberedTask", task)["number"])
            if isinstance(outcome, Failure):
                yield Unscored(image, outcome.kind, outcome.reason)
                continue
            own_plan = image.plan_for(plan)
            uncertainty = round(scoring.uncertainty(outcome["result"], own_plan), _DIGITS)
            yield Scored(image, uncertainty, shown(outcome), as_served(outcome, own_plan))
        yield from unreadable

    def load(self, image: PoolImage) -> Sequence[TaskImage] | Unscored:
        """The pixels of an image, or of all images of its task; or why they can't be had."""
        try:
            return self.predictor.images_of(image.to_task(self.control))
        except (StudioError, requests.Timeout) as error:
            return Unscored(image, FailureKind.LABEL_STUDIO, explain(error))
        except ImageError as error:
            return Unscored(image, error.kind, str(error))
        except OSError as error:
            return Unscored.unreadable(image, error)


def empty_by_default(measure: str, floor: float, plan: ProjectPlan) -> float:
    """The uncertainty of an image without boxes: that of one whose only box is just below the floor."""
    threshold = lowest_threshold(plan)
    return MEASURES[measure](min(floor, threshold), threshold)
