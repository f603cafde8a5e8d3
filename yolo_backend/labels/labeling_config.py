"""The labeling config: which controls we serve, and which class becomes which label at which threshold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from yolo_backend.errors import UserError
from yolo_backend.labels.task_values import data_with, find_value
from yolo_backend.messages import first_line, named, shortened

if TYPE_CHECKING:
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.control_tags import ControlTag

_MAX_CONFIG = 1_000_000  # those read last are kept
_MAX_SENTENCE, _MAX_NAME = 300, 40
_SERVED = frozenset({"rectanglelabels", "labels"})
_OTHER_SHAPES = frozenset(
    f"{shape}{labels}"
    for shape in ("polygon", "brush", "bitmask", "ellipse", "keypoint", "vector", "ocr")
    for labels in ("", "labels")
)
_OF_VIDEOS = frozenset({"videorectangle", "videovector", "videovectorlabels", "timelinelabels"})


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
    """A `<RectangleLabels>` on an `<Image>`, or a `<Labels>` with a `<Rectangle>` on one, which is `rectangle_name`.

    `value` is the image's, such as `$image`: where in a task its address is; with `is_list` it holds several. Labels
    that come with each task are where `labels_value` says.
    """

    from_name: str
    to_name: str
    value: str
    is_list: bool
    labels: tuple[Label, ...]
    score_threshold: float | None = None
    model_path: str | None = None
    needs_obb: bool = False
    rectangle_name: str | None = None
    labels_value: str | None = None

    def threshold(self, default: float) -> float:
        """The threshold of its labels that have none of their own."""
        return default if self.score_threshold is None else self.score_threshold

    def data_of(self, address: str) -> dict[str, Any]:
        """The data of a new task with this image. Raises LabelingConfigError where the config leaves none."""
        data = data_with(self.value, [address] if self.is_list else address)
        if data is None:
            raise LabelingConfigError(
                f'An image can\'t be registered for value="{self.value}": it should be such as "$image"'
            )
        return data


@dataclass(frozen=True)
class LabelingConfig:
    """The controls that we serve, one at least, and why each of the others isn't, in a sentence that names it."""

    controls: tuple[Control, ...]
    not_served: tuple[str, ...] = ()


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
def parse_labeling_config(label_config: str) -> LabelingConfig:
    """Find the controls that we serve.

    Raises LabelingConfigError where the XML is broken, or where nothing in it can be served.
    """
    if len(label_config) > _MAX_CONFIG:
        raise LabelingConfigError(f"The labeling config is longer than {_MAX_CONFIG} characters")
    try:
        interface = _label_interface(label_config)
        tags = list(interface.controls or [])
        repeated = {tag.attrib.get("name") for tag in _inside_repeaters(interface)}
    except Exception as error:  # the SDK raises whatever its parsers raise
        raise LabelingConfigError(f"The labeling config can't be read: {first_line(error)}") from error
    controls: list[Control] = []
    others: list[str] = []
    faults: list[str] = []
    for tag in tags:
        if _is_true(_attributes(tag, tags), "model_skip"):
            continue
        if other := _why_not_served(tag, tags, repeated):
            others.append(shortened(other, _MAX_SENTENCE))
        elif tag.tag.lower() in _SERVED:
            try:
                controls += [_read_control(tag, image, tags) for image in _images_of(tag)]
            except LabelingConfigError as error:
                faults.append(str(error))
    if not controls:
        raise LabelingConfigError("; ".join(faults) or _nothing_to_serve(tags, others))
    return LabelingConfig(tuple(controls), tuple(faults + others))


@lru_cache(maxsize=256)
def first_data_key(label_config: str) -> str | None:
    """The first field of a task's data that the config names: what Label Studio takes for one without a name."""
    try:
        objects = list(_label_interface(label_config).objects or [])
    except Exception:  # the SDK raises whatever its parsers raise; whoever predicts is told of it
        return None
    values = [str(item.value or "") for item in objects]
    return next((value.removeprefix("$") for value in values if value.startswith("$")), None)


def labels_of_task(control: Control, data: Any) -> tuple[Label, ...]:
    """The labels that a task brings for a control which has none of its own, as the page reads them.

    Raises LabelingConfigError where there are none.
    """
    value = control.labels_value or ""
    items = find_value(data, value)
    found = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    attributes = [{str(name): _as_text(text) for name, text in item.items() if text is not None} for item in found]
    labels = [
        _read_label(shown, item, position)
        for position, item in enumerate(attributes, 1)
        if (shown := item.get("alias") or item.get("value"))
    ]
    if not labels:
        raise LabelingConfigError(
            f'the task has no labels in its "{value.removeprefix("$")}": it should be a list such as '
            '[{"value": "car"}, {"value": "truck"}]'
        )
    return tuple(labels)


