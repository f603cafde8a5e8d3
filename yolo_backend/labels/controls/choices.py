"""`<Choices>` and `<Taxonomy>` on an `<Image>`: what the image is, or with `model_presence` what is found in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Label
from yolo_backend.labels.controls.kind import Found, Part, value_of
from yolo_backend.labels.controls.whole_image import (
    WholeImageControl,
    WholeImageKind,
    asks,
    best_of_labels,
    is_per_item,
)
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.tags import Tag, is_true, read_fields, read_label
from yolo_backend.messages import shortened
from yolo_backend.protocol import Region

_SEPARATOR = " / "


@dataclass(frozen=True)
class ChoicesControl(WholeImageControl):
    """With `is_multiple` it has all labels that are found, `most` at most, and else the best one.

    With `is_of_presence` a label is found where a box of it is.
    """

    is_multiple: bool = False
    is_of_presence: bool = False
    most: int | None = None
    tag: str = field(kw_only=True, default="choices")


@dataclass(frozen=True)
class TaxonomyControl(ChoicesControl):
    """`paths` are those of its labels, in their order: each from the root to the choice."""

    paths: tuple[tuple[str, ...], ...] = ()
    tag: str = field(kw_only=True, default="taxonomy")


ChoicesT = TypeVar("ChoicesT", bound=ChoicesControl)


class _ChoicesKind(WholeImageKind[ChoicesT]):
    """What `<Choices>` and `<Taxonomy>` have in common."""

    key: str
    """What Label Studio calls the value of its regions."""

    def is_left_to_people(self, tag: Tag) -> bool:
        """Also if its choices come with the tasks, or from elsewhere, and nobody asks for predictions."""
        return super().is_left_to_people(tag) or (not tag.element.labels_attrs and not asks(tag))

    def check_weights(self, control: ChoicesT, weights: WeightsInfo, name: str) -> None:
        """Classification weights say what an image is; others do so with `model_presence`."""
        if weights.finds_places and not control.is_of_presence:
            raise LabelingConfigError(
                f"{self._shown(control)} wants classification weights, and {name} are {weights.kind} weights: name "
                'others in MODEL_NAME, or in model_path, or choose what these find by model_presence="true"'
            )

    def trained_with(self, control: ChoicesT) -> frozenset[str]:
        """What an image is; what `model_presence` finds is learnt from who draws it."""
        return frozenset() if control.is_of_presence else frozenset({"classify"})

    def chosen(self, control: ChoicesT, region: Mapping[str, Any]) -> list[str]:
        """The labels of a region, each once; also such as the control doesn't have. Regions may be anybody's."""
        values = value_of(region).get(self.key)
        return list(dict.fromkeys(self._label(control, each) for each in values)) if isinstance(values, list) else []

    def make_whole(self, control: ChoicesT, found: Found) -> list[Part]:
        """One region with the labels; none without any."""
        best = best_of_labels(found)
        if not control.is_multiple:
            best = dict(list(best.items())[:1]) if control.is_of_presence or _is_likeliest(found) else {}
        elif control.most is not None:
            best = dict(list(best.items())[: control.most])
        return [self._part(control, best)] if best else []

    def of_all_pages(self, control: ChoicesT, regions: Sequence[Region]) -> list[Region]:
        """All labels of all pages, each with its best score, or the best one."""
        if control.is_per_item or not regions:
            return list(regions)
        kept = list(regions) if control.is_multiple else [regions[0]]
        values = [value for region in kept for value in region["value"][self.key]]
        distinct = [value for number, value in enumerate(values) if value not in values[:number]][: control.most]
        region = {**regions[0], "value": {self.key: distinct}, "score": sum(one["score"] for one in kept) / len(kept)}
        region.pop("item_index", None)
        return [region]  # type: ignore[list-item]

    def texts(self, region: Mapping[str, Any]) -> list[str]:
        """Each choice, a path by its parts."""
        values = value_of(region).get(self.key)
        return [
            _SEPARATOR.join(map(str, value)) if isinstance(value, list) else str(value)
            for value in (values if isinstance(values, list) else [])
        ]

    def ingredients(self, control: ChoicesT) -> dict[str, Any]:
        """How many labels it may have."""
        how_many = {"multiple": control.most or 0} if control.is_multiple else {}
        return {**super().ingredients(control), **how_many, **({"presence": True} if control.is_of_presence else {})}

    def _part(self, control: ChoicesT, best: Mapping[str, float]) -> Part:
        values = [self._value(control, label) for label in best]
        return {
            "from_name": control.from_name,
            "type": self.key,
            "value": {self.key: values},
            "score": sum(best.values()) / len(best),
        }

    def _value(self, control: ChoicesT, label: str) -> Any:
        return label

    def _label(self, control: ChoicesT, value: Any) -> str:
        """The label of a value, as `_value` makes it."""
        return str(value)

    def _shown(self, control: ChoicesT) -> str:
        return f'{self.key.capitalize()} "{shortened(control.from_name, 40)}"'


class Choices(_ChoicesKind[ChoicesControl]):
    """Reads `<Choices>`."""

    tags = frozenset({"choices"})
    region_types = frozenset({"choices"})
    key = "choices"

    def is_left_to_people(self, tag: Tag) -> bool:
        """Also if it is nested, and nobody asks for predictions."""
        return super().is_left_to_people(tag) or (_is_nested(tag) and not asks(tag))

    def why_not_served(self, tag: Tag) -> str | None:
        """Label Studio's own validation refuses the values of nested choices."""
        if _is_nested(tag):
            return f'{tag.shown} has allowNested="true", and Label Studio takes no predictions of such: write Taxonomy'
        return super().why_not_served(tag)

    def read(self, tag: Tag, image_tag: Any) -> ChoicesControl:
        """The control on one of its images. A choice inside of another one isn't shown by Label Studio's page."""
        attributes = self.attributes(tag)
        fields = read_fields(tag, image_tag, attributes)
        inner = {_name_of(path[-1]) for path in _paths(tag) if len(path) > 1}
        outer = {_name_of(path[-1]) for path in _paths(tag) if len(path) == 1}
        fields["labels"] = tuple(label for label in fields["labels"] if label.value not in inner - outer)
        return ChoicesControl(
            **fields,
            is_asked_for=asks(tag),
            is_per_item=is_per_item(tag),
            is_multiple=tag.own_attributes.get("choice") == "multiple",
            is_of_presence=is_true(attributes, "model_presence"),
        )


