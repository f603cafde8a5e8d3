"""Train the tests' weights of each kind anew: `python -m tests.data.train_shapes [KIND ...]`, minutes a kind.

They find the bars, rings and arrows of `tests.harness.shapes`, in scenes of other seeds than the tests' own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image
from ultralytics import YOLO

from tests.harness.shapes import CLASS_NAMES, POINT_NAMES, Floats, Shapes, Thing, draw_shapes, shapes_weights
from yolo_backend.demo.train import NARROW_DEPTH_WIDTH_MAXCHANNELS, narrow_architecture
from yolo_backend.detection.checkpoints import write_checkpoint

IMAGE_SIZE = 160
_SIZES_WH = ((160, 120), (120, 160), (160, 160), (160, 96))
# Tests draw seeds below a thousand.
_SEEDS = {"train": range(10_000, 11_600), "val": range(90_000, 90_100)}
_EPOCHS = {"segment": 8, "pose": 16, "obb": 4, "classify": 16}
_ARCHITECTURES = {"segment": "yolo11n-seg", "pose": "yolo11n-pose", "obb": "yolo11n-obb", "classify": "yolo11n-cls"}
_MAX_CHANNELS = 512  # half of a YOLO11's, because large things of three kinds don't need more


def _begin_with(kind: str) -> Path:
    """The first kind begins with layers that have seen something, though no bars; the others with its layers."""
    return shapes_weights(kind).with_name("bccd.pt") if kind == "segment" else shapes_weights("segment")


def main() -> None:
    """Train the kinds that are named, or all; `segment` comes first."""
    for kind in sys.argv[1:] or list(_ARCHITECTURES):
        with tempfile.TemporaryDirectory() as folder:
            train(kind, Path(folder))


def train(kind: str, folder: Path) -> None:
    """Draw the scenes, train, say how good they are, and put them into the folder of the tests' weights."""
    data = _write_classes(folder) if kind == "classify" else _write_dataset(folder, kind)
    scale = (*NARROW_DEPTH_WIDTH_MAXCHANNELS[:2], _MAX_CHANNELS)
    model = YOLO(narrow_architecture(folder, len(CLASS_NAMES), f"{_ARCHITECTURES[kind]}.yaml", scale))
    model.load(_begin_with(kind))
    # Nothing is changed about the images: there are as many as one likes, and in mirrored ones left would be right.
    unchanged: dict[str, Any] = dict.fromkeys(
        ("mosaic", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "erasing"), 0.0
    )
    model.train(
        data=str(data), epochs=_EPOCHS[kind], imgsz=IMAGE_SIZE, batch=16, device="cpu", project=str(folder),
        name="run", seed=0, optimizer="AdamW", lr0=0.004, cos_lr=True, cache="ram", workers=0, plots=False,
        warmup_epochs=1, val=False, auto_augment=None, freeze=9 if kind == "classify" else None, **unchanged,
    )  # fmt: skip
    last = Path(model.trainer.last)
    found = YOLO(last).val(data=str(data), imgsz=IMAGE_SIZE, device="cpu", plots=False, workers=0)
    print(kind, {name: round(float(value), 3) for name, value in found.results_dict.items()})
    written = shapes_weights(kind)
    write_checkpoint(last, written)
    print(f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB)")


def _write_dataset(folder: Path, kind: str) -> Path:
    for split, seeds in _SEEDS.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for seed in seeds:
            scene = draw_shapes(seed, _SIZES_WH[seed % len(_SIZES_WH)])
            Image.fromarray(scene.image).save(images / f"{seed}.png")
            lines = [_line(thing, scene, _LABELS[kind]) for thing in scene.things]
            (labels / f"{seed}.txt").write_text("".join(lines))
    about: dict[str, Any] = {"path": str(folder), "train": "images/train", "val": "images/val"}
    about["names"] = dict(enumerate(CLASS_NAMES))
    if kind == "pose":
        about["kpt_shape"] = [len(POINT_NAMES), 3]
    data = folder / "data.yaml"
    data.write_text(yaml.safe_dump(about))
    return data


def _write_classes(folder: Path) -> Path:
    data = folder / "data"
    for split, seeds in _SEEDS.items():
        for name in CLASS_NAMES:
            (data / split / name).mkdir(parents=True)
        for seed in seeds:
            scene = draw_shapes(seed, _SIZES_WH[seed % len(_SIZES_WH)], most=1)
            name = CLASS_NAMES[scene.things[0].class_id]
            Image.fromarray(scene.image).save(data / split / name / f"{seed}.png")
    return data


def _line(thing: Thing, scene: Shapes, label_of: Callable[[Thing, Floats], Floats]) -> str:
    height, width = scene.image.shape[:2]
    numbers = label_of(thing, np.array([width, height], np.float64))
    return " ".join([str(thing.class_id), *(f"{number:.6f}" for number in numbers.ravel().tolist())]) + "\n"


def _outline(thing: Thing, size_wh: Floats) -> Floats:
    """One line around all parts and through all holes, which goes from one to the next and back on the same way."""
    outlines, _ = cv2.findContours(thing.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    closed = [np.concatenate([outline, outline[:1]])[:, 0] for outline in outlines]
    starts = [outline[:1] for outline in closed[-2::-1]]
    line: Floats = (np.concatenate([*closed, *starts]) + 0.5) / size_wh
    return line


def _box_and_points(thing: Thing, size_wh: Floats) -> Floats:
    low, high = thing.box_xyxy[:2], thing.box_xyxy[2:]
    seen = np.where(thing.are_hidden, 0, 2)[:, None]
    points = np.column_stack([np.where(seen, thing.points_xy / size_wh, 0), seen])
    return np.concatenate([(low + high) / 2 / size_wh, (high - low) / size_wh, points.ravel()])


def _corners(thing: Thing, size_wh: Floats) -> Floats:
    x, y, width, height, angle = thing.box_xywhr
    corners: Floats = cv2.boxPoints(((x, y), (width, height), np.degrees(angle))) / size_wh
    return corners


_LABELS: dict[str, Callable[[Thing, Floats], Floats]] = {
    "segment": _outline,
    "pose": _box_and_points,
    "obb": _corners,
}


if __name__ == "__main__":
    main()
