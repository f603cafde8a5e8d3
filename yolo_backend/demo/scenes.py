"""Scenes with known boxes: nuts, bolts and washers on a workbench, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASS_NAMES = ("nut", "bolt", "washer")

_SIZES_WH = ((640, 480), (640, 640), (800, 600), (1024, 768), (1280, 720), (1280, 960), (1200, 1600), (1600, 1200))
_METALS_RGB = ((196, 199, 204), (158, 163, 170), (206, 178, 112), (176, 142, 92), (92, 96, 104), (215, 216, 210))
_SUPERSAMPLING = 3
_MIN_VISIBLE_FRACTION = 0.8
_SOLID_ALPHA = 0.5

Image3f = NDArray[np.float32]
Point = tuple[float, float]
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Scene:
    """An RGB image (height, width, 3) and the boxes (n, 4) of the visible part of each object, in pixels."""

    image: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float64]
    class_ids: tuple[int, ...]

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]


def draw_scene(seed: int) -> Scene:
    """Draw the scene of this seed; the same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    width, height = _SIZES_WH[rng.integers(len(_SIZES_WH))]
    canvas = _bench(rng, width, height)
    light_angle = rng.uniform(0, 2 * np.pi)
    owner = np.full((height, width), -1, np.int32)
    class_ids: list[int] = []
    areas: list[int] = []
    for _ in range(rng.integers(5, 22)):
        class_id = int(rng.integers(len(CLASS_NAMES)))
        size = rng.uniform(0.07, 0.2) * min(width, height)
        patch = _DRAWERS[class_id](rng, float(size), light_angle)
        window = _find_window(rng, owner, patch, areas)
        if window is None:
            continue
        _lay(canvas, patch, window, light_angle)
        solid = patch[..., 3] > _SOLID_ALPHA
        owner[window][solid] = len(class_ids)
        areas.append(int(solid.sum()))
        class_ids.append(class_id)
    _light_and_noise(rng, canvas, light_angle)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    boxes = [_extent_xyxy(owner == index) for index in range(len(class_ids))]
    return Scene(image, np.array(boxes, np.float64).reshape(-1, 4), tuple(class_ids))


def save_scene(scene: Scene, path: Path, jpeg_quality: int = 90) -> None:
    """Write the picture as JPEG or PNG, by the ending of `path`."""
    Image.fromarray(scene.image).save(path, quality=jpeg_quality)  # which PNG ignores


def _find_window(
    rng: np.random.Generator, owner: NDArray[np.int32], patch_rgba: Image3f, areas: list[int]
) -> Window | None:
    """Where an object hides no other one by more than a fifth; None after a few tries."""
    height, width = owner.shape
    patch_height, patch_width = patch_rgba.shape[:2]
    if patch_height >= height or patch_width >= width:
        return None
    solid = patch_rgba[..., 3] > _SOLID_ALPHA
    for _ in range(20):
        x = int(rng.integers(0, width - patch_width))
        y = int(rng.integers(0, height - patch_height))
        window = (slice(y, y + patch_height), slice(x, x + patch_width))
        if not _hides_too_much(owner, window, solid, areas):
            return window
    return None


def _lay(canvas: Image3f, patch_rgba: Image3f, window: Window, light_angle: float) -> None:
    alpha = patch_rgba[..., 3:]
    _cast_shadow(canvas, alpha[..., 0], (window[1].start, window[0].start), light_angle)
    canvas[window] = canvas[window] * (1 - alpha) + patch_rgba[..., :3] * alpha


def _hides_too_much(owner: NDArray[np.int32], window: Window, solid: NDArray[np.bool_], areas: list[int]) -> bool:
    covered_ids = owner[window][solid]
    for index in np.unique(covered_ids[covered_ids >= 0]):
        visible = int((owner == index).sum()) - int((covered_ids == index).sum())
        if visible < _MIN_VISIBLE_FRACTION * areas[index]:
            return True
    return False