def _as_text(value: Any) -> str:
    """What a task's label says, as an attribute of a `<Label>` says it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


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
    control_threshold = control.threshold(default_threshold)
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


def _inside_repeaters(interface: LabelInterface) -> Iterator[Any]:
    for element in interface._tree.iter():
        if isinstance(element.tag, str) and element.tag.lower() == "repeater":
            yield from element.iter()


def _why_not_served(tag: ControlTag, tags: Sequence[ControlTag], repeated: set[str | None]) -> str | None:
    """What is to be said of a control that we don't serve; None of those that we do, and of those without regions."""
    kind = tag.tag.lower()
    shown = f'{tag.tag} "{shortened(str(tag.name), _MAX_NAME)}"'
    if kind in _OF_VIDEOS:
        return f"{shown} is for videos, which are not predicted"
    images = _images_of(tag)
    if kind in _SERVED and not images:
        return None if kind == "labels" else f"{shown} is on {_objects_of(tag)}: only an Image is looked at"
    if not images:
        return None
    if kind in _OTHER_SHAPES:
        return f"{shown} draws no boxes, and only boxes are predicted: write RectangleLabels instead, or beside it"
    if kind == "choices":
        return f"{shown} is left to people: only boxes are predicted"
    if kind in _SERVED and tag.name in repeated:
        return (
            f"{shown} is inside a Repeater, which takes no predictions: use one Image with valueList and one {tag.tag}"
        )
    if kind == "labels" and _rectangle_of(tag, tags) is None:
        return f'{shown} has no Rectangle on "{images[0].name}" beside it: add one, or write RectangleLabels'
    return None


def _nothing_to_serve(tags: Sequence[ControlTag], others: Sequence[str]) -> str:
    message = "The labeling config has no RectangleLabels on an Image"
    if others:
        return f"{message} that can be served: {'; '.join(others)}"
    if any(tag.tag.lower() in _SERVED and _is_true(_attributes(tag, tags), "model_skip") for tag in tags):
        return 'All that could be served of the labeling config has model_skip="true": nothing is left to predict'
    if lonely := next((tag for tag in tags if tag.tag.lower() == "rectangle"), None):
        return f'{message}: the Rectangle "{shortened(str(lonely.name))}" has no labels, so write RectangleLabels'
    return message


def _read_control(tag: ControlTag, image: Any, tags: Sequence[ControlTag]) -> Control:
    rectangle = _rectangle_of(tag, tags)
    attributes = _attributes(tag, tags)
    of_image = {name.lower(): value for name, value in image.attr.items()}  # the page doesn't look at their case
    value = of_image.get("valuelist") or of_image.get("value") or ""
    if not re.search(r"\$\S", value):
        raise LabelingConfigError(
            f'Image "{shortened(str(image.name), _MAX_NAME)}" should have a value such as "$image", not '
            f'"{shortened(value, _MAX_NAME)}"'
        )
    model_path = attributes.get("model_path")
    if model_path is not None and not re.fullmatch(r"[\w][\w .+()\[\],&@=-]*", model_path):
        raise LabelingConfigError(
            f"model_path should be the bare name of a file in MODEL_ROOT, no path and no address: put the file there, "
            f'and write model_path="{_file_name(model_path)}"'
        )
    labels = tuple(_read_labels(tag))
    labels_value = str(tag.attr.get("value") or "")
    return Control(
        from_name=str(tag.name),
        to_name=str(image.name),
        value=value,
        is_list="valuelist" in of_image,
        labels=labels,
        score_threshold=_threshold(attributes, f'{tag.tag} "{shortened(str(tag.name), _MAX_NAME)}"'),
        model_path=model_path,
        needs_obb=_is_true(attributes, "model_obb"),
        rectangle_name=str(rectangle.name) if rectangle else None,
        # Beside labels of its own, Label Studio refuses a prediction with others.
        labels_value=labels_value if labels_value.startswith("$") and not labels else None,
    )


def _images_of(tag: ControlTag) -> list[Any]:
    return [item for item in tag.objects or [] if item.tag.lower() == "image"]


def _attributes(tag: ControlTag, tags: Sequence[ControlTag]) -> dict[str, str]:
    """A control's attributes; those of `<Labels>` may stand on its `<Rectangle>`."""
    rectangle = _rectangle_of(tag, tags)
    return {**(rectangle.attr if rectangle else {}), **tag.attr}


def _objects_of(tag: ControlTag) -> str:
    found = [f'{item.tag} "{item.name}"' for item in tag.objects or []]
    return "the " + ", the ".join(found) if found else f'"{", ".join(tag.to_name or [])}", which is not there'


def _rectangle_of(tag: ControlTag, tags: Sequence[ControlTag]) -> ControlTag | None:
    """The `<Rectangle>` by which regions of a `<Labels>` get their place, on all of its images."""
    if tag.tag.lower() != "labels" or not (images := _images_of(tag)):
        return None
    rectangles = (item for item in tags if item.tag.lower() == "rectangle")
    return next((item for item in rectangles if all(image in _images_of(item) for image in images)), None)


def _read_labels(tag: ControlTag) -> Iterator[Label]:
    for position, (value, label) in enumerate((tag.labels_attrs or {}).items(), 1):
        yield _read_label(value, label.attr, position)


def _read_label(value: str, attributes: Mapping[str, str], position: int) -> Label:
    names = dict.fromkeys(name for name in (attributes.get("value"), attributes.get("alias")) if name)
    predicted_values = [name.strip() for name in attributes.get("predicted_values", "").split(",")]
    return Label(
        value=value,
        names=tuple(names),
        predicted_values=tuple(name for name in predicted_values if name),
        score_threshold=_threshold(attributes, f'Label "{named(shortened(value, _MAX_NAME), position)}"'),
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
                raise LabelingConfigError(f'{name}="{shortened(text, 20)}" of {where} should be a number from 0 to 1')
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


def _is_true(attributes: Mapping[str, str], name: str) -> bool:
    return str(attributes.get(name, "")).strip().lower() in {"true", "1", "yes"}


def _file_name(path: str) -> str:
    """The file's name at the end of a path, or of an address, whose query may hold a signature."""
    name = re.split(r"[/\\]", re.split(r"[?#]", path)[0])[-1]
    return "".join(re.findall(r"[\w .+()-]", name))[:60].strip(" .-") or "best.pt"
