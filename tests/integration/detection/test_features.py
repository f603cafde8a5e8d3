"""Features of the real detector: near for images that look alike, far for those that don't."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from yolo_backend.detection.features import FeatureExtractor
from yolo_backend.detection.weights import WeightsError


@pytest.fixture(scope="module")
def extractor(bccd_weights: Path) -> FeatureExtractor:
    return FeatureExtractor(bccd_weights, device="cpu")


def distance(extractor: FeatureExtractor, image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.linalg.norm(extractor.extract(image) - extractor.extract(other)))


def test_they_are_the_layer_before_the_head(
    extractor: FeatureExtractor, bccd_weights: Path, bccd_files: list[Path], bccd_images: list[NDArray[np.uint8]]
) -> None:
    yolo = YOLO(bccd_weights)
    seen = []
    yolo.model.model[-2].register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    yolo.predict(bccd_files[0], imgsz=320, device="cpu", verbose=False)
    expected = seen[-1].mean((-2, -1))[0]
    assert torch.from_numpy(extractor.extract(bccd_images[0])).allclose(expected / expected.norm(), atol=1e-4)


def test_a_frame_of_the_same_scene_is_nearer_than_another_image(
    extractor: FeatureExtractor, bccd_images: list[NDArray[np.uint8]]
) -> None:
    for image, other in zip(bccd_images[:6], bccd_images[6:12], strict=True):
        next_frame = cv2.convertScaleAbs(np.roll(image, 6, axis=1), alpha=1.02, beta=2).astype(np.uint8)
        assert 0 < distance(extractor, image, next_frame) < distance(extractor, image, other) / 2


def test_images_of_any_shape_have_vectors_of_one_length(extractor: FeatureExtractor) -> None:
    shapes = [(480, 640, 3), (640, 480, 3), (33, 1000, 3), (1, 1, 3)]
    vectors = [extractor.extract(np.full(shape, 128, np.uint8)) for shape in shapes]
    assert {vector.shape for vector in vectors} == {vectors[0].shape}
    assert [np.linalg.norm(vector) for vector in vectors] == pytest.approx([1] * 4, abs=1e-5)


def test_exported_weights_have_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"Weights cells\.onnx have no features.*only a \.pt file"):
        FeatureExtractor(tmp_path / "cells.onnx")


def test_a_broken_file_is_told_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"^Weights broken\.pt are broken, or only half downloaded: .+$"):
        FeatureExtractor(broken)
