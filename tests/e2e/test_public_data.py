"""Public data sets into a real Label Studio, out of it by its exports, and back: the same within a pixel."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.harness.command import run_json
from tests.harness.exported import corners, export, regions_by_name, without_origin, xyxy_of
from tests.harness.labels_on_disk import voc_of, yolo_boxes
from tests.harness.studio_client import BCCD_CONFIG, StudioClient
from yolo_backend.labels.places import corners_of_box

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1200)]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with bccd, coco8-seg, coco8-pose and dota8."""
    folder = Path(os.environ.get("TEST_DATA_DIR", "nowhere"), "data")
    if not (folder / "dota8").is_dir():
        pytest.skip("TEST_DATA_DIR names no folder with data/dota8 (docs/developing.md)")
    return folder.resolve()


def lines_of(data_set: Path) -> dict[str, list[list[float]]]:
    """The numbers of each line, by the name of the image."""
    return {
        f"{file.stem}.jpg": [list(map(float, line.split())) for line in file.read_text().splitlines() if line.strip()]
        for file in sorted((data_set / "labels").rglob("*.txt"))
    }


def sizes_of(data_set: Path) -> dict[str, tuple[int, int]]:
    sizes = {}
    for file in (data_set / "images").rglob("*.jpg"):
        with Image.open(file) as image:
            sizes[file.name] = image.size
    return sizes


def names_of(data_set: Path) -> dict[int, str]:
    (about,) = data_set.glob("*.yaml")
    return dict(yaml.safe_load(about.read_text())["names"])


def config_of(tag: str, labels: set[str]) -> str:
    listed = "".join(f'<Label value="{label}"/>' for label in sorted(labels))
    return f'<View><Image name="image" value="$image"/><{tag} name="label" toName="image">{listed}</{tag}></View>'


def labels_in(lines: dict[str, list[list[float]]], names: dict[int, str]) -> set[str]:
    return {names[int(line[0])] for each in lines.values() for line in each}


def test_bccd_as_pascal_voc(
    client: StudioClient, command_environment: dict[str, str], data: Path, tmp_path: Path
) -> None:
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    photos = data / "bccd" / "images" / "val"
    truth = {
        f"{file.stem}.jpg": yolo_boxes(file, (640, 480), ["RBC", "WBC", "Platelets"])
        for file in sorted((data / "bccd" / "labels" / "val").glob("*.txt"))
    }
    (tmp_path / "Annotations").mkdir()
    for name, boxes in truth.items():
        (tmp_path / "Annotations" / f"{Path(name).stem}.xml").write_text(voc_of(name, (640, 480), boxes))
    first, second = (client.create_project(f"bccd {name}", BCCD_CONFIG) for name in ("from", "to"))

    told = run_json("register", photos, "-p", str(first), "--labels", tmp_path, "--as", "annotations", **options)
    exported = export(client, first, "YOLO", tmp_path / "export")
    back = run_json("register", photos, "-p", str(second), "--labels", exported, "--as", "annotations", **options)

    count = sum(map(len, truth.values()))
    assert (told["labelled"], told["boxes"], told["changed"]) == (87, count, {})
    assert (back["labelled"], back["boxes"], back["changed"]) == (87, count, {})
    for project in (first, second):
        stored = regions_by_name(client, project)
        assert stored.keys() == truth.keys()
        for name, regions in stored.items():
            assert [region["value"]["rectanglelabels"] for region in regions] == [[label] for label, _ in truth[name]]
            wanted = [box for _, box in truth[name]]
            np.testing.assert_allclose([xyxy_of(region) for region in regions], wanted, atol=1)


def test_dota8_as_rotated_boxes(
    client: StudioClient, command_environment: dict[str, str], data: Path, tmp_path: Path
) -> None:
    """Its corners are nearly rectangles: what Ultralytics makes of them is what is stored."""
    from ultralytics.utils.ops import xyxyxyxy2xywhr

    options: Any = {"environment": command_environment, "cwd": tmp_path}
    lines, sizes, names = lines_of(data / "dota8"), sizes_of(data / "dota8"), names_of(data / "dota8")
    config = config_of("RectangleLabels", labels_in(lines, names))
    first, second = (client.create_project(f"dota8 {name}", config) for name in ("from", "to"))
    images = data / "dota8" / "images"

    told = run_json("register", images, "-p", str(first), "--labels", images.parent, "--as", "annotations", **options)
    exported = export(client, first, "YOLO_OBB", tmp_path / "export")
    run_json("register", images, "-p", str(second), "--labels", exported, "--as", "annotations", **options)

    assert (told["labelled"], told["odd"]) == (8, [])
    stored, back = (regions_by_name(client, project) for project in (first, second))
    compared = 0
    for name, regions in stored.items():
        size = np.array(sizes[name])
        assert len(regions) == len(lines[name])
        for region, other, line in zip(regions, back[name], lines[name], strict=True):
            assert region["value"]["rectanglelabels"] == other["value"]["rectanglelabels"] == [names[int(line[0])]]
            points = (np.array(line[1:9]).reshape(4, 2) * size).astype(np.float32)
            wanted = sorted(corners_of_box(tuple(xyxyxyxy2xywhr(points.reshape(1, 8))[0].tolist())))
            np.testing.assert_allclose(hull(other), hull(region), atol=1)
            if region["value"]["rotation"]:  # those at the edge are upright, and told
                compared += 1
                assert nearest(corners(region), wanted) <= 1
                assert nearest(corners(other), corners(region)) <= 1
    assert compared > 100


