"""The tags of a labeling config: what a control's tag says that is the same for every kind of control."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from yolo_backend.labels.control import Control, Label
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.task_values import find_value
from yolo_backend.messages import named, shortened

if TYPE_CHECKING:
    from label_studio_sdk.label_interface.control_tags import ControlTag

MAX_INDEX = 999
"""The highest `model_index`: a model has a place for each number up to its highest, for each thing and image."""

_MAX_NAME = 40


@dataclass(frozen=True)
class Tag:
    """A control's tag. `tags` are all control tags of the config; `is_repeated` says that it is inside a Repeater.

    `xml` is the tag in the config's tree, with the tags inside of it.
    """

    element: ControlTag
    tags: Sequence[ControlTag]
    is_repeated: bool
    xml: Any = None

    @property
    def name(self) -> str:
        """The tag's name in lower case, such as `rectanglelabels`."""
        return str(self.element.tag).lower()

    @property
    def shown(self) -> str:
        """How a sentence names it, such as `RectangleLabels "label"`."""
        return f'{self.element.tag} "{shortened(str(self.element.name), _MAX_NAME)}"'

    @property
    def own_attributes(self) -> dict[str, str]:
        """Its attributes by their names in lower case: Label Studio's page ignores their case."""
        return {name.lower(): str(value) for name, value in self.element.attr.items()}

    @property
    def image_tags(self) -> list[Any]:
        """The Image tags that it is on."""
        return _image_tags_of(self.element)

    def beside(self, name: str) -> ControlTag | None:
        """The first control of this tag name on all of its images."""
        if not (image_tags := self.image_tags):
            return None
        others = (other for other in self.tags if other.tag.lower() == name)
        return next(
            (each for each in others if all(image_tag in _image_tags_of(each) for image_tag in image_tags)), None
        )

    def why_not_on_image(self) -> str | None:
        """Why it can't be served as a control of an image, whatever its kind; None if it can."""
        if not self.image_tags:
            return f"{self.shown} is on {self._objects()}: only an Image is looked at"
        if self.is_repeated:
            return (
                f"{self.shown} is inside a Repeater, which takes no predictions: use one Image with valueList and one "
                f"{self.element.tag}"
            )
        return None

    def _objects(self) -> str:
        found = [f'{item.tag} "{item.name}"' for item in self.element.objects or []]
        return (
            "the " + ", the ".join(found) if found else f'"{", ".join(self.element.to_name or [])}", which is not there'
        )


class ControlFields(TypedDict):
    """The fields of a `Control` that are read in the same way for every kind."""

    from_name: str
    to_name: str
    value: str
    is_list: bool
    model_path: str | None
    labels: tuple[Label, ...]
    score_threshold: float | None
    labels_value: str | None
    tag: str


def read_fields(tag: Tag, image_tag: Any, attributes: Mapping[str, str]) -> ControlFields:
    """What the control's attributes say about it on this image. Raises LabelingConfigError."""
    of_image = {name.lower(): value for name, value in image_tag.attr.items()}  # the page ignores their case
    value = of_image.get("valuelist") or of_image.get("value") or ""
    if not re.search(r"\$\S", value):
        raise LabelingConfigError(
            f'Image "{shortened(str(image_tag.name), _MAX_NAME)}" should have a value such as "$image", not '
            f'"{shortened(value, _MAX_NAME)}"'
        )
    labels_value = str(tag.element.attr.get("value") or "")
    model_path = _model_path(attributes)
    labels = tuple(_read_labels(tag.element))
    return {
        "from_name": str(tag.element.name),
        "to_name": str(image_tag.name),
        "value": value,
        "is_list": "valuelist" in of_image,
        "model_path": model_path,
        "labels": labels,
        "score_threshold": _threshold(attributes, tag.shown),
        # If the tag has labels of its own, Label Studio refuses a prediction with others.
        "labels_value": labels_value if labels_value.startswith("$") and not labels else None,
        "tag": tag.name,
    }


