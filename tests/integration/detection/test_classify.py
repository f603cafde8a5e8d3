"""What classification weights are shown of an image: what Ultralytics shows them, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import Compose
from ultralytics.data.augment import classify_transforms

from yolo_backend.detection.heads import classify
from yolo_backend.detection.heads.classify import ClassifyHead
from yolo_backend.detection.heads.head import HeadOptions

ORDINARY = [(640, 480), (480, 640), (224, 224), (100, 37), (1000, 225), (3001, 2003), (1, 1), (5, 800)]


def head(size: int = 224) -> ClassifyHead:
    return ClassifyHead(HeadOptions("cls.pt", 3, False, True, (size, size), 32, True, 0.7, 300))


def image(size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (*size_wh[::-1], 3), np.uint8)


def as_ultralytics(pixels: NDArray[np.uint8], size: int = 224) -> NDArray[np.uint8]:
    return np.array(Compose(classify_transforms(size).transforms[:2])(Image.fromarray(pixels)))


@pytest.mark.parametrize("size_wh", ORDINARY)
def test_an_image_is_shown_as_ultralytics_shows_it(size_wh: tuple[int, int]) -> None:
    pixels = image(size_wh)
    assert np.array_equal(head().prepare(pixels), as_ultralytics(pixels))


@pytest.mark.parametrize("size_wh", [*ORDINARY, (3000, 2), (2, 3001)])
def test_the_middle_by_itself_becomes_the_same_pixels(
    size_wh: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "_MOST_SCALED_PX", 0)
    pixels = image(size_wh)
    shown, expected = head().prepare(pixels).astype(int), as_ultralytics(pixels).astype(int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("size_wh", [(65_000, 1), (1, 65_000)])
def test_of_a_long_image_only_the_middle_is_scaled(size_wh: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    resize = Image.Image.resize

    def watched(picture: Image.Image, size: tuple[int, int], *how: object, **more: object) -> Image.Image:
        made.append(tuple(size))
        assert size[0] * size[1] < 1_000_000, "this would take gigabytes"
        return resize(picture, size, *how, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", watched)
    pixels = np.zeros((*size_wh[::-1], 3), np.uint8)
    pixels.reshape(-1, 3)[32_480:32_520] = (255, 0, 0)  # it is red where it is cut out, and nowhere else
    shown = head().prepare(pixels)
    assert made == [(224, 224)]
    assert (shown == (255, 0, 0)).all()
