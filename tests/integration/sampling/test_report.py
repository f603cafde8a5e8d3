"""The report of what was chosen; what Label Studio gets is in tests/e2e/test_cli_sample.py."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from yolo_backend.sampling.report import draw_histogram


def test_the_histogram_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "report" / "histogram.png"
    draw_histogram([0.1, 0.2, 0.2, 0.9], [0.9], "entropy, sum", path)
    with Image.open(path) as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(1_000_000) or []}
        assert picture.format == "PNG"
    assert {(0xC4, 0xC9, 0xD1), (0xFF, 0x5A, 0x36)} <= colors
