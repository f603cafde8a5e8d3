"""Pictures with their regions drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from yolo_backend.labels.colors import label_color, text_color_on
from yolo_backend.labels.controls.table import kind_of_region
from yolo_backend.labels.regions import region_label

_CELL_WH = (400, 300)
_COLUMNS = 4
_CAPTION_HEIGHT = 22
_MOST_ROWS = 200  # a JPEG has 65,535 rows of pixels at most
_MAX_SHEET_BYTES = 2_000_000  # what can be sent in a mail
_QUALITIES = (88, 75, 60)


class LabelColors(dict[str, str]):
    """The color of each label; a label that comes for the first time gets the next one."""

    def __missing__(self, label: str) -> str:
        self[label] = label_color(len(self))
        return self[label]


def draw_regions(
    picture: Picture.Image,
    regions: Sequence[Mapping[str, Any]],
    size_wh: tuple[int, int] | None = None,
    colors: LabelColors | None = None,
) -> Picture.Image:
    """A copy of the upright picture with its regions, their labels, and their scores where they have one.

    It is shrunk to fit into `size_wh`. Pictures that share `colors` have the same label in the same color.
    """
    colors = LabelColors() if colors is None else colors
    drawn = picture.convert("RGB") if size_wh is None else _shrunk(picture, size_wh).convert("RGB")
    drawn = drawn.copy() if drawn is picture else drawn
    draw = ImageDraw.Draw(drawn)
    longer_px = max(drawn.size)
    line_px, text_px = max(2, longer_px // 400), max(10, longer_px // 70)
    font = ImageFont.load_default(text_px)
    texts: list[tuple[str, str, tuple[float, float]]] = []
    lines = 0  # that are written into the corner
    for region in regions:
        label, kind = region_label(region), kind_of_region(region.get("type"))
        score = region.get("score")
        for text in kind.texts(region) if kind else ():
            place = (2 * line_px, line_px + lines * (text_px + line_px))
            draw.text(place, _with_score(text, score), colors[text], font)
            lines += 1
        outlines = kind.outlines(region, drawn.size) if kind and label is not None else []
        if label is None or not outlines:
            continue
        for points in outlines:
            draw.line([*points, *points[:2]], colors[label], line_px, joint="curve")
        if kind and not kind.counts(region):  # a part of something whose label stands there already
            continue
        text = _with_score(label, score)
        left, top = min((point for points in outlines for point in points), key=lambda point: (point[1], point[0]))
        texts.append((text, colors[label], (left, top)))
    _write_texts(draw, texts, drawn.size, font)
    return drawn


def _with_score(text: str, score: float | None) -> str:
    return text if score is None else f"{text} {score:.2f}"


def _write_texts(
    draw: ImageDraw.ImageDraw,
    texts: Sequence[tuple[str, str, tuple[float, float]]],
    size_wh: tuple[int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Write each text beside its place, on a plate of its color; where one is already, a line further down."""
    taken: list[tuple[float, float, float, float]] = []
    for text, color, (left, top) in texts:
        _, _, right_px, bottom_px = draw.textbbox((0, 0), text, font)
        width, height = right_px + 4, bottom_px + 3
        x = max(0.0, min(left, size_wh[0] - width))
        y = max(0.0, top - height)
        while any(x < right and left_ < x + width and y < bottom and top_ < y + height
                  for left_, top_, right, bottom in taken) and y + 2 * height <= size_wh[1]:  # fmt: skip
            y += height
        taken.append((x, y, x + width, y + height))
        draw.rectangle((x, y, x + width, y + height), color)
        draw.text((x + 2, y + 1), text, text_color_on(color), font)


def draw_contact_sheet(
    items: Iterable[tuple[str, Picture.Image, Sequence[Mapping[str, Any]]]],
    path: Path,
    colors: LabelColors | None = None,
) -> None:
    """Write one JPEG of many pictures to `path`: each small, with its regions drawn and its caption below.

    It has at most 2 MB. Items may come from an iterator, because only a small copy of each picture is kept.
    """
    colors = LabelColors() if colors is None else colors
    cells = [(caption, draw_regions(picture, regions, _CELL_WH, colors)) for caption, picture, regions in items]
    columns = max(_COLUMNS, math.ceil(len(cells) / _MOST_ROWS))
    rows = max(1, math.ceil(len(cells) / columns))
    cell_width, cell_height = _CELL_WH[0], _CELL_WH[1] + _CAPTION_HEIGHT
    sheet = Picture.new("RGB", (columns * cell_width, rows * cell_height), "#202124")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (caption, drawn) in enumerate(cells):
        x, y = number % columns * cell_width, number // columns * cell_height
        sheet.paste(drawn, (x + (cell_width - drawn.width) // 2, y + (_CELL_WH[1] - drawn.height) // 2))
        draw.text((x + 6, y + _CELL_WH[1] + 3), caption, "#e8eaed", font)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_small_jpeg(sheet))


def _small_jpeg(sheet: Picture.Image) -> bytes:
    """The sheet as a JPEG that isn't too large: of less quality first, then of fewer pixels."""
    while True:
        for quality in _QUALITIES:
            content = BytesIO()
            sheet.save(content, "JPEG", quality=quality)
            if content.tell() <= _MAX_SHEET_BYTES:
                return content.getvalue()
        sheet = sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4))


def _shrunk(picture: Picture.Image, size_wh: tuple[int, int]) -> Picture.Image:
    small = picture.copy()
    small.thumbnail(size_wh)
    return small
