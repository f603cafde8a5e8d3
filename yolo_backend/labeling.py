"""The labeling config: which controls we serve, and which class becomes which label at which threshold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from yolo_backend.errors import UserError
from yolo_backend.messages import first_line

if TYPE_CHECKING:
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.control_tags import ControlTag

_MAX_CONFIG = 1_000_000  # those read last are kept


class LabelingConfigError(UserError, ValueError):
    """A labeling config that we can't serve; the message says what to change."""


@dataclass(frozen=True)
class Label:
    """A `<Label>`: the value that goes into regions, the names a class may match, and its own threshold."""

    value: str
    names: tuple[str, ...]
    predicted_values: tuple[str, ...] = ()
    score_threshold: float | None = None


@dataclass(frozen=True)
class Control:
    """A `<RectangleLabels>` on an `<Image>`. `data_key` is the task's field; with `is_list` it holds several images."""

    from_name: str
    to_name: str
    data_key: str
    is_list: bool
    labels: tuple[Label, ...]
    score_threshold: float | None = None
    model_path: str | None = None
    needs_obb: bool = False


@dataclass(frozen=True)
class LabelMap:
    """Which class becomes which label, and what has no partner.

    `label_of_class` and `threshold_of_class` go by the class's number in the weights.
    """

    label_of_class: Mapping[int, str]
    threshold_of_class: Mapping[int, float]
    labels_without_class: tuple[str, ...]
    classes_without_label: tuple[str, ...]

    @property
    def lowest_threshold(self) -> float:
        """The threshold to give to the model: nothing below it is wanted."""
        return min(self.threshold_of_class.values(), default=1.0)


@lru_cache(maxsize=256)
def parse_labeling_config(label_config: str) -> tuple[Control, ...]:
    """Find the controls that we serve.

    Raises LabelingConfigError where the XML is broken or no `<RectangleLabels>` on an `<Image>` is in it.
    """
    if len(label_config) > _MAX_CONFIG:
        raise LabelingConfigError(f"The labeling config is longer than {_MAX_CONFIG} characters")
    try:
        interface = _label_interface(label_config)
        tags = list(interface.controls or [])
    except Exception as error:  # the SDK raises whatever its parsers raise
        raise LabelingConfigError(f"The labeling config can't be read: {first_line(error)}") from error
    controls = tuple(
        _read_control(tag) for tag in tags if tag.tag.lower() == "rectanglelabels" and not _is_true(tag, "model_skip")
    )
    served = tuple(control for control in controls if control is not None)
    if not served:
        raise LabelingConfigError("The labeling config has no RectangleLabels on an Image")
    return served


@lru_cache(maxsize=256)
def first_data_key(label_config: str) -> str | None:
    """The first field of a task's data that the config names: what Label Studio takes for one without a name."""
    try:
        objects = list(_label_interface(label_config).objects or [])
    except Exception:  # the SDK raises whatever its parsers raise; whoever predicts is told of it
        return None
    values = [str(item.value or "") for item in objects]
    return next((value.removeprefix("$") for value in values if value.startswith("$")), None)


def map_labels(control: Control, class_names: Mapping[int, str], default_threshold: float) -> LabelMap:
    """Pair the classes of the weights with the labels of a control.

    `predicted_values` come first, then the labels' names; each first exact, then blind to case, spaces, `_` and `-`,
    but not where the very name is a class: then another class that is like it is another thing. Where two labels claim
    a class, the one that stands first has it.
    """
    classes = set(class_names.values())

    def alike(names: Iterable[str]) -> list[str]:
        return [folded for name in names if name not in classes and (folded := _fold(name))]

    claims = [
        _claims(control.labels, lambda label: label.predicted_values),
        _claims(control.labels, lambda label: alike(label.predicted_values)),
        _claims(control.labels, lambda label: label.names),
        _claims(control.labels, lambda label: [] if classes & set(label.names) else alike(label.names)),
    ]
    label_of_class: dict[int, Label] = {}
    for class_id, class_name in class_names.items():
        names = (class_name, _fold(class_name), class_name, _fold(class_name))
        for claim, name in zip(claims, names, strict=True):
            if name in claim:
                label_of_class[class_id] = claim[name]
                break
    control_threshold = default_threshold if control.score_threshold is None else control.score_threshold
    served = {label.value for label in label_of_class.values()}
    return LabelMap(
        label_of_class={class_id: label.value for class_id, label in sorted(label_of_class.items())},
        threshold_of_class={
            class_id: control_threshold if label.score_threshold is None else label.score_threshold
            for class_id, label in sorted(label_of_class.items())
        },
        labels_without_class=tuple(label.value for label in control.labels if label.value not in served),
        classes_without_label=tuple(name for number, name in class_names.items() if number not in label_of_class),
    )


