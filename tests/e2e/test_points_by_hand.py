"""Boxes and key points that a person draws in Label Studio's own page, as the trainer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.harness.browser import StudioBrowser
from tests.harness.studio_client import StudioClient
from yolo_backend.training.annotations import regions_by_image
from yolo_backend.training.labelled import LabelledBox
from yolo_backend.training.poses import IN_SEVERAL, read_poses
from yolo_backend.training.snapshot import trained_controls

# Before the fixtures that take a minute to start.
pytestmark = pytest.mark.usefixtures("chromium")

SIZE_WH = (320, 240)
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="kp_bbox" toName="image"><Label value="dog"/></RectangleLabels>
<KeyPointLabels name="kp" toName="image"><Label value="nose" model_index="0"/><Label value="tail" model_index="1"/>
</KeyPointLabels></View>"""
BOXES = {"left": (10, 20, 40, 50), "right": (40, 30, 35, 50)}  # in percent, and they overlap
NOSE_OF_RIGHT, TAIL_OF_LEFT = (45, 40), (20, 60)


def drag(browser: StudioBrowser, start: tuple[float, float], end: tuple[float, float]) -> None:
    mouse = browser.page.mouse
    mouse.move(*start)
    mouse.down()
    for part in (0.2, 0.5, 0.8, 1, 1):
        browser.page.wait_for_timeout(100)
        mouse.move(*(a + part * (b - a) for a, b in zip(start, end, strict=True)))
    browser.page.wait_for_timeout(100)
    mouse.up()


def choose(browser: StudioBrowser, label: str) -> None:
    """With no region selected, because that one would get the label."""
    browser.page.evaluate("Htx.annotationStore.selected.unselectAreas()")
    browser.page.locator(".lsf-label", has_text=label).first.click()


def drawn_regions(browser: StudioBrowser, count: int) -> None:
    browser.page.wait_for_function(f"() => Htx.annotationStore.selected?.regions.length === {count}")


def entry(browser: StudioBrowser, number: int) -> tuple[float, float]:
    """An entry of the Regions panel, by its number from the top."""
    place = browser.page.locator(".lsf-outliner-item").nth(number).bounding_box()
    assert place
    return place["x"] + 60, place["y"] + place["height"] / 2


@pytest.mark.proof
def test_points_that_are_dragged_below_their_box_belong_to_it(
    client: StudioClient, browser: StudioBrowser, tmp_path: Path
) -> None:
    project = client.create_project("points by hand", CONFIG)
    Image.fromarray(np.full((SIZE_WH[1], SIZE_WH[0], 3), 90, np.uint8)).save(tmp_path / "grey.png")
    client.upload(project, [tmp_path / "grey.png"])
    (task,) = client.tasks(project)
    browser.open_task_of(project, task["id"])
    for number, (x, y, width, height) in enumerate(BOXES.values(), 1):
        choose(browser, "dog")
        # From the bottom right: a corner that lies in the other box would move that one.
        drag(
            browser,
            browser.point_of(x + width * (number - 1), y + height),
            browser.point_of(x + width * (2 - number), y),
        )
        drawn_regions(browser, number)
    for number, (label, place) in enumerate((("nose", NOSE_OF_RIGHT), ("tail", TAIL_OF_LEFT)), 3):
        choose(browser, label)
        browser.page.keyboard.down("Control")  # else the box that it is clicked on would be selected
        browser.page.mouse.click(*browser.point_of(*place))
        browser.page.keyboard.up("Control")
        drawn_regions(browser, number)
    browser.keep_picture("drawn")
    browser.submit()
    left, right, faults = as_read(client, project)
    assert faults == (IN_SEVERAL,), "the nose"
    check_points(left, None, TAIL_OF_LEFT)
    check_points(right, None, None)

    browser.open_task_of(project, task["id"])
    drawn_regions(browser, 4)
    entries = browser.page.locator(".lsf-outliner-item__title").all_inner_texts()
    assert entries == ["dog", "dog", "nose", "tail"]
    drag(browser, entry(browser, 2), entry(browser, 1))
    browser.page.wait_for_function("() => Htx.annotationStore.selected.regions.some(region => region.parentID)")
    browser.keep_picture("below")
    with browser.page.expect_response(lambda answer: answer.request.method == "PATCH"):
        browser.page.get_by_text("Update", exact=True).click()
    left, right, faults = as_read(client, project)
    assert faults == ()
    check_points(left, None, TAIL_OF_LEFT)
    check_points(right, NOSE_OF_RIGHT, None)


def as_read(client: StudioClient, project: int) -> tuple[LabelledBox, LabelledBox, tuple[str, ...]]:
    """The left box and the right one as they are stored, and what is wrong with points."""
    (task,) = client.tasks(project)
    (annotation,) = task["annotations"]
    found: Any = regions_by_image(annotation, trained_controls(CONFIG, "pose"))["image", 0]
    drawn = read_poses(found, SIZE_WH)
    assert drawn.faults == ()
    boxes = sorted(drawn.boxes, key=lambda box: box.box_xyxy[0])
    for box, (x, y, width, height) in zip(boxes, BOXES.values(), strict=True):
        place = (*in_pixels((x, y)), *in_pixels((x + width, y + height)))
        assert box.box_xyxy == pytest.approx(place, abs=1), "a pixel of the page is less than one of the image"
    left, right = boxes
    return left, right, drawn.point_faults


def check_points(box: LabelledBox, *places: tuple[float, float] | None) -> None:
    """Within half a pixel, which is as exact as the page's own are."""
    assert len(box.points) == len(places)
    for point, place in zip(box.points, places, strict=True):
        assert point == (place and pytest.approx(in_pixels(place), abs=0.5))


def in_pixels(place: tuple[float, float]) -> tuple[float, float]:
    return place[0] * SIZE_WH[0] / 100, place[1] * SIZE_WH[1] / 100