def labels_of_task(control: Control, data: Any) -> tuple[Label, ...]:
    """The labels that a task brings for a control which has none of its own, as the page reads them.

    Raises LabelingConfigError if there are none.
    """
    value = control.labels_value or ""
    items = find_value(data, value)
    found = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    attributes = [{str(name): _as_text(text) for name, text in item.items() if text is not None} for item in found]
    labels = [
        read_label(shown, item, position)
        for position, item in enumerate(attributes, 1)
        if (shown := item.get("alias") or item.get("value"))
    ]
    if not labels:
        raise LabelingConfigError(
            f'the task has no labels in its "{value.removeprefix("$")}": it should be a list such as '
            '[{"value": "car"}, {"value": "truck"}]'
        )
    return tuple(labels)


def is_true(attributes: Mapping[str, str], name: str) -> bool:
    """Returns True if the attribute is there and says yes."""
    return str(attributes.get(name, "")).strip().lower() in {"true", "1", "yes"}


def split_names(text: str) -> tuple[str, ...]:
    """The names in an attribute such as `predicted_values="car, truck"`."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def read_threshold(attributes: Mapping[str, str], name: str, where: str) -> float | None:
    """The threshold that this attribute says, if it is there. Raises LabelingConfigError."""
    return read_number(attributes, name, where, least=0, most=1, expected="should be a number from 0 to 1")


def read_number(
    attributes: Mapping[str, str],
    name: str,
    where: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    expected: str = "should be a number",
) -> float | None:
    """The number that this attribute says, if it is there. Raises LabelingConfigError."""
    text = attributes.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        raise LabelingConfigError(f'{name}="{shortened(text, 20)}" of {where} {expected}')
    return number


def _image_tags_of(element: ControlTag) -> list[Any]:
    return [item for item in element.objects or [] if item.tag.lower() == "image"]


def _model_path(attributes: Mapping[str, str]) -> str | None:
    model_path = attributes.get("model_path")
    if model_path is not None and not re.fullmatch(r"[\w][\w .+()\[\],&@=-]*", model_path):
        raise LabelingConfigError(
            f"model_path should be the bare name of a file in MODEL_ROOT, no path and no address: put the file there, "
            f'and write model_path="{_file_name(model_path)}"'
        )
    return model_path


def _file_name(path: str) -> str:
    """The file's name at the end of a path, or of an address, whose query may hold a signature."""
    name = re.split(r"[/\\]", re.split(r"[?#]", path)[0])[-1]
    return "".join(re.findall(r"[\w .+()-]", name))[:60].strip(" .-") or "best.pt"


def _read_labels(element: ControlTag) -> Iterator[Label]:
    for position, (value, label) in enumerate((element.labels_attrs or {}).items(), 1):
        yield read_label(value, label.attr, position)


def read_label(value: str, attributes: Mapping[str, str], position: int) -> Label:
    """A `<Label>` or `<Choice>`, the one at this position in its control. Raises LabelingConfigError."""
    names = dict.fromkeys(name for name in (attributes.get("value"), attributes.get("alias")) if name)
    where = f'Label "{named(shortened(value, _MAX_NAME), position)}"'
    return Label(
        value=value,
        names=tuple(names),
        predicted_values=split_names(attributes.get("predicted_values", "")),
        score_threshold=_threshold(attributes, where),
        model_index=read_index(attributes),
        point_threshold=read_threshold(attributes, "model_point_threshold", where),
    )


def read_index(attributes: Mapping[str, str]) -> int | None:
    """The number of a key point, `MAX_INDEX` at most; None where there is none, or what can't be one."""
    text = attributes.get("model_index", "").strip()
    index = int(text) if re.fullmatch("[0-9]{1,6}", text) else None
    return None if index is None or index > MAX_INDEX else index


def _as_text(value: Any) -> str:
    """The text of a task's label, as an attribute of a `<Label>` has it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _threshold(attributes: Mapping[str, str], where: str) -> float | None:
    # HumanSignal's YOLO example reads both spellings.
    for name in ("model_score_threshold", "score_threshold"):
        if (threshold := read_threshold(attributes, name, where)) is not None:
            return threshold
    return None
