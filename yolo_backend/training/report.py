"""A run's report: one HTML file with the verdict, the scores, and the validation images that went worst."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from markupsafe import Markup
from PIL import Image as Picture

from yolo_backend.detection.detections import Detections
from yolo_backend.files import write_whole
from yolo_backend.images.decode import decode_image
from yolo_backend.images.errors import ImageError
from yolo_backend.labels.drawing import LabelColors, draw_regions
from yolo_backend.labels.outlines import nested_outlines_of
from yolo_backend.labels.places import places_of
from yolo_backend.training.found import Findings, FoundBoxes
from yolo_backend.training.gate import Judgement
from yolo_backend.training.labelled import LabelledImage
from yolo_backend.training.mask_overlaps import Outlines
from yolo_backend.training.matching import Matches, TrueBoxes, count_confusions, match_all
from yolo_backend.training.pages import render
from yolo_backend.training.scores import precisions_at_recalls
from yolo_backend.training.things import BOXES, CHOICES, Things

_WORST = 12
_PICTURE_WH = (420, 320)
_QUALITY = 80
_MAX_CONFUSED = 30  # labels in a table
_STYLE = Markup((Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8"))  # noqa: S704  ours


@dataclass(frozen=True)
class _Curve:
    """Precision over recall of one label, as points of an SVG that is 100 x 100, and where its threshold is."""

    label: str
    color: str
    points: str
    at: tuple[float, float] | None


@dataclass(frozen=True)
class _Confusions:
    """Rows are labels as they were drawn, columns as they were found; the last of both is nothing."""

    names: Sequence[str]
    rows: Sequence[Sequence[int]]
    left_out: int


@dataclass(frozen=True)
class _Worst:
    """A validation image as it was labelled and as it was found: two JPEGs as `data:` addresses."""

    caption: str
    missed: int
    wrong: int
    labelled: str
    found: str


def write_report(
    path: Path,
    judgement: Judgement,
    images: Sequence[LabelledImage],
    candidate: Findings,
    *,
    title: str,
    facts: Mapping[str, str],
    max_megapixels: float,
    things: Things = BOXES,
    failure: str | None = None,
) -> None:
    """Write the report of a run: `images` and `candidate` are those that were given to `judge`, and the verdict is what
    became of the model. `failure` is why it couldn't serve though it was to.

    `title` names the run, and `facts` are shown below the verdict, in their order. `things` are what people drew or
    chose. It opens offline, and runs nothing.
    Raises OSError.
    """
    labels = list(judgement.labels)
    judged = [images[number] for number in judgement.judged]
    found = candidate.at(judgement.judged)
    truths = [TrueBoxes.of(image.boxes, image.size_wh, labels) for image in judged]
    shown = [each.above(judgement.thresholds) for each in found.shown]
    colors = LabelColors()
    for label in labels:
        colors[label]
    page = render(
        "report.html",
        style=_STYLE,
        title=title,
        facts=facts,
        judgement=judgement,
        failure=failure,
        images=len(judged),
        curves=_curves(match_all(truths, found.shown, labels), judgement, colors),
        confusions=_confusions(truths, shown, labels),
        worst=_worst(judged, truths, shown, colors, max_megapixels),
        xml=label_tags(judgement.thresholds, things),
        things=things,
        is_chosen=things is CHOICES,
    )
    write_whole(path, page.encode())


def label_tags(thresholds: Mapping[str, float], things: Things = BOXES) -> str:
    """The thresholds as tags of a labeling config, a line each; or as attributes, where the labels have no tags."""
    attributes = {label: f'model_score_threshold="{threshold:g}"' for label, threshold in thresholds.items()}
    if not things.tag:
        return "\n".join(f"{label}: {attribute}" for label, attribute in attributes.items())
    return "\n".join(f"<{things.tag} value={quoteattr(label)} {attribute}/>" for label, attribute in attributes.items())


def _curves(matches: Mapping[str, Matches], judgement: Judgement, colors: LabelColors) -> list[_Curve]:
    curves = []
    for label, those in matches.items():
        if not those.boxes:
            continue
        precisions = precisions_at_recalls(those)
        last = int(np.flatnonzero(precisions > 0).max(initial=0))
        points = " ".join(
            f"{recall},{100 - 100 * precision:.1f}" for recall, precision in enumerate(precisions[: last + 1].tolist())
        )
        above = those.scores > judgement.thresholds[label]
        hits = int(those.hits[above, 0].sum())
        at = (
            (round(100 * hits / those.boxes, 1), round(100 - 100 * hits / int(above.sum()), 1)) if above.any() else None
        )
        curves.append(_Curve(label, colors[label], points, at))
    return curves


def _confusions(truths: Sequence[TrueBoxes], shown: Sequence[FoundBoxes], labels: Sequence[str]) -> _Confusions:
    counts = count_confusions(truths, shown, labels)
    there = [number for number in range(len(labels)) if counts[number].any() or counts[:, number].any()]
    kept = there[:_MAX_CONFUSED]
    numbers = [*kept, len(labels)]
    names = [*(labels[number] for number in kept), "nothing"]
    return _Confusions(names, counts[np.ix_(numbers, numbers)].tolist(), len(there) - len(kept))


def _worst(
    images: Sequence[LabelledImage],
    truths: Sequence[TrueBoxes],
    shown: Sequence[FoundBoxes],
    colors: LabelColors,
    max_megapixels: float,
) -> list[_Worst]:
    """The images with most mistakes; those whose file has gone are left out."""
    counted = [_mistakes(truth, found) for truth, found in zip(truths, shown, strict=True)]
    order = sorted(range(len(images)), key=lambda number: (-sum(counted[number]), number))
    worst: list[_Worst] = []
    for number in order:
        missed, wrong = counted[number]
        if len(worst) == _WORST or not missed + wrong:
            break
        image, truth, found = images[number], truths[number], shown[number]
        try:
            pixels = decode_image(image.file.read_bytes(), max_megapixels).pixels
        except (OSError, ImageError):
            continue
        drawn = FoundBoxes(
            truth.boxes_xywhr if found.is_rotated else truth.boxes_xyxy,
            np.zeros(len(truth.labels)),
            truth.labels,
            points_xy=truth.points_xy if truth.points_xy.size else None,
        )
        if found.masks is None:
            of_drawn, of_found = (
                _regions(drawn, image.size_wh, scored=False),
                _regions(found, image.size_wh, scored=True),
            )
        else:
            of_drawn = _outlined(truth.labels, truth.outlines, image.size_wh)
            of_found = _outlined(found.labels, map(nested_outlines_of, found.masks), found.masks_wh, found.scores)
        pictures = [
            _as_address(draw_regions(Picture.fromarray(pixels), regions, _PICTURE_WH, colors))
            for regions in (of_drawn, of_found)
        ]
        page = "" if image.page is None else f", page {image.page + 1}"
        worst.append(_Worst(f"Task {image.task_id}{page}", missed, wrong, pictures[0], pictures[1]))
    return worst


def _mistakes(truth: TrueBoxes, found: FoundBoxes) -> tuple[int, int]:
    """How many boxes of an image were missed, and how many were found wrongly."""
    here = sorted({*truth.labels, *found.labels})  # and not those of the project, of which there may be thousands
    counts = count_confusions([truth], [found], here)
    mistakes = int(counts.sum() - np.trace(counts))
    return mistakes - int(counts[-1].sum()), mistakes - int(counts[:, -1].sum())


def _regions(boxes: FoundBoxes, size_wh: tuple[int, int], *, scored: bool) -> list[dict[str, Any]]:
    """Boxes, and their key points, as Label Studio has them, which is what can be drawn."""
    detections = Detections(
        boxes.boxes.astype(np.float32),
        boxes.scores.astype(np.float32),
        np.zeros(len(boxes.labels), np.int64),
        boxes.is_rotated,
    )
    places = places_of(detections, range(len(boxes.labels)), size_wh)
    return [
        {
            "type": "rectanglelabels",
            "value": {**place, "rectanglelabels": [label]},
            **({"score": float(score)} if scored else {}),
        }
        for place, label, score in zip(places, boxes.labels, boxes.scores, strict=True)
        if place
    ] + _points(boxes, size_wh)


def _points(boxes: FoundBoxes, size_wh: tuple[int, int]) -> list[dict[str, Any]]:
    """Each in its box's color, and without a text of its own."""
    if boxes.points_xy is None:
        return []
    return [
        {
            "type": "keypointlabels",
            "parentID": "",
            "value": {"x": 100 * x / size_wh[0], "y": 100 * y / size_wh[1], "keypointlabels": [label]},
        }
        for label, points in zip(boxes.labels, boxes.points_xy.tolist(), strict=True)
        for x, y in points
        if not math.isnan(x)
    ]


def _outlined(
    labels: Sequence[str],
    outlines: Iterable[Outlines],
    size_wh: tuple[int, int],
    scores: Iterable[float] = (),
) -> list[dict[str, Any]]:
    """The lines around each thing, in a picture of this size, as Label Studio has polygons; the first has the label."""
    return [
        {
            "type": "polygonlabels",
            "value": {"points": (line / size_wh * 100).tolist(), "polygonlabels": [label]},
            **({} if score is None else {"score": float(score)}),
            **({"parentID": label} if number else {}),
        }
        for label, lines, score in zip_longest(labels, outlines, scores)
        for number, line in enumerate(lines)
    ]


def _as_address(picture: Picture.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(content.getvalue()).decode()}"
