"""What opens a file of weights: each family its own files, and no other weights than were asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.detections import detect
from tests.harness.weights import renamed_weights
from yolo_backend.detection import families
from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.families import Checkpoints, Opened, TellModel, Wish
from yolo_backend.detection.weights import WeightsError, WeightsReplacedError, file_fingerprint


class Ciphered:
    """A test's own family: checkpoints whose bytes are turned over, as somebody might keep them."""

    def takes(self, path: Path) -> bool:
        return path.suffix == ".turned"

    def open(self, path: Path, wish: Wish, tell: TellModel) -> Opened:
        plain = path.with_suffix(".pt")
        plain.write_bytes(path.read_bytes()[::-1])
        return Checkpoints().open(plain, Wish(file_fingerprint(plain), "torch", wish.device, None, 300), tell)


def test_a_family_of_ones_own_is_one_entry(
    bccd_weights: Path, bccd_images: list[NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = tmp_path / "cells.turned"
    turned.write_bytes(bccd_weights.read_bytes()[::-1])
    with pytest.raises(WeightsError, match=r"cells\.turned are of no kind that is served: name a \.pt or \.onnx file"):
        Engine(turned, device="cpu")
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, Ciphered()))
    ours, plain = Engine(turned, device="cpu"), Engine(bccd_weights, device="cpu", engine="torch")
    assert (ours.info.name, ours.info.fingerprint) == ("cells.turned", file_fingerprint(turned))
    (found,), (expected,) = (detect(each, bccd_images[:1], 0.25) for each in (ours, plain))
    assert found.boxes.tolist() == expected.boxes.tolist()


@pytest.fixture
def replaced(bccd_weights: Path, tmp_path: Path) -> tuple[Path, str]:
    """A file in the place of another one, and the fingerprint of that one."""
    path = tmp_path / "mine.pt"
    shutil.copy(bccd_weights, path)
    fingerprint = file_fingerprint(path)
    renamed_weights(bccd_weights, "others", tmp_path).replace(path)
    return path, fingerprint


def test_a_file_that_was_replaced_is_not_opened_in_the_name_of_the_one_before(replaced: tuple[Path, str]) -> None:
    path, fingerprint = replaced
    with pytest.raises(WeightsReplacedError, match="replaced by others meanwhile: ask again"):
        Engine(path, device="cpu", engine="torch", fingerprint=fingerprint)


def test_an_export_of_the_file_before_still_serves_in_its_name(
    replaced: tuple[Path, str], bccd_weights: Path, export_folder: Path
) -> None:
    path, fingerprint = replaced
    Engine(bccd_weights, device="cpu", export_folder=export_folder)
    engine = Engine(path, device="cpu", export_folder=export_folder, fingerprint=fingerprint)
    assert engine.info.fingerprint == fingerprint
    assert "RBC" in engine.info.class_names.values()


def test_what_is_known_is_told_before_the_export_is_made(bccd_weights: Path, tmp_path: Path) -> None:
    told: list[tuple[WeightsInfo, bool]] = []

    def tell(info: WeightsInfo) -> None:
        told.append((info, any((tmp_path / "exports").glob("*.onnx"))))

    engine = Engine(bccd_weights, device="cpu", export_folder=tmp_path / "exports", tell=tell)
    assert told == [(engine.info, False)]
    assert engine.runtime.engine == "onnx"
    Engine(bccd_weights, device="cpu", export_folder=tmp_path / "exports", tell=tell)
    assert len(told) == 1, "what is there takes no time"