def _label_interface(label_config: str) -> LabelInterface:
    from label_studio_sdk.label_interface import LabelInterface  # brings faker and jsonschema: a quarter of a second

    return LabelInterface(label_config)


def _read_control(tag: ControlTag) -> Control | None:
    image = next((item for item in tag.objects or [] if item.tag.lower() == "image"), None)
    if image is None:
        return None
    value = image.attr.get("valueList") or image.attr.get("value") or ""
    if "{{" in value or "{{" in str(tag.name):
        return None  # inside a Repeater, whose regions are numbered by the page
    if not value.startswith("$"):
        raise LabelingConfigError(f'Image "{image.name}" should have a value such as "$image", not "{value}"')
    model_path = tag.attr.get("model_path")
    if model_path is not None and not re.fullmatch(r"[\w][\w .+()\[\],&@=-]*", model_path):
        raise LabelingConfigError(
            f"model_path should be the bare name of a file in MODEL_ROOT, no path and no address: put the file there, "
            f'and write model_path="{_file_name(model_path)}"'
        )
    return Control(
        from_name=str(tag.name),
        to_name=str(image.name),
        data_key=value.removeprefix("$"),
        is_list="valueList" in image.attr,
        labels=tuple(_read_labels(tag)),
        score_threshold=_threshold(tag.attr, f'RectangleLabels "{tag.name}"'),
        model_path=model_path,
        needs_obb=_is_true(tag, "model_obb"),
    )


def _read_labels(tag: ControlTag) -> Iterable[Label]:
    for value, label in (tag.labels_attrs or {}).items():
        names = dict.fromkeys(name for name in (label.attr.get("value"), label.attr.get("alias")) if name)
        predicted_values = [name.strip() for name in label.attr.get("predicted_values", "").split(",")]
        yield Label(
            value=value,
            names=tuple(names),
            predicted_values=tuple(name for name in predicted_values if name),
            score_threshold=_threshold(label.attr, f'Label "{value}"'),
        )


def _threshold(attributes: Mapping[str, str], where: str) -> float | None:
    # HumanSignal's YOLO example reads both spellings.
    for name in ("model_score_threshold", "score_threshold"):
        text = attributes.get(name)
        if text:
            try:
                threshold = float(text)
            except ValueError:
                threshold = -1.0
            if not 0 <= threshold <= 1:
                raise LabelingConfigError(f'{name}="{text}" of {where} should be a number from 0 to 1')
            return threshold
    return None


def _claims(labels: Iterable[Label], names_of: Callable[[Label], Iterable[str]]) -> dict[str, Label]:
    claims: dict[str, Label] = {}
    for label in labels:
        for name in names_of(label):
            claims.setdefault(name, label)
    return claims


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _is_true(tag: ControlTag, attribute: str) -> bool:
    return str(tag.attr.get(attribute, "")).strip().lower() in {"true", "1", "yes"}


def _file_name(path: str) -> str:
    """The file's name at the end of a path, or of an address, whose query may hold a signature."""
    name = re.split(r"[/\\]", re.split(r"[?#]", path)[0])[-1]
    return "".join(re.findall(r"[\w .+()-]", name))[:60].strip(" .-") or "best.pt"