def _extent_xyxy(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def _bench(rng: np.random.Generator, width: int, height: int) -> Image3f:
    """A surface to work on: wood with grain, a cutting mat with its grid, or brushed sheet metal."""
    kind = rng.integers(3)
    base_rgb = np.array(((150, 112, 74), (58, 96, 82), (120, 124, 128))[kind], np.float32)
    base_rgb += rng.uniform(-25, 25, 3).astype(np.float32)
    canvas = np.full((height, width, 3), base_rgb, np.float32)
    stretch = {0: (2, 60), 1: (20, 20), 2: (1, 90)}[int(kind)]
    grain = rng.normal(0, 1, (max(2, height // stretch[0]), max(2, width // stretch[1]))).astype(np.float32)
    canvas += cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None] * rng.uniform(4, 12)
    if kind == 1:
        step = int(rng.integers(40, 90))
        line_rgb = base_rgb + 22
        canvas[::step] = line_rgb
        canvas[:, ::step] = line_rgb
    for _ in range(rng.integers(0, 9)):  # scratches and pencil marks, which are nobody's box
        start, end = rng.integers(0, (width, height), (2, 2))
        tone = (base_rgb + rng.uniform(-50, 50)).tolist()
        cv2.line(canvas, start.tolist(), end.tolist(), tone, int(rng.integers(1, 4)), cv2.LINE_AA)
    return canvas


def _light_and_noise(rng: np.random.Generator, canvas: Image3f, light_angle: float) -> None:
    height, width = canvas.shape[:2]
    ys, xs = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope = rng.uniform(0.05, 0.3)
    canvas *= (rng.uniform(0.75, 1.15) + slope * (xs * np.cos(light_angle) + ys * np.sin(light_angle)))[..., None]
    if rng.random() < 0.4:
        canvas[:] = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.0))
    canvas += rng.normal(0, rng.uniform(1, 8), canvas.shape).astype(np.float32)


def _cast_shadow(canvas: Image3f, alpha: NDArray[np.float32], at_xy: tuple[int, int], light_angle: float) -> None:
    height, width = canvas.shape[:2]
    size = max(alpha.shape)
    offset = max(2.0, 0.05 * size)
    pad = int(3 * offset) + 1
    soft = cv2.GaussianBlur(np.pad(alpha, pad), (0, 0), offset / 2)
    x0 = at_xy[0] - pad - round(offset * np.cos(light_angle))
    y0 = at_xy[1] - pad - round(offset * np.sin(light_angle))
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + soft.shape[1], width), min(y0 + soft.shape[0], height)
    shade = soft[top - y0 : bottom - y0, left - x0 : right - x0, None]
    canvas[top:bottom, left:right] *= 1 - 0.45 * shade


