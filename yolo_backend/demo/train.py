"""Train the demo weights: `python -m yolo_backend.demo.train` (about an hour on two cores)."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load

from yolo_backend.demo.scenes import CLASS_NAMES, draw_scene, save_scene
from yolo_backend.detection.checkpoints import write_checkpoint

WEIGHTS = Path(__file__).with_name("demo.pt")
IMAGE_SIZE = 512

# The demo project shows seeds below 1000: training and validation stay clear of them.
_FIRST_SEED = {"train": 10_000, "val": 90_000}
# An eighth of YOLO11's channels (its n has a quarter): plenty for three shiny classes, and a file of about a megabyte.
NARROW_DEPTH_WIDTH_MAXCHANNELS = (0.34, 0.125, 1024)


def main() -> None:
    """Draw the data, train, and put the best weights beside this file."""
    parser = argparse.ArgumentParser(description="Train the demo weights.")
    parser.add_argument("--folder", type=Path, default=Path("demo-training"), help="for images and runs")
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--scenes", type=int, default=800)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    folder = options.folder.resolve()
    data = write_dataset(folder, {"train": options.scenes, "val": 100})
    model = YOLO(narrow_architecture(folder, len(CLASS_NAMES)))
    model.train(
        data=str(data), epochs=options.epochs, imgsz=IMAGE_SIZE, batch=16, device=options.device, project=str(folder),
        name="run", exist_ok=True, seed=0, optimizer="AdamW", lr0=0.003, cos_lr=True, flipud=0.5, close_mosaic=12,
        cache="ram", workers=2, plots=False,
    )  # fmt: skip
    best = Path(model.trainer.best)
    metrics = YOLO(best).val(data=str(data), imgsz=IMAGE_SIZE, device=options.device, plots=False)
    print(f"mAP50 {metrics.box.map50:.3f}, mAP50-95 {metrics.box.map:.3f} on scenes it never saw")
    write_checkpoint(best, WEIGHTS)
    print(f"wrote {WEIGHTS} ({WEIGHTS.stat().st_size / 1e6:.1f} MB)")


def write_dataset(folder: Path, counts: dict[str, int]) -> Path:
    """Write scenes and their boxes as a YOLO data set; returns its data.yaml."""
    for split, count in counts.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        seeds = range(_FIRST_SEED[split], _FIRST_SEED[split] + count)
        with ThreadPoolExecutor() as pool:
            list(pool.map(partial(_write_example, folder, split), seeds))
    data = folder / "data.yaml"
    names = dict(enumerate(CLASS_NAMES))
    data.write_text(yaml.safe_dump({"path": str(folder), "train": "images/train", "val": "images/val", "names": names}))
    return data


def narrow_architecture(
    folder: Path,
    class_count: int,
    of: str = "yolo11n.yaml",
    depth_width_maxchannels: tuple[float, float, int] = NARROW_DEPTH_WIDTH_MAXCHANNELS,
) -> str:
    """Write the architecture of a YOLO11n, or another one, with half of its channels; returns its file."""
    architecture = yaml_model_load(of)
    architecture["scales"] = {"n": list(depth_width_maxchannels)}
    architecture["nc"] = class_count
    for key in ("scale", "yaml_file"):
        architecture.pop(key, None)
    path = folder / f"{Path(of).stem}-narrow.yaml"
    path.write_text(yaml.safe_dump(architecture))
    return str(path)


def _write_example(folder: Path, split: str, seed: int) -> None:
    scene = draw_scene(seed)
    ending = ".png" if seed % 8 == 0 else ".jpg"
    save_scene(scene, folder / "images" / split / f"{seed}{ending}", jpeg_quality=70 + seed % 26)
    width, height = scene.size_wh
    lines = []
    for class_id, (x0, y0, x1, y1) in zip(scene.class_ids, scene.boxes_xyxy, strict=True):
        center_xywh = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        lines.append(" ".join([str(class_id), *(f"{number:.6f}" for number in center_xywh)]))
    (folder / "labels" / split / f"{seed}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