def hull(region: dict[str, Any]) -> list[float]:
    """The upright box around a rectangle's corners."""
    xs, ys = zip(*corners(region), strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def nearest(points: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """How far the furthest point is from the nearest of the others."""
    distances = np.linalg.norm(np.array(points)[:, None] - np.array(others)[None], axis=2)
    return float(distances.min(axis=1).max())


def test_coco8_seg_as_polygons(
    client: StudioClient, command_environment: dict[str, str], data: Path, tmp_path: Path
) -> None:
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    lines, sizes, names = lines_of(data / "coco8-seg"), sizes_of(data / "coco8-seg"), names_of(data / "coco8-seg")
    config = config_of("PolygonLabels", labels_in(lines, names))
    first, second = (client.create_project(f"coco8-seg {name}", config) for name in ("from", "to"))
    images = data / "coco8-seg" / "images"

    told = run_json("register", images, "-p", str(first), "--labels", images.parent, "--as", "annotations", **options)
    exported = export(client, first, "YOLO", tmp_path / "export")
    run_json("register", images, "-p", str(second), "--labels", exported, "--as", "annotations", **options)

    assert (told["labelled"], told["odd"]) == (8, [])
    for project in (first, second):
        for name, regions in regions_by_name(client, project).items():
            assert len(regions) == len(lines[name])
            for region, line in zip(regions, lines[name], strict=True):
                assert region["value"]["polygonlabels"] == [names[int(line[0])]]
                points = np.array(region["value"]["points"]) / 100 * sizes[name]
                np.testing.assert_allclose(points, np.array(line[1:]).reshape(-1, 2) * sizes[name], atol=1)


def test_coco8_pose_as_key_points(
    client: StudioClient, command_environment: dict[str, str], data: Path, tmp_path: Path
) -> None:
    """Label Studio's COCO has all points of an image as those of one person; its JSON keeps them apart."""
    options: Any = {"environment": command_environment, "cwd": tmp_path}
    lines, sizes = lines_of(data / "coco8-pose"), sizes_of(data / "coco8-pose")
    listed = "".join(
        f'<Label value="point {number}" predicted_values="person" model_index="{number}"/>' for number in range(17)
    )
    config = (
        f'<View><Image name="image" value="$image"/><KeyPointLabels name="points" toName="image">{listed}'
        '</KeyPointLabels><RectangleLabels name="points_bbox" toName="image"><Label value="person"/></RectangleLabels>'
        "</View>"
    )
    first, second = (client.create_project(f"coco8-pose {name}", config) for name in ("from", "to"))
    images = data / "coco8-pose" / "images"

    told = run_json("register", images, "-p", str(first), "--labels", images.parent, "--as", "annotations", **options)
    exported = export(client, first, "JSON", tmp_path / "export") / "export.json"
    run_json("register", images, "-p", str(second), "--labels", exported, "--as", "annotations", **options)

    assert (told["labelled"], told["odd"], told["changed"]) == (8, [], {})
    stored, back = (regions_by_name(client, project) for project in (first, second))
    assert without_origin(back) == without_origin(stored)
    for name, regions in stored.items():
        width, height = sizes[name]
        points = [region for region in regions if region["type"] == "keypointlabels"]
        boxes = [region for region in regions if region["type"] == "rectanglelabels"]
        wanted: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for line in lines[name]:
            for number in range(17):
                x, y, visible = line[5 + number * 3 : 8 + number * 3]
                if visible:
                    wanted[f"point {number}"].append((x * width, y * height))
        assert len(boxes) == len(lines[name])
        assert len(points) == sum(map(len, wanted.values()))
        for label, places in wanted.items():
            found = [
                (region["value"]["x"] / 100 * width, region["value"]["y"] / 100 * height)
                for region in points
                if region["value"]["keypointlabels"] == [label]
            ]
            np.testing.assert_allclose(sorted(found), sorted(places), atol=1)
        assert len({region["id"] for region in regions}) == len(regions)
