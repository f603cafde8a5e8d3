"""What is known of a control that we serve: its names, its image, its labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.task_values import data_with


@dataclass(frozen=True)
class Label:
    """A `<Label>`: the value that goes into regions, the names a class may match, and its own threshold.

    That of a key point has the point's number in the weights, and may have a threshold for the point's own score.
    """

    value: str
    names: tuple[str, ...]
    predicted_values: tuple[str, ...] = ()
    score_threshold: float | None = None
    model_index: int | None = None
    point_threshold: float | None = None


@dataclass(frozen=True)
class Control:
    """A control on an `<Image>`; a kind that reads more of its tag has a subclass with more fields.

    `tag` is the tag's name in lower case, which says the control's kind. `value` is the image's, such as `$image`:
    where in a task its address is; with `is_list` it holds several. If labels come with each task, `labels_value` says
    where.
    """

    from_name: str
    to_name: str
    value: str
    is_list: bool
    labels: tuple[Label, ...]
    score_threshold: float | None = None
    model_path: str | None = None
    labels_value: str | None = None
    tag: str = field(kw_only=True)

    def threshold(self, default: float) -> float:
        """The threshold of its labels that have none of their own."""
        return default if self.score_threshold is None else self.score_threshold

    def data_of(self, address: str) -> dict[str, Any]:
        """The data of a new task with this image. Raises LabelingConfigError if the config doesn't allow one."""
        data = data_with(self.value, [address] if self.is_list else address)
        if data is None:
            raise LabelingConfigError(
                f'An image can\'t be registered for value="{self.value}": it should be such as "$image"'
            )
        return data
