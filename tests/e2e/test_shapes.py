"""Polygons, masks and ellipses in a real Label Studio: stored as they are sent, and exported as what was found."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from label_studio_sdk.converter import brush
from numpy.typing import NDArray
from PIL import Image

from tests.harness.browser import StudioBrowser, studio_browser
from tests.harness.command import run_command, run_json
from tests.harness.http_server import ServedFolder
from tests.harness.stack import LabelStudioServer
from tests.harness.studio_client import StudioClient
from yolo_backend.detection.detections import Detections
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.outlines import is_simple, mask_of
from yolo_backend.labels.regions import count_boxes, make_regions, task_score

SIZE_WH = (250, 170)
SHAPES = ("Polygon", "Brush", "Ellipse")
Bitmap = NDArray[np.bool_]


def config(shape: str, attributes: str = "", *, apart: bool = False, labels: Sequence[str] = ("car",)) -> str:
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    tags = (
        f'<Labels name="kind" toName="image">{inside}</Labels><{shape} name="place" toName="image" {attributes}/>'
        if apart
        else f'<{shape}Labels name="kind" toName="image" {attributes}>{inside}</{shape}Labels>'
    )
    return f'<View><Image name="image" value="$image"/>{tags}</View>'


def things() -> list[Bitmap]:
    """A turned ellipse, one at the image's edge, and one in two parts with a hole in the larger one."""
    pictures = [np.zeros(SIZE_WH[::-1], np.uint8) for _ in range(3)]
    cv2.ellipse(pictures[0], (70, 60), (50, 25), 30, 0, 360, 1, -1)
    cv2.circle(pictures[1], (235, 20), 40, 1, -1)
    cv2.ellipse(pictures[2], (150, 120), (60, 40), 0, 0, 360, 1, -1)
    cv2.circle(pictures[2], (160, 120), 12, 0, -1)
    cv2.circle(pictures[2], (20, 150), 12, 1, -1)
    return [picture.astype(np.bool_) for picture in pictures]


def found() -> Detections:
    """These things, with masks in windows as small as they are."""
    masks, boxes = [], []
    for bitmap in things():
        rows, columns = np.nonzero(bitmap)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        masks.append(Mask.of_bitmap(bitmap[top:bottom, left:right], (int(left), int(top))))
        boxes.append([left, top, right, bottom])
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    return Detections(np.array(boxes, np.float32), scores, np.zeros(3, np.int64), masks=tuple(masks))


