"""Colors for labels that can be told apart: on the labeling page, on pictures and on contact sheets."""

from __future__ import annotations

import colorsys

# Far apart in hue, and strong on photographs, which are rarely so bright.
_FIRST = (
    "#ff5a36", "#2fbf4a", "#3a8dff", "#ffcc00", "#c05cff", "#00c9c9",
    "#ffb3d9", "#ff5cb3", "#9ad400", "#4b3bb5", "#b5651d", "#a3003c",
)  # fmt: skip
_GOLDEN = 0.618034  # of a turn: hues that never meet
_LIGHTNESS = (0.5, 0.68, 0.36)


def label_color(number: int) -> str:
    """The color of the label with this number, from 0; all are different, and those next to each other very much."""
    if number < len(_FIRST):
        return _FIRST[number]
    lightness = _LIGHTNESS[number % len(_LIGHTNESS)]
    red, green, blue = colorsys.hls_to_rgb(number * _GOLDEN % 1, lightness, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def text_color_on(color: str) -> str:
    """Black or white, whichever can be read on this color (`#rrggbb`)."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"