class _Patch:
    """A small transparent drawing around (0, 0), drawn larger and scaled down for smooth edges."""

    def __init__(self, rng: np.random.Generator, half_wh: Point, light_angle: float) -> None:
        self.half_wh = (int(np.ceil(half_wh[0])) + 2, int(np.ceil(half_wh[1])) + 2)
        shape = (2 * self.half_wh[1] * _SUPERSAMPLING, 2 * self.half_wh[0] * _SUPERSAMPLING)
        self.rgb = np.zeros((*shape, 3), np.float32)
        self.alpha = np.zeros(shape, np.float32)
        self.metal_rgb = np.array(_METALS_RGB[rng.integers(len(_METALS_RGB))], np.float32)
        self.metal_rgb += rng.uniform(-12, 12, 3).astype(np.float32)
        self.light = np.array((np.cos(light_angle), np.sin(light_angle)))
        self.rng = rng

    def polygon(self, points: list[Point], tone: float, alpha: float = 1.0) -> None:
        fixed = [np.round((np.array(points) + self.half_wh) * _SUPERSAMPLING).astype(np.int32)]
        cv2.fillPoly(self.rgb, fixed, (self.metal_rgb * tone).tolist())
        cv2.fillPoly(self.alpha, fixed, alpha)

    def ellipse(self, radii: Point, angle: float, tone: float, alpha: float = 1.0) -> None:
        turns = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        self.polygon(_rotated([(radii[0] * np.cos(t), radii[1] * np.sin(t)) for t in turns], angle), tone, alpha)

    def facing(self, normal: Point) -> float:
        """How bright a facet with this outward normal is."""
        return 1.0 + 0.35 * float(np.dot(normal, self.light))

    def finish(self) -> Image3f:
        """The patch as RGBA float32, alpha in 0..1, with brushed and graded metal."""
        height, width = self.alpha.shape
        ys, xs = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        graded = 1 + 0.18 * (xs * self.light[0] + ys * self.light[1])
        rgb = self.rgb * graded[..., None] + self.rng.normal(0, 4, (height, width, 1)).astype(np.float32)
        size_wh = (width // _SUPERSAMPLING, height // _SUPERSAMPLING)
        # Premultiplied, so that no black fringe comes in from outside the object.
        weighted = cv2.resize(rgb * self.alpha[..., None], size_wh, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(self.alpha, size_wh, interpolation=cv2.INTER_AREA)
        return np.dstack([weighted / np.maximum(alpha, 1e-3)[..., None], alpha]).astype(np.float32)


def _rotated(points: list[Point], angle: float) -> list[Point]:
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


def _draw_nut(rng: np.random.Generator, size: float, light_angle: float) -> Image3f:
    radius, angle = size / 2, rng.uniform(0, np.pi / 3)
    patch = _Patch(rng, (radius, radius), light_angle)
    corners = _rotated([(radius * np.cos(k * np.pi / 3), radius * np.sin(k * np.pi / 3)) for k in range(6)], angle)
    for k in range(6):
        middle = angle + (k + 0.5) * np.pi / 3
        normal = (float(np.cos(middle)), float(np.sin(middle)))
        patch.polygon([(0, 0), corners[k], corners[(k + 1) % 6]], 0.85 * patch.facing(normal))
    patch.ellipse((0.84 * radius, 0.84 * radius), 0, 1.05)
    hole = rng.uniform(0.46, 0.56)
    for ring in range(4):  # the thread, as rings that darken inwards
        shrunk = (hole - 0.03 * ring) * radius
        patch.ellipse((shrunk, shrunk), 0, 0.35 if ring % 2 == 0 else 0.7)
    patch.ellipse(((hole - 0.12) * radius,) * 2, 0, 0.12)
    return patch.finish()


def _draw_washer(rng: np.random.Generator, size: float, light_angle: float) -> Image3f:
    radius, angle, tilt = size / 2, rng.uniform(0, np.pi), rng.uniform(0.8, 1.0)
    patch = _Patch(rng, (radius, radius), light_angle)
    patch.ellipse((radius, radius * tilt), angle, 0.75)
    patch.ellipse((0.95 * radius, 0.95 * radius * tilt), angle, 1.08)
    hole = rng.uniform(0.42, 0.62)
    patch.ellipse((hole * radius, hole * radius * tilt), angle, 0.6)
    patch.ellipse(((hole - 0.04) * radius, (hole - 0.04) * radius * tilt), angle, 0.6, alpha=0.0)
    return patch.finish()


def _draw_bolt(rng: np.random.Generator, size: float, light_angle: float) -> Image3f:
    diameter = size * rng.uniform(0.3, 0.42)
    length, head_width, head_height = size * rng.uniform(0.9, 1.7), 1.75 * diameter, 0.7 * diameter
    angle = rng.uniform(0, 2 * np.pi)
    start = -(length + head_height) / 2
    outline = [(start, head_width / 2), (-start, diameter / 2)]
    reach = max(float(np.hypot(*point)) for point in outline)
    patch = _Patch(rng, (reach, reach), light_angle)
    across = (-float(np.sin(angle)), float(np.cos(angle)))

    def quad(x0: float, x1: float, y0: float, y1: float, *, tone: float, slant: float = 0.0) -> None:
        patch.polygon(_rotated([(x0, y0), (x1, y0), (x1 + slant, y1), (x0 + slant, y1)], angle), tone)

    for edge0, edge1, turn in ((-0.5, -0.25, -1.0), (-0.25, 0.25, 0.0), (0.25, 0.5, 1.0)):  # the head's three faces
        tone = 0.95 * patch.facing((turn * across[0], turn * across[1]))
        quad(start, start + head_height, edge0 * head_width, edge1 * head_width, tone=tone)
    shank = start + head_height
    for band in range(6):
        low, high = -0.5 + band / 6, -0.5 + (band + 1) / 6
        turn = low + high
        tone = patch.facing((turn * across[0], turn * across[1])) * (1.05 - 0.3 * abs(turn))
        quad(shank, -start - 0.15 * diameter, low * diameter, high * diameter, tone=tone)
    tip = [(-start - 0.15 * diameter, -diameter / 2), (-start, -0.36 * diameter)]
    patch.polygon(_rotated([*tip, (-start, 0.36 * diameter), (tip[0][0], diameter / 2)], angle), 0.8)
    pitch = max(2.0, 0.16 * diameter)
    for x in np.arange(shank + rng.uniform(0.1, 0.5) * length, -start - 0.2 * diameter, pitch).tolist():
        quad(x, x + 0.4 * pitch, -diameter / 2, diameter / 2, tone=0.5, slant=-0.4 * pitch)
    return patch.finish()


_DRAWERS: tuple[Callable[[np.random.Generator, float, float], Image3f], ...] = (_draw_nut, _draw_bolt, _draw_washer)