def predicted(label_config: str) -> dict[str, Any]:
    (control,) = parse_labeling_config(label_config).controls
    regions = make_regions(found(), control, map_labels(control, {0: "car"}, 0.25), SIZE_WH, None)
    return {"result": regions, "score": task_score(regions), "model_version": "shapes"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey image."""
    path = tmp_path_factory.mktemp("image") / "shapes.png"
    Image.new("RGB", SIZE_WH, (90, 90, 90)).save(path)
    return path


def stored(client: StudioClient, image: Path, label_config: str) -> tuple[int, int, list[Any]]:
    """A new project, its only task, and the regions of its prediction as Label Studio has stored them."""
    project = client.create_project("shapes", label_config)
    client.upload(project, [image])
    (task,) = client.tasks(project)
    body = [{"task": task["id"], **predicted(label_config)}]
    answer = client.call("POST", f"/api/projects/{project}/import/predictions", json=body)
    assert answer["created"] == 1
    ((prediction,),) = client.predictions(project).values()
    assert prediction["result"] == json.loads(json.dumps(body[0]["result"]))
    return project, int(task["id"]), prediction["result"]


def check(regions: Sequence[Mapping[str, Any]]) -> None:
    """What Label Studio's own judge lets pass, and its page wouldn't show."""
    ids = {(region["id"], region["type"]) for region in regions}
    assert len(ids) == len(regions)
    for region in regions:
        value = region["value"]
        assert (region["original_width"], region["original_height"]) == SIZE_WH
        if "points" in value:
            points = np.array(value["points"])
            assert len(points) >= 3
            assert points.min() >= 0
            assert points.max() <= 100
            assert is_simple(points)
        elif "rle" in value:
            assert len(brush.decode_rle(value["rle"])) == 4 * SIZE_WH[0] * SIZE_WH[1]
        else:
            assert all(0 < value[radius] <= 50 for radius in ("radiusX", "radiusY"))
            assert all(0 <= value[key] <= 100 for key in ("x", "y"))


def filled(points: Sequence[float]) -> Bitmap:
    """The pixels within a polygon x, y, x, y ... of the image's pixels."""
    mask = mask_of(np.array(points).reshape(-1, 2), SIZE_WH)
    left, top, width, height = mask.window_xywh
    image = np.zeros(SIZE_WH[::-1], np.bool_)
    image[top : top + height, left : left + width] = mask.bitmap()
    return image


def is_within_a_pixel(one: Bitmap, other: Bitmap) -> bool:
    """Returns True if each has no pixel that is further than one from the other."""
    near = np.ones((3, 3), np.uint8)
    return not any(
        (each & ~cv2.dilate(another.astype(np.uint8), near).astype(np.bool_)).any()
        for each, another in ((one, other), (other, one))
    )


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_stored_as_they_are_sent(client: StudioClient, image: Path, shape: str, apart: bool) -> None:
    for attributes in ("", 'model_parts="all"')[: 2 if shape == "Polygon" else 1]:
        _, _, regions = stored(client, image, config(shape, attributes, apart=apart))
        check(regions)
        assert count_boxes(regions) == 3
        assert len(regions) == (1 + apart) * (4 if attributes else 3)


def test_polygons_come_back_out_of_exports_within_a_pixel(client: StudioClient, image: Path) -> None:
    """With a tolerance of half a pixel; what is simplified further is held to its IoU by other tests."""
    attributes = 'model_parts="all" model_polygon_tolerance="0.5"'
    project, task_id, regions = stored(client, image, config("Polygon", attributes))
    client.annotate(task_id, regions)
    expected = things()

    with zipfile.ZipFile(io.BytesIO(client.export(project, "COCO"))) as archive:
        coco = json.loads(archive.read("result.json"))
    of_coco = [filled(annotation["segmentation"][0]) for annotation in coco["annotations"]]
    with zipfile.ZipFile(io.BytesIO(client.export(project, "YOLO"))) as archive:
        (name,) = (name for name in archive.namelist() if name.startswith("labels/") and name.endswith(".txt"))
        lines = archive.read(name).decode().splitlines()
    numbers = [np.array(line.split()[1:], np.float64).reshape(-1, 2) * SIZE_WH for line in lines]
    of_yolo = [filled(points.ravel().tolist()) for points in numbers]

    for exported in (of_coco, of_yolo):
        assert len(exported) == 4
        first, second, larger_part, smaller_part = exported
        assert is_within_a_pixel(first, expected[0])
        assert is_within_a_pixel(second, expected[1])
        both = expected[2].copy()
        cv2.circle(whole := both.astype(np.uint8), (160, 120), 13, 1, -1)  # a polygon has no hole
        assert is_within_a_pixel(larger_part | smaller_part, whole.astype(np.bool_))
        assert not (larger_part & smaller_part).any()


@pytest.mark.parametrize("apart", [False, True])
def test_masks_come_back_out_of_an_export_pixel_by_pixel(client: StudioClient, image: Path, apart: bool) -> None:
    project, task_id, regions = stored(client, image, config("Brush", apart=apart))
    client.annotate(task_id, regions)
    with zipfile.ZipFile(io.BytesIO(client.export(project, "BRUSH_TO_PNG"))) as archive:
        pictures = {name: archive.read(name) for name in archive.namelist()}
    exported = [np.asarray(Image.open(io.BytesIO(content))) > 127 for content in pictures.values()]
    for thing in things():
        assert any(np.array_equal(thing, picture) for picture in exported), sorted(pictures)


@pytest.mark.parametrize("apart", [False, True])
def test_ellipses_of_real_weights_are_stored_and_drawn(
    client: StudioClient,
    image_server: ServedFolder,
    bccd_files: list[Path],
    command_environment: dict[str, str],
    tmp_path: Path,
    apart: bool,
) -> None:
    (image_server.path / "cells.jpg").write_bytes(bccd_files[0].read_bytes())
    classes = ("RBC", "WBC", "Platelets")
    project = client.create_project("ellipses of cells", config("Ellipse", apart=apart, labels=classes))
    client.import_tasks(project, [{"data": {"image": f"{image_server.url}/cells.jpg"}}])
    environment = command_environment | {"ENGINE": "torch", "MODEL_IMAGE_SIZE": "320"}

    report = run_json("prelabel", "-p", str(project), "--out", tmp_path / "out", environment=environment, cwd=tmp_path)

    assert (report["predicted"], report["stored"], report["failed"]) == (1, 1, [])
    ((prediction,),) = client.predictions(project).values()
    assert count_boxes(prediction["result"]) * (1 + apart) == len(prediction["result"]) > 5
    (picture,) = (tmp_path / "out").iterdir()
    with Image.open(picture) as drawn, Image.open(bccd_files[0]) as photo:
        difference = np.abs(np.asarray(drawn).astype(int) - np.asarray(photo.convert("RGB"))).max(axis=2)
    for region in prediction["result"]:
        value = region["value"]
        x, y = round((value["x"] + value["radiusX"]) / 100 * 640), round(value["y"] / 100 * 480)
        assert difference[max(0, y - 2) : y + 3, max(0, x - 3) : x + 3].max() > 40


@pytest.mark.parametrize(("shape", "wanted"), [("Polygon", "segmentation or OBB weights"), ("Brush", "segmentation")])
def test_weights_that_find_no_masks_are_told(
    client: StudioClient,
    command_environment: dict[str, str],
    tmp_path: Path,
    shape: str,
    wanted: str,
) -> None:
    project = client.create_project("no masks", config(shape, labels=("RBC",)))
    client.import_tasks(project, [{"data": {"image": "http://127.0.0.1:9/a.jpg"}}])
    done = run_command("check", "-p", str(project), environment=command_environment, cwd=tmp_path)
    assert done.returncode == 1
    assert wanted in " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def browser(chromium: Path, label_studio: LabelStudioServer) -> Iterator[StudioBrowser]:
    """A browser with someone logged in."""
    with studio_browser(label_studio, chromium, "shapes") as browser:
        yield browser


def shown_on_the_page(browser: StudioBrowser, project: int, task: int, regions: int) -> Bitmap:
    """Which pixels of the image the page paints over, seen by their color; the image is grey."""
    browser.open_task_of(project, task)
    tab = browser.page.locator(".lsf-annotation-button", has=browser.page.locator("[class*=userpic_prediction]"))
    tab.click()
    browser.page.mouse.move(0, 0)
    browser.page.wait_for_function(f"() => Htx.annotationStore.selected?.regions.length === {regions}")
    browser.page.wait_for_timeout(1000)  # masks are decoded and painted after that
    browser.keep_picture(f"project-{project}")
    pixels = browser.picture_of_image(SIZE_WH)
    painted: Bitmap = np.ptp(pixels, axis=2) > 12
    return painted


@pytest.mark.parametrize("shape", SHAPES)
def test_the_page_paints_them_where_they_were_found(
    client: StudioClient, image: Path, browser: StudioBrowser, shape: str
) -> None:
    project, task_id, regions = stored(client, image, config(shape, 'model_parts="all"'))
    painted = shown_on_the_page(browser, project, task_id, len(regions))
    expected = np.zeros(SIZE_WH[::-1], np.bool_)
    for thing, region in zip(things(), (each for each in regions if "parentID" not in each), strict=True):
        expected |= thing if shape != "Ellipse" else ellipse_of(region)
    if shape == "Polygon":
        cv2.circle(filled_hole := expected.astype(np.uint8), (160, 120), 13, 1, -1)
        expected = filled_hole.astype(np.bool_)
    # The page enlarges the image a little beyond its frame, and a toolbar is over its right side.
    seen = np.s_[:160, :228]
    painted, expected = painted[seen], expected[seen]
    assert (painted & expected).sum() / (painted | expected).sum() > 0.94  # simplifying takes 2 %


def ellipse_of(region: Mapping[str, Any]) -> Bitmap:
    value, (width, height) = region["value"], SIZE_WH
    rows, columns = np.mgrid[:height, :width] + 0.5
    across = (columns / width * 100 - value["x"]) / value["radiusX"]
    down = (rows / height * 100 - value["y"]) / value["radiusY"]
    return np.asarray(across**2 + down**2 <= 1)
