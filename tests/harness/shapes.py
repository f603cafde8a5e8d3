"""Scenes of bars, rings and arrows, drawn from a seed, of which everything is known: pixels, key points, angles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = ("bar", "ring", "arrow")
POINT_NAMES = ("tip", "tail", "side")

_WEIGHTS = Path(__file__).parent.parent / "data" / "weights"
_SUPERSAMPLING = 4
_MIN_VISIBLE_SHARE = 0.5
_HALF_WIDTHS = (0.15, 0.36, 0.25)  # of a thing that is 1 long, by its class
_TIP_MARK = 0.42  # where the dark mark of a bar and of a ring is, from the middle to the tip

Floats = NDArray[np.float64]


def shapes_weights(kind: str) -> Path:
    """Small weights of a kind (segment, pose, obb, classify) that find these things, or say which one is there."""
    return _WEIGHTS / f"shapes-{kind}.pt"


@dataclass(frozen=True)
class Thing:
    """One thing of a scene, in the scene's pixels.

    `mask` (height, width) is what can be seen of it. `points_xy` (3, 2) are its tip, its tail and its left side, of
    which some `are_hidden` by other things. `box_xywhr` is around all of it, with what is hidden: a center, its length,
    its width and the direction of its tip, in clockwise radians.
    """

    class_id: int
    mask: NDArray[np.bool_]
    points_xy: Floats
    are_hidden: NDArray[np.bool_]
    box_xywhr: Floats

    @property
    def box_xyxy(self) -> Floats:
        """Around what can be seen of it."""
        ys, xs = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float64)


@dataclass(frozen=True)
class Shapes:
    """An RGB image (height, width, 3), and the things in it; later ones lie on earlier ones."""

    image: NDArray[np.uint8]
    things: tuple[Thing, ...]


def draw_shapes(seed: int, size_wh: tuple[int, int] = (320, 240), *, most: int = 4) -> Shapes:
    """The scene of this seed with `most` things at most. In another size of the same shape it is the same scene."""
    rng = np.random.default_rng(seed)
    width, height = size_wh
    canvas = _ground(rng, width, height)
    owner = np.full((height, width), -1, np.int32)
    drawn: list[tuple[int, Floats, Floats]] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(1, most + 1))):
        class_id = int(rng.integers(len(CLASS_NAMES)))
        color = _bright(rng)
        for _ in range(10):
            length = rng.uniform(0.35, 0.6) * min(size_wh)
            angle = rng.uniform(0, 2 * np.pi)
            margin = 0.57 * length
            center = rng.uniform((margin, margin), (width - margin, height - margin))
            frame = _Frame(center, length, angle)
            outlines, mark, points = _shape(class_id)
            cover = _coverage([frame.place(outline) for outline in outlines], size_wh)
            mask = cover >= 0.5
            if _leaves_enough(owner, mask, areas):
                break
        else:
            continue
        _paint(canvas, cover, color)
        if mark is not None:
            _paint(canvas, np.minimum(cover, _coverage([frame.place(mark)], size_wh)), color * 0.25)
        owner[mask] = len(drawn)
        areas.append(int(mask.sum()))
        box = np.array([*center, length, 2 * _HALF_WIDTHS[class_id] * length, angle])
        drawn.append((class_id, frame.place(points), box))
    canvas += rng.normal(0, rng.uniform(1, 6), (height, width, 1))
    things = tuple(
        Thing(class_id, owner == index, points, _hidden(points, owner, index), box)
        for index, (class_id, points, box) in enumerate(drawn)
    )
    return Shapes(np.clip(canvas, 0, 255).astype(np.uint8), things)


@dataclass(frozen=True)
class _Frame:
    """Where a thing is: its middle, its length, and the direction of its tip in clockwise radians."""

    center: Floats
    length: float
    angle: float

    def place(self, points: Floats) -> Floats:
        """Points of a thing that is 1 long and points to the right, in the scene's pixels."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned: Floats = points * self.length @ np.array([[cos, sin], [-sin, cos]]) + self.center
        return turned


def _shape(class_id: int) -> tuple[list[Floats], Floats | None, Floats]:
    """Its outlines (a second one is a hole), its dark mark, and its tip, tail and left side; up is negative."""
    half = _HALF_WIDTHS[class_id]
    points = np.array([[0.5, 0], [-0.5, 0], [0, -half]])
    if class_id == 0:
        corners = np.array([[-0.5, -half], [0.5, -half], [0.5, half], [-0.5, half]])
        mark = np.array([[_TIP_MARK - 0.1, -half], [_TIP_MARK, -half], [_TIP_MARK, half], [_TIP_MARK - 0.1, half]])
        return [corners], mark, points
    if class_id == 1:
        turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        ellipse = np.column_stack([0.5 * np.cos(turns), half * np.sin(turns)])
        mark = np.array([[0.2, -0.1], [0.6, -0.1], [0.6, 0.1], [0.2, 0.1]])
        return [ellipse, ellipse * 0.5], mark, points
    head, shaft = 0.05, 0.09
    arrow = [[-0.5, -shaft], [head, -shaft], [head, -half], [0.5, 0], [head, half], [head, shaft], [-0.5, shaft]]
    points[2] = (head, -half)
    return [np.array(arrow)], None, points


def _coverage(outlines: list[Floats], size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """How much of each pixel is inside."""
    width, height = size_wh
    large = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    cv2.fillPoly(large, [np.round(outline * _SUPERSAMPLING - 0.5).astype(np.int32) for outline in outlines], 255)
    small: NDArray[np.float32] = cv2.resize(large, size_wh, interpolation=cv2.INTER_AREA).astype(np.float32)
    small /= 255
    return small


def _paint(canvas: Floats, cover: NDArray[np.float32], color: Floats) -> None:
    canvas += cover[..., None] * (color - canvas)


def _leaves_enough(owner: NDArray[np.int32], mask: NDArray[np.bool_], areas: list[int]) -> bool:
    """Returns True if this hides none of the things by too much."""
    left = owner[~mask]
    return all(int((left == index).sum()) >= _MIN_VISIBLE_SHARE * area for index, area in enumerate(areas))


def _hidden(points: Floats, owner: NDArray[np.int32], index: int) -> NDArray[np.bool_]:
    """Which of a thing's points are below a later thing."""
    height, width = owner.shape
    xs, ys = np.floor(points).astype(int).T
    is_hidden: NDArray[np.bool_] = owner[ys.clip(0, height - 1), xs.clip(0, width - 1)] > index
    return is_hidden


def _ground(rng: np.random.Generator, width: int, height: int) -> Floats:
    """A dull ground with faint clouds."""
    dull = np.full((height, width, 3), rng.uniform(60, 120) + rng.uniform(-12, 12, 3))
    clouds = rng.normal(0, rng.uniform(2, 10), (4, 4)).astype(np.float32)
    dull += cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return dull


def _bright(rng: np.random.Generator) -> Floats:
    """The color of a thing: no grey, and neither dark nor white."""
    hue, saturation, value = rng.integers(0, 180), rng.integers(140, 256), rng.integers(170, 256)
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0], np.float64)
