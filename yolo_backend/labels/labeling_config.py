"""The labeling config: which of its controls we serve, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.labels_with_shape import why_not_alone
from yolo_backend.labels.controls.table import kind_of_tag
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.tags import Tag, is_true
from yolo_backend.messages import first_line, shortened

if TYPE_CHECKING:
    from label_studio_sdk.label_interface import LabelInterface

_MAX_CONFIG = 1_000_000  # those read last are kept
_MAX_SENTENCE = 300
_OTHER_SHAPES = frozenset(
    f"{shape}{labels}" for shape in ("bitmask", "keypoint", "vector", "ocr") for labels in ("", "labels")
)
_BARE_SHAPES = frozenset({"polygon", "brush", "ellipse"})
_OF_VIDEOS = frozenset({"videorectangle", "videovector", "videovectorlabels", "timelinelabels"})


@dataclass(frozen=True)
class LabelingConfig:
    """The controls that we serve, one at least; and for each of the others a sentence that says why not."""

    controls: tuple[Control, ...]
    not_served: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def parse_labeling_config(label_config: str) -> LabelingConfig:
    """Find the controls that we serve.

    Raises LabelingConfigError if the XML is broken, or if nothing in it can be served.
    """
    if len(label_config) > _MAX_CONFIG:
        raise LabelingConfigError(f"The labeling config is longer than {_MAX_CONFIG} characters")
    try:
        interface = _label_interface(label_config)
        elements = list(interface.controls or [])
        xml = {element.attrib.get("name"): element for element in interface._tree.iter() if "toName" in element.attrib}
        repeated = {element.attrib.get("name") for element in _inside_repeaters(interface)}
    except Exception as error:  # the SDK raises whatever its parsers raise
        raise LabelingConfigError(f"The labeling config can't be read: {first_line(error)}") from error
    tags = [Tag(element, elements, element.name in repeated, xml.get(element.name)) for element in elements]
    controls: list[Control] = []
    others: list[str] = []
    faults: list[str] = []
    for tag in tags:
        if is_true(_attributes(tag), "model_skip"):
            continue
        kind = kind_of_tag(tag.name)
        if kind and kind.is_left_to_people(tag):
            continue
        if other := kind.why_not_served(tag) if kind else _why_not_served(tag):
            others.append(shortened(other, _MAX_SENTENCE))
        elif kind:
            try:
                controls += [kind.read(tag, image_tag) for image_tag in tag.image_tags]
            except LabelingConfigError as error:
                faults.append(str(error))
    if not controls:
        raise LabelingConfigError("; ".join(faults) or _nothing_to_serve(tags, others))
    return LabelingConfig(tuple(controls), tuple(faults + others))


@lru_cache(maxsize=256)
def first_data_key(label_config: str) -> str | None:
    """The first field of a task's data that the config names. Label Studio takes it for data without a name."""
    try:
        objects = list(_label_interface(label_config).objects or [])
    except Exception:  # the SDK raises whatever its parsers raise; predicting tells about it
        return None
    values = [str(item.value or "") for item in objects]
    return next((value.removeprefix("$") for value in values if value.startswith("$")), None)


def _label_interface(label_config: str) -> LabelInterface:
    from label_studio_sdk.label_interface import LabelInterface  # brings faker and jsonschema: a quarter of a second

    return LabelInterface(label_config)


def _inside_repeaters(interface: LabelInterface) -> Iterator[Any]:
    for element in interface._tree.iter():
        if isinstance(element.tag, str) and element.tag.lower() == "repeater":
            yield from element.iter()


def _why_not_served(tag: Tag) -> str | None:
    """What to say about a tag that no kind of control reads; None if it makes no regions on images."""
    if tag.name in _OF_VIDEOS:
        return f"{tag.shown} is for videos, which are not predicted"
    if not tag.image_tags:
        return None
    if tag.name in _BARE_SHAPES:
        return why_not_alone(tag)
    if tag.name in _OTHER_SHAPES:
        return f"{tag.shown} isn't predicted: write RectangleLabels, or another control that is, instead or beside it"
    return None


def _attributes(tag: Tag) -> Mapping[str, str]:
    kind = kind_of_tag(tag.name)
    attributes: Mapping[str, str] = kind.attributes(tag) if kind else tag.element.attr
    return attributes


def _nothing_to_serve(tags: Sequence[Tag], others: Sequence[str]) -> str:
    message = "The labeling config has no control on an Image that can be served"
    if others:
        return f"{message}: {'; '.join(others)}"
    if any(kind_of_tag(tag.name) and is_true(_attributes(tag), "model_skip") for tag in tags):
        return 'Every control that could be served has model_skip="true": remove it from one'
    if lonely := next((tag for tag in tags if tag.name == "rectangle"), None):
        return (
            f'{message}: the Rectangle "{shortened(str(lonely.element.name))}" has no labels, so write RectangleLabels'
        )
    return f"{message}, such as RectangleLabels"
