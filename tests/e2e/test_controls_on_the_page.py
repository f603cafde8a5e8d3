"""Each control in Label Studio's own page: it shows what real weights found, where they found it, to be submitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray
from PIL import Image

from tests.harness.browser import StudioBrowser
from tests.harness.control_examples import EXAMPLES, SIZE_WH, Example, settings
from tests.harness.shapes import CLASS_NAMES, Shapes, draw_shapes
from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import StudioClient, uploaded_name

Bitmap = NDArray[np.bool_]
Region = Mapping[str, Any]

WIDTH, HEIGHT = SIZE_WH
OF_IMAGES = ("choices", "taxonomy", "number")
SHAPES = [example for example in EXAMPLES if example.name not in OF_IMAGES]
_OTHERWISE_PAINTED = {"rectangles", "polygons", "masks"}  # the others, as one of these
# The page enlarges the image a little beyond its frame, and a toolbar is over its right side.
SEEN = np.s_[: HEIGHT * 15 // 16, : WIDTH * 29 // 32]
BESIDE = 5  # in percent of the image

# Before the fixtures that take a minute to start.
pytestmark = pytest.mark.usefixtures("chromium")


@pytest.fixture(scope="module")
def server(command_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendServer]:
    """A backend with weights of four kinds."""
    log = tmp_path_factory.mktemp("server") / "backend.log"
    with backend_server(pick_port(0), command_environment | settings(), log) as server:
        wait_until_ready(server.url)
        yield server


def scene_of(example: Example) -> Shapes:
    return draw_shapes(example.scene, SIZE_WH, most=example.most)


def uploaded(client: StudioClient, paths: list[Path]) -> list[str]:
    """Label Studio's addresses of files, in their order: uploads of another project."""
    project = client.create_project("uploads")
    client.upload(project, paths)
    address_of = {uploaded_name(task): str(task["data"]["image"]) for task in client.tasks(project)}
    return [address_of[path.name] for path in paths]


def opened(
    client: StudioClient, browser: StudioBrowser, server: BackendServer, config: str, data: dict[str, Any]
) -> tuple[int, list[dict[str, Any]]]:
    """A project whose only task is predicted by a click and then opened; the regions that are stored."""
    project = client.create_project("controls", config)
    client.import_tasks(project, [{"data": data}])
    client.connect(project, server.url)
    assert browser.retrieve_predictions(project).json()["detail"] == "Retrieved 1 predictions"
    (task,) = client.tasks(project)
    (prediction,) = task["predictions"]
    assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
    browser.open_task_of(project, task["id"])
    browser.page.mouse.move(0, 0)
    regions: list[dict[str, Any]] = prediction["result"]
    browser.page.wait_for_function(f"() => Htx.annotationStore.selected?.results.length === {len(regions)}")
    return project, regions


def opened_example(
    client: StudioClient, browser: StudioBrowser, server: BackendServer, folder: Path, example: Example
) -> tuple[int, list[dict[str, Any]]]:
    example.save_scene(folder / f"{example.name}.png")
    (address,) = uploaded(client, [folder / f"{example.name}.png"])
    project, regions = opened(client, browser, server, example.config, {"image": address})
    browser.keep_picture(example.name)
    return project, regions


def assert_submitted(client: StudioClient, browser: StudioBrowser, project: int, regions: Sequence[Region]) -> None:
    """What a person submits who changes nothing is what was predicted, but for places, which the browser rounds."""
    browser.submit()
    (task,) = client.tasks(project)
    (annotation,) = task["annotations"]
    assert sorted(map(facts, annotation["result"]), key=str) == sorted(map(facts, regions), key=str)


def facts(region: Region) -> tuple[Any, ...]:
    names = ("id", "type", "from_name", "to_name", "parentID", "item_index")
    return (*(region.get(name) for name in names), region["value"][region["type"]])


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=example.name, marks=[] if example.name in _OTHERWISE_PAINTED else pytest.mark.proof)
        for example in SHAPES
    ],
)
def test_what_the_page_paints_is_where_it_was_found(
    client: StudioClient, browser: StudioBrowser, server: BackendServer, tmp_path: Path, example: Example
) -> None:
    project, regions = opened_example(client, browser, server, tmp_path, example)
    shapes = [region for region in regions if region["type"] != "keypointlabels"]
    assert len(shapes) >= 2
    for region in shapes:
        assert share_found(region, scene_of(example)) > 0.7
    expected = np.any([pixels_of(region) for region in shapes], axis=0)
    painted = browser.painted_by(shapes[0]["from_name"], SIZE_WH)
    assert iou_of(painted[SEEN], expected[SEEN]) > 0.95
    assert_submitted(client, browser, project, regions)


def test_each_key_point_is_painted_where_it_was_found(
    client: StudioClient, browser: StudioBrowser, server: BackendServer, tmp_path: Path
) -> None:
    (example,) = (example for example in EXAMPLES if example.name == "points")
    _, regions = opened_example(client, browser, server, tmp_path, example)
    points = [region for region in regions if region["type"] == "keypointlabels"]
    boxes = {region["id"]: region for region in regions if region["type"] == "rectanglelabels"}
    assert len(points) == 3 * len(boxes) >= 6
    for point in points:
        place, box = point["value"], boxes[point["parentID"]]["value"]
        for name, size in (("x", "width"), ("y", "height")):  # the weights put some a little beside their box
            assert box[name] - BESIDE <= place[name] <= box[name] + box[size] + BESIDE
    painted = browser.painted_by("keypoints", SIZE_WH)
    discs = np.any([pixels_of(point, grown_px=4) for point in points], axis=0)
    assert not (painted & ~discs)[SEEN].any()
    for point in points:
        assert painted[pixels_of(point)].mean() > 0.8
    # In the Regions panel each point is below its box.
    shown = browser.page.evaluate("Htx.annotationStore.selected.regions.map(r => [r.cleanId, r.parentID])")
    parents = {id_.split("#")[0]: str(parent or "").split("#")[0] for id_, parent in shown}
    assert parents == {region["id"]: region.get("parentID", "") for region in regions}