class Taxonomy(_ChoicesKind[TaxonomyControl]):
    """Reads `<Taxonomy>`: a class is the choice of its name, wherever that is in the tree."""

    tags = frozenset({"taxonomy"})
    region_types = frozenset({"taxonomy"})
    key = "taxonomy"

    def why_not_served(self, tag: Tag) -> str | None:
        """Without choices of its own, which paths there are isn't known here."""
        if not tag.element.labels_attrs:
            return f"{tag.shown} has no Choice inside, and other paths aren't known here: write them into the config"
        return super().why_not_served(tag)

    def read(self, tag: Tag, image_tag: Any) -> TaxonomyControl:
        """The control on one of its images. Where two choices have a name, one without choices inside has it."""
        attributes, own = self.attributes(tag), tag.own_attributes
        fields = read_fields(tag, image_tag, attributes)
        leaves_only = own.get("leafsonly", "").lower() == "true"
        found: dict[tuple[str, ...], Label] = {}
        for number, nodes in enumerate(sorted(_paths(tag), key=lambda nodes: not _is_leaf(nodes[-1])), 1):
            path = tuple(_name_of(node) for node in nodes)
            if _is_leaf(nodes[-1]) or not leaves_only:
                label = read_label(_SEPARATOR.join(path), dict(nodes[-1].attrib), number)
                # Weights that were trained for it have the paths as their classes.
                found.setdefault(path, replace(label, names=tuple(dict.fromkeys((*label.names, label.value)))))
        fields["labels"] = tuple(found.values())
        most = own.get("maxusages", "")
        return TaxonomyControl(
            **fields,
            is_asked_for=asks(tag),
            is_per_item=is_per_item(tag),
            is_multiple=own.get("choice") == "multiple",
            is_of_presence=is_true(attributes, "model_presence"),
            most=int(most) if most.isascii() and most.isdecimal() and int(most) else None,
            paths=tuple(found),
        )

    def ingredients(self, control: TaxonomyControl) -> dict[str, Any]:
        """The paths, where a label alone doesn't say its own."""
        is_unclear = any(_SEPARATOR in part for path in control.paths for part in path)
        return {**super().ingredients(control), **({"paths": control.paths} if is_unclear else {})}

    def _value(self, control: TaxonomyControl, label: str) -> Any:
        values = [each.value for each in control.labels]
        return list(control.paths[values.index(label)])

    def _label(self, control: TaxonomyControl, value: Any) -> str:
        path = tuple(map(str, value)) if isinstance(value, list) else (str(value),)
        return control.labels[control.paths.index(path)].value if path in control.paths else _SEPARATOR.join(path)


def _is_likeliest(found: Found) -> bool:
    """Returns True if no class with a label is likelier than the best one above its threshold."""
    labelled = [
        score
        for class_id, score in zip(found.detections.class_ids.tolist(), found.detections.scores.tolist(), strict=True)
        if class_id in found.label_map.label_of_class
    ]
    return bool(found.indices) and float(found.detections.scores[found.indices[0]]) >= max(labelled)


def _is_nested(tag: Tag) -> bool:
    return tag.own_attributes.get("allownested", "").lower() == "true"


def _paths(tag: Tag) -> Iterator[list[Any]]:
    """Each choice with a name inside of a tag, after those that it is inside of; of equal siblings only the first."""

    def inside(element: Any, above: list[Any], seen: set[Any]) -> Iterator[list[Any]]:
        for child in element:
            if not isinstance(child.tag, str):  # a comment
                continue
            if child.tag.lower() != "choice":
                yield from inside(child, above, seen)
            elif _name_of(child) and child.attrib.get("value") not in seen:
                seen.add(child.attrib.get("value"))
                yield [*above, child]
                yield from inside(child, [*above, child], set())

    if tag.xml is not None:
        yield from inside(tag.xml, [], set())


def _is_leaf(choice: Any) -> bool:
    return not any(isinstance(child.tag, str) and child.tag.lower() == "choice" for child in choice)


def _name_of(choice: Any) -> str:
    """What a region has for a choice."""
    return str(choice.attrib.get("alias") or choice.attrib.get("value") or "")
