"""The ML backend's class: Label Studio's tasks in, a YOLO's predictions out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.detection.weights import WeightsError
from yolo_backend.fit_hook import START_TRAINING, placeholder
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.protocol import Task, project_of_event
from yolo_backend.serving.request import default_predictor

try:
    from label_studio_ml.model import LabelStudioMLBase
except ModuleNotFoundError as error:
    if error.name != "label_studio_ml":  # it is there, and something that it needs isn't
        raise
    from yolo_backend.base import LabelStudioMLBase

log = logging.getLogger(__name__)

_READ_FOR_S = 2.0  # Label Studio waits three for its /setup


class YoloBackend(LabelStudioMLBase):  # type: ignore[misc]  # label-studio-ml has no types
    """Predicts rectangles. Made anew for each request, by our server or by that of label-studio-ml 2.x."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None, **kwargs: Any) -> None:
        self.project_id = project_id
        self._no_version: Exception | None = None
        super().__init__(project_id=project_id, label_config=label_config, **kwargs)

    def setup(self) -> None:
        """Tell label-studio-ml 2.x our model_version, for it answers `/setup` from its own store."""
        if self.label_config and hasattr(self, "set"):
            try:
                plan = default_predictor().plan(self.label_config, _READ_FOR_S, project=self.project_id)
            except (WeightsLoadingError, WeightsError, LabelingConfigError) as error:
                log.warning("There is no model_version: %s", error)
                self._no_version = error
            else:
                self.set("model_version", plan.model_version)

    def get(self, key: str) -> Any:
        """What label-studio-ml 2.x has stored. Raises why there is no model_version: its `/setup` is refused then."""
        if key == "model_version" and self._no_version:
            raise self._no_version
        return super().get(key)

    def predict(self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """One prediction for each task, in order; `[]` for one that failed, so that the next click asks again."""
        return default_predictor().predict(
            cast("list[Task]", tasks),  # the template's own signature says `dict`
            self.label_config,
            project=self.project_id,
            context=context,
            is_abandoned=kwargs.get("is_abandoned"),
        )

    def publish(self, path: Path, name: str | None = None, project: str | int | None = None) -> None:
        """Let a finished file of weights serve in the place of `name` (MODEL_NAME), without a restart.

        With a `project`, its id, it serves that project alone. Raises WeightsError where it can't be used, and has
        changed nothing then; StudioError, requests.Timeout where Label Studio doesn't say which project that is.
        """
        default_predictor().publish(path, name, project)

    @placeholder
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None:
        """Train on what people do in the project. Override it: `event` and `data` are a webhook's action and body.

        As it is, it trains the project where TRAINING is on, at Start Training only: what is asked for is trained in a
        process of its own, when no other training runs. Raises TrainingAskError. Where it trains nothing, our server
        doesn't call it, and tells that; that of label-studio-ml 2.x does, for each annotation.
        """
        if event == START_TRAINING and default_predictor().settings.training == "on":
            from yolo_backend.training.trainings import default_trainings  # noqa: PLC0415  most never train

            default_trainings().ask(project_of_event(data))
            return
        level = logging.INFO if event == START_TRAINING else logging.DEBUG
        log.log(level, "%s: nothing is trained, because %s.fit isn't overridden", event, type(self).__name__)
