"""Labels as Ultralytics writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from yolo_backend.images.decode import size_and_orientation
from yolo_backend.registering.label_files import read_labels


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_yolo_files_are_of_the_upright_image_as_ultralytics_writes_them(
    tmp_path: Path, bccd_files: list[Path], bccd_weights: Path
) -> None:
    """EXIF lays the file on its side; Ultralytics reads it upright, and saves its boxes so."""
    from ultralytics import YOLO

    upright = PillowImage.open(bccd_files[0])
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    image = tmp_path / "cells.jpg"
    upright.transpose(PillowImage.Transpose.ROTATE_90).save(image, quality=95, exif=exif)
    result = YOLO(bccd_weights).predict(image, verbose=False)[0]
    result.save_txt(tmp_path / "labels" / "cells.txt", save_conf=True)
    (tmp_path / "data.yaml").write_text(f"names: {json.dumps(result.names)}")

    size_wh = size_and_orientation(image.read_bytes())[0]
    boxes = read_labels(tmp_path).of([image])[image].boxes(size_wh)

    assert size_wh == upright.size
    assert len(boxes) > 5
    np.testing.assert_allclose([box.box_xyxy for box in boxes], result.boxes.xyxy.cpu(), atol=0.01)
    assert [box.score for box in boxes] == pytest.approx(result.boxes.conf.tolist(), abs=1e-5)
    assert [box.label for box in boxes] == [result.names[int(number)] for number in result.boxes.cls]
