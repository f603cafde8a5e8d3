"""One picture of many: each image small, with its regions drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from yolo_backend.demo.evaluate import region_box_xyxy

_CELL_WH = (400, 300)
_COLUMNS = 4
_CAPTION_HEIGHT = 22
_COLORS = ("#ff5a36", "#2fbf4a", "#3aa0ff", "#f2c500", "#c05cff", "#00c9c9")


def draw_contact_sheet(items: list[tuple[Path, list[dict[str, Any]]]], path: Path) -> None:
    """Draw the images with their regions, and write the sheet to `path`."""
    rows = -(-len(items) // _COLUMNS)
    cell_width, cell_height = _CELL_WH[0], _CELL_WH[1] + _CAPTION_HEIGHT
    sheet = Image.new("RGB", (_COLUMNS * cell_width, rows * cell_height), "#202124")
    labels = sorted({region["value"]["rectanglelabels"][0] for _, regions in items for region in regions})
    colors = {label: _COLORS[number % len(_COLORS)] for number, label in enumerate(labels)}
    for number, (image_path, regions) in enumerate(items):
        x, y = number % _COLUMNS * cell_width, number // _COLUMNS * cell_height
        picture = _draw_regions(image_path, regions, colors)
        sheet.paste(picture, (x + (cell_width - picture.width) // 2, y + (_CELL_WH[1] - picture.height) // 2))
        caption = f"{image_path.name}: {len(regions)} boxes"
        ImageDraw.Draw(sheet).text((x + 6, y + _CELL_WH[1] + 3), caption, "#e8eaed", ImageFont.load_default(13))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _draw_regions(image_path: Path, regions: list[dict[str, Any]], colors: dict[str, str]) -> Image.Image:
    with Image.open(image_path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    full_width = picture.width
    picture.thumbnail(_CELL_WH)
    scale = picture.width / full_width
    draw = ImageDraw.Draw(picture)
    for region in regions:
        left, top, right, bottom = (edge * scale for edge in region_box_xyxy(region))
        label = region["value"]["rectanglelabels"][0]
        draw.rectangle((left, top, right, bottom), outline=colors[label], width=2)
        text = f"{label} {region['score']:.2f}"
        draw.text((left + 2, max(top - 12, 0)), text, colors[label], ImageFont.load_default(10))
    return picture