def test_choices_taxonomies_and_numbers_are_shown(
    client: StudioClient, browser: StudioBrowser, server: BackendServer, tmp_path: Path
) -> None:
    for example in EXAMPLES:
        if example.name not in OF_IMAGES:
            continue
        project, regions = opened_example(client, browser, server, tmp_path, example)
        things = [CLASS_NAMES[thing.class_id] for thing in scene_of(example).things]
        if example.name == "choices":
            assert checked(browser) == things
        elif example.name == "taxonomy":
            assert in_the_taxonomy(browser) == things
        else:
            assert numbers(browser) == [str(region["value"]["number"]) for region in regions] == ["2", "3"]
        assert_submitted(client, browser, project, regions)


@pytest.mark.proof
@pytest.mark.parametrize("per_item", [True, False], ids=["perItem", "one for all"])
def test_of_several_images_each_has_its_own_or_all_have_one(
    client: StudioClient, browser: StudioBrowser, server: BackendServer, tmp_path: Path, per_item: bool
) -> None:
    """Scenes with one ring, with one bar, and with two bars and a ring."""
    pages = [tmp_path / f"page-{number}.png" for number in range(3)]
    for path, (seed, most) in zip(pages, ((8, 1), (1, 1), (7, 4)), strict=True):
        Image.fromarray(draw_shapes(seed, SIZE_WH, most=most).image).save(path)
    controls = "".join(
        next(each for each in EXAMPLES if each.name == name).controls
        for name in ("choices", "taxonomy", "number", "points")
    )
    if per_item:
        controls = controls.replace("toName", 'perItem="true" toName')
    config = f'<View><Image name="image" valueList="$images"/>{controls}</View>'
    project, regions = opened(client, browser, server, config, {"images": uploaded(client, pages)})
    shown = []
    for page in range(3):
        shown.append((checked(browser), in_the_taxonomy(browser), numbers(browser)))
        points = [each for each in regions if each["type"] == "keypointlabels" and each["item_index"] == page]
        painted = browser.painted_by("keypoints", SIZE_WH)
        assert points
        assert all(painted[pixels_of(point)].mean() > 0.8 for point in points)
        browser.keep_picture(f"page-{page}")
        if page < 2:
            browser.turn_the_page()
    if per_item:
        assert shown[:2] == [(["ring"], ["ring"], ["0", "1"]), (["bar"], ["bar"], ["1", "1"])]
        assert shown[2][2] == ["2", "3"]
    else:
        assert shown == [(["ring"], ["ring"], ["3", "5"])] * 3
    assert_submitted(client, browser, project, regions)


def checked(browser: StudioBrowser) -> list[str]:
    """The names of the choices with a tick."""
    return list(browser.page.evaluate("[...document.querySelectorAll('.ant-checkbox-input:checked')].map(i => i.name)"))


def in_the_taxonomy(browser: StudioBrowser) -> list[str]:
    return browser.page.locator(".lsf-taxonomy .ant-select-selection-item-content").all_inner_texts()


def numbers(browser: StudioBrowser) -> list[str]:
    fields = browser.page.locator(".lsf-main-view__annotation input[type=number]").all()
    return [field.input_value() for field in fields]


def share_found(region: Region, scene: Shapes) -> float:
    """How much is within a region of that thing with its label of which most is."""
    (label,) = region["value"][region["type"]]
    within = pixels_of(region)
    things = [thing for thing in scene.things if CLASS_NAMES[thing.class_id] == label]
    return max((float(within[thing.mask].mean()) for thing in things), default=0.0)


def iou_of(one: Bitmap, other: Bitmap) -> float:
    return float((one & other).sum() / (one | other).sum())


def pixels_of(region: Region, grown_px: int = 0) -> Bitmap:
    """The pixels of the image that a region is about; of a key point its disc, which may be grown."""
    value, canvas = region["value"], np.zeros((HEIGHT, WIDTH), np.uint8)
    if "rle" in value:
        return np.asarray(brush.decode_rle(value["rle"]).reshape(HEIGHT, WIDTH, 4)[:, :, 3] > 127)
    if "points" in value:
        corners = np.array(value["points"]) * SIZE_WH / 100
    elif "radiusX" in value:
        center = (value["x"] * WIDTH / 100, value["y"] * HEIGHT / 100)
        sizes = (value["radiusX"] * WIDTH / 50, value["radiusY"] * HEIGHT / 50)
        cv2.ellipse(canvas, (center, sizes, value["rotation"]), 1, -1)
        return canvas.astype(np.bool_)
    elif "height" in value:
        turn = np.radians(value["rotation"])
        along, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        across, deep = along * value["width"] * WIDTH / 100, down * value["height"] * HEIGHT / 100
        corners = np.array([value["x"] * WIDTH, value["y"] * HEIGHT]) / 100 + [[0, 0], across, across + deep, deep]
    else:
        place = (round(value["x"] * WIDTH / 100), round(value["y"] * HEIGHT / 100))
        cv2.circle(canvas, place, round(value["width"] * WIDTH / 100) + grown_px, 1, -1)
        return canvas.astype(np.bool_)
    cv2.fillPoly(canvas, [np.round(corners - 0.5).astype(np.int32)], 1)
    return canvas.astype(np.bool_)
