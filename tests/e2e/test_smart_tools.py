"""Smart tools as a person uses them, on Label Studio's own page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from tests.harness.browser import Box, StudioBrowser
from tests.harness.stack import BackendServer
from tests.harness.studio_client import StudioClient

CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image" smart="true">
<Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/></RectangleLabels></View>"""

pytestmark = pytest.mark.usefixtures("chromium")


@pytest.fixture
def project(client: StudioClient, backend: BackendServer, bccd_files: list[Path]) -> int:
    """A project with one photograph, and no prediction in it."""
    project = client.create_project("smart tools", CONFIG)
    client.call("PATCH", f"/api/projects/{project}/", json={"show_collab_predictions": False})
    client.upload(project, bccd_files[2:3])  # four cells stand free in it
    client.connect(project, backend.url)
    return project


@pytest.fixture
def task(client: StudioClient, project: int) -> int:
    (task,) = client.tasks(project)
    return int(task["id"])


@pytest.fixture
def found(client: StudioClient, backend: BackendServer, project: int, task: int) -> list[dict[str, Any]]:
    """The regions of the whole photograph, which aren't stored: asked for in the name of no project."""
    body = {"tasks": client.tasks(project), "project": "0.1", "label_config": CONFIG}
    results = requests.post(f"{backend.url}/predict", json=body, timeout=60).json()["results"]
    return list(results[0]["result"])


@pytest.fixture
def cells(found: list[dict[str, Any]]) -> list[Box]:
    """Three red cells in the middle that can be drawn around without beginning in the box of another."""
    boxes = [place_of(region) for region in found]
    cells = [
        (x, y, width, height)
        for region, (x, y, width, height) in zip(found, boxes, strict=True)
        if region["value"]["rectanglelabels"] == ["RBC"] and min(x, y) > 5 and max(x + width, y + height) < 90
    ]
    free = [
        [*cell] for cell in cells if not any(is_in(box, corner_of([*cell], by)) for box in boxes for by in (1, 1.5))
    ]
    assert len(free) >= 3, boxes
    return free[:3]


def place_of(region: dict[str, Any]) -> Box:
    return [region["value"][key] for key in ("x", "y", "width", "height")]


def corner_of(box: Box, by: float = 1.0) -> tuple[float, float]:
    return box[0] - by, box[1] - by


def is_in(box: Box, point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[0] + box[2] and box[1] <= point[1] <= box[1] + box[3]


def around(box: Box, by: float = 1.0) -> Box:
    """As a person draws it: begun a little outside."""
    return [*corner_of(box, by), box[2] + by, box[3] + by]


def same(*boxes: Box) -> list[Any]:
    return [pytest.approx(box, abs=0.01) for box in boxes]


def test_a_rectangle_brings_one_box_to_be_ticked_and_none_twice(
    browser: StudioBrowser, project: int, task: int, cells: list[Box]
) -> None:
    first, second, third = cells
    browser.open_task_of(project, task)
    assert browser.boxes_on_the_page() == ([], [], [])
    browser.take_the_smart_tool(auto_accept=False)

    browser.draw("RBC", around(first))
    browser.keep_picture("one-suggestion")
    assert browser.boxes_on_the_page()[1] == same(first)
    browser.draw("RBC", around(second))
    browser.keep_picture("two-suggestions")
    assert browser.boxes_on_the_page()[1] == same(first, second), "the page drops the first for the second answer"
    browser.accept(first)
    assert browser.boxes_on_the_page()[:2] == (same(first), same(second))

    assert [place_of(region) for region in browser.draw("RBC", around(third))] == same(second, third)
    browser.keep_picture("accepted-and-two-suggestions")
    browser.accept(second)
    browser.accept(third)
    boxes, suggestions, drawn = browser.boxes_on_the_page()
    assert (boxes, suggestions, len(drawn)) == (same(first, second, third), [], 3)
    assert browser.draw("RBC", around(second, 1.5)) == []
    assert browser.draw("Platelets", around(third, 1.5)) == []
    assert browser.boxes_on_the_page()[:2] == (same(first, second, third), [])


@pytest.mark.proof
def test_with_auto_accept_a_rectangle_becomes_its_box(
    browser: StudioBrowser, project: int, task: int, cells: list[Box]
) -> None:
    first, second, third = cells
    browser.open_task_of(project, task)
    browser.take_the_smart_tool(auto_accept=True)

    browser.draw("RBC", around(first))
    assert browser.boxes_on_the_page() == (same(first), [], [])
    browser.draw("RBC", around(second))
    browser.keep_picture("two-boxes")
    assert browser.boxes_on_the_page() == (same(first, second), [], [])
    for again in (first, second):  # at once: the page has saved nothing yet
        assert browser.draw("RBC", around(again, 1.5)) == []
        assert browser.boxes_on_the_page() == (same(first, second), [], [])
    assert browser.draw("WBC", around(third)) == [], "there is no white cell"
    assert browser.boxes_on_the_page() == (same(first, second), [], [])
    browser.page.wait_for_timeout(6000)  # it saves a draft 5 s after a change
    assert browser.draw("RBC", around(first, 1.5)) == []
    browser.draw("RBC", around(third))
    assert browser.boxes_on_the_page() == (same(first, second, third), [], [])


@pytest.mark.proof
def test_what_a_prediction_brought_to_the_page_does_not_come_again(
    browser: StudioBrowser, client: StudioClient, project: int, task: int, cells: list[Box]
) -> None:
    client.call("PATCH", f"/api/projects/{project}/", json={"show_collab_predictions": True})
    browser.open_task_of(project, task)  # where it has no prediction, Label Studio asks for one
    ((prediction,),) = client.predictions(project).values()
    count = len(prediction["result"])
    browser.read_labeling_page(count)
    browser.take_the_smart_tool(auto_accept=True)

    for cell in cells:
        assert browser.draw("RBC", around(cell)) == []
        assert len(browser.boxes_on_the_page()[0]) == count
    (gone,) = (region["id"] for region in prediction["result"] if place_of(region) == pytest.approx(cells[0], abs=0.01))
    browser.delete_region(gone)
    assert len(browser.boxes_on_the_page()[0]) == count - 1
    assert [place_of(region) for region in browser.draw("RBC", around(cells[0]))] == same(cells[0])
    browser.keep_picture("it-came-back")
    assert len(browser.boxes_on_the_page()[0]) == count
