"""Makes Label Studio's regions of what was found: the part that is the same for every kind of control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from yolo_backend.detection.detections import Detections
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.kind import Found, new_ids, value_of
from yolo_backend.labels.controls.table import kind_of, kind_of_region
from yolo_backend.labels.label_map import LabelMap
from yolo_backend.protocol import Region


def make_regions(
    detections: Detections, control: Control, label_map: LabelMap, size_wh: tuple[int, int], item_index: int | None
) -> list[Region]:
    """The regions of one control on one image, best score first; `item_index` is the page of a `valueList`.

    The regions of one detection have one id, unless the control's kind gives them others.
    """
    scores, class_ids = detections.scores.tolist(), detections.class_ids.tolist()
    # Strictly above, because Ultralytics filters so.
    wanted = [
        index
        for index, (score, class_id) in enumerate(zip(scores, class_ids, strict=True))
        if class_id in label_map.label_of_class and score > label_map.threshold_of_class[class_id]
    ]
    labels = [label_map.label_of_class[class_ids[index]] for index in wanted]
    kind = kind_of(control)
    found = Found(detections, wanted, labels, size_wh, label_map)
    parts_of_each = kind.make_parts(control, found)
    of_image = kind.make_whole(control, found)
    common = {
        "to_name": control.to_name,
        "original_width": size_wh[0],
        "original_height": size_wh[1],
        "image_rotation": 0,
        **({} if item_index is None else {"item_index": item_index}),
    }
    ids = new_ids(len(wanted) + len(of_image))
    regions: list[Region] = []
    for index, id_, parts in zip(wanted, ids, parts_of_each, strict=False):
        regions += [cast("Region", {**common, "id": id_, "score": scores[index], **part}) for part in parts]
    regions += [
        cast("Region", {**common, "id": id_, **part}) for id_, part in zip(ids[len(wanted) :], of_image, strict=True)
    ]
    return regions


def of_all_pages(regions: list[Region], controls: Iterable[Control]) -> list[Region]:
    """The regions of all pages of a task: of what is said of all its pages together, one region is left.

    Label Studio's page knows one result of a control that belongs to no single page.
    """
    for control in controls:
        kind = kind_of(control)
        if control.is_list and kind.is_of_whole_image:
            mine = [region for region in regions if _is_of(region, control)]
            others = [region for region in regions if not _is_of(region, control)]
            regions = others + kind.of_all_pages(control, sorted(mine, key=lambda one: -one.get("score", 0.0)))
    return regions


def region_label(region: Mapping[str, Any]) -> str | None:
    """The first label of a region; None if it is only a place."""
    return next(iter(region_labels(region)), None)


def region_labels(region: Mapping[str, Any]) -> list[str]:
    """All labels of a region: with choice="multiple" it may have several."""
    labels = value_of(region).get(str(region.get("type")))
    return [str(label) for label in labels] if isinstance(labels, list) else []


def _is_of(region: Region, control: Control) -> bool:
    return (region["from_name"], region["to_name"]) == (control.from_name, control.to_name)


def count_boxes(regions: Sequence[Mapping[str, Any]]) -> int:
    """How many things these regions are: boxes, mostly."""
    kinds = {type_: kind_of_region(type_) for type_ in {region.get("type") for region in regions}}
    ids = set()
    for number, region in enumerate(regions):
        kind = kinds[region.get("type")]
        if kind is None or kind.counts(region):
            ids.add(region.get("id", number))
    return len(ids)


def task_score(regions: Sequence[Mapping[str, Any]]) -> float:
    """The mean of the scores; 0.0 without any."""
    scores = [region["score"] for region in regions if "score" in region]
    return sum(scores) / len(scores) if scores else 0.0
