"""The scenes of the demo: drawn, they are what their boxes say. (A scene takes half a second.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolo_backend.demo.scenes import CLASS_NAMES, draw_scene, save_scene


def test_a_seed_gives_the_same_scene() -> None:
    first, second, other = draw_scene(5), draw_scene(5), draw_scene(6)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.boxes_xyxy, second.boxes_xyxy)
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_lie_on_the_image_one_for_each_object(seed: int) -> None:
    scene = draw_scene(seed)
    width, height = scene.size_wh
    assert 640 <= max(width, height) <= 1600
    assert scene.boxes_xyxy.shape == (len(scene.class_ids), 4)
    assert set(scene.class_ids) <= set(range(len(CLASS_NAMES)))
    assert (scene.boxes_xyxy >= 0).all()
    assert (scene.boxes_xyxy <= [width, height, width, height]).all()
    assert (scene.boxes_xyxy[:, 2:] - scene.boxes_xyxy[:, :2] >= 10).all()


def test_a_box_holds_what_differs_from_the_empty_bench() -> None:
    """Pixels that are bright metal lie within the boxes, not between them."""
    scene = draw_scene(13)
    inside = np.zeros(scene.image.shape[:2], bool)
    for left, top, right, bottom in scene.boxes_xyxy.astype(int):
        inside[top:bottom, left:right] = True
    edges = np.abs(np.diff(scene.image.astype(int).sum(axis=2), axis=1)) > 250
    assert edges[inside[:, 1:]].mean() > 20 * max(edges[~inside[:, 1:]].mean(), 1e-6)


@pytest.mark.parametrize("name", ["scene.png", "scene.jpg"])
def test_a_saved_scene_is_the_picture(tmp_path: Path, name: str) -> None:
    scene = draw_scene(3)
    save_scene(scene, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        difference = np.abs(np.asarray(image).astype(int) - scene.image)
    assert difference.max() == 0 if name.endswith("png") else difference.mean() < 8
