"""Labeling configs as people write them: what the page shows of an image is what is predicted, or it is said."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.harness.browser import StudioBrowser, studio_browser
from tests.harness.stack import BackendServer, LabelStudioServer
from tests.harness.studio_client import StudioClient
from yolo_backend.labels.regions import region_label

LABELS = '<Label value="RBC"/><Label value="WBC"/><Label value="Platelets"/>'
RECTANGLES = f'<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels>'

FOREIGN = RECTANGLES.replace("RBC", "車").replace("WBC", "Ä").replace("Platelets", "赤血球")
WORDS = f'<Labels name="kind" toName="image">{LABELS}</Labels>'


def config(image: str, controls: str = RECTANGLES) -> str:
    return f'<View><Image name="image" {image}/>{controls}</View>'


@pytest.fixture(scope="module")
def browser(chromium: Path, label_studio: LabelStudioServer) -> Iterator[StudioBrowser]:
    """A browser with someone logged in."""
    with studio_browser(label_studio, chromium, "labeling-configs") as browser:
        yield browser


def uploads(client: StudioClient, photographs: list[Path]) -> list[str]:
    """Photographs as Label Studio's own addresses of them, in a project of their own."""
    project = client.create_project("Uploads")
    client.upload(project, photographs)
    return [str(task["data"]["image"]) for task in client.tasks(project)]


CASES: dict[str, tuple[str, Any]] = {
    "nested": (config('value="$image.url"'), lambda a, b: {"image": {"url": a}}),
    "indexed": (config('value="$images[0]"'), lambda a, b: {"images": [a, b]}),
    "indexed and nested": (config('value="$pages[1].image"'), lambda a, b: {"pages": [{"image": b}, {"image": a}]}),
    "a list of one": (config('value="$image"'), lambda a, b: {"image": [a]}),
    "in a text": (config('value="/data/$folder/$file"'), lambda a, b: folder_and_file(a)),
    "labels with a rectangle": (
        config('value="$image"', f'{WORDS}<Rectangle name="box" toName="image"/>'),
        lambda a, b: {"image": a},
    ),
    "labels of the task": (
        config('value="$image"', '<RectangleLabels name="label" toName="image" value="$labels"/>'),
        lambda a, b: {"image": a, "labels": [{"value": "RBC"}, {"value": "WBC", "background": "blue"}]},
    ),
}  # fmt: skip

_QUICK = {"nested", "a list of one", "labels with a rectangle"}


def folder_and_file(address: str) -> dict[str, str]:
    """The two parts of an address behind /data/."""
    folder, _, file = address.removeprefix("/data/").partition("/")
    return {"folder": folder, "file": file}


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _QUICK else pytest.mark.proof) for name in CASES]
)
def test_what_the_page_shows_is_predicted_and_can_be_submitted(
    browser: StudioBrowser, client: StudioClient, backend: BackendServer, bccd_files: list[Path], name: str
) -> None:
    label_config, data_of = CASES[name]
    project = client.create_project(name, label_config)
    client.import_tasks(project, [{"data": data_of(*uploads(client, bccd_files[:2]))}])
    client.connect(project, backend.url)
    assert browser.retrieve_predictions(project).json()["detail"] == "Retrieved 1 predictions"

    (task,) = client.tasks(project)
    (prediction,) = task["predictions"]
    labelled = [region for region in prediction["result"] if region_label(region)]
    assert len(labelled) > 5
    browser.open_task(task["id"])
    shown = browser.read_labeling_page(len(labelled))
    browser.keep_picture("shown")
    assert shown.listed == [(region_label(region), f"{region['score']:.2f}") for region in labelled]
    assert shown.drawn == {
        region["id"]: pytest.approx([region["value"][key] for key in ("x", "y", "width", "height")], abs=0.1)
        for region in labelled
    }
    browser.submit()
    (task,) = client.tasks(project)
    (annotation,) = task["annotations"]
    assert facts(annotation["result"]) == facts(prediction["result"])


def facts(regions: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """What a region is, but for its place, which a browser rounds."""
    return {(region["id"], region["from_name"], region["type"], region_label(region)) for region in regions}


def test_several_images_under_value_are_told_what_to_write(
    client: StudioClient, backend: BackendServer, bccd_files: list[Path]
) -> None:
    project = client.create_project("A strip", config('value="$image"'))
    client.import_tasks(project, [{"data": {"image": uploads(client, bccd_files[:2])}}])
    client.connect(project, backend.url)
    client.retrieve_predictions(project)
    assert list(client.predictions(project).values()) == [[]]
    (failure,) = [item for item in status(backend)["failures"] if item["projects"] == [str(project)]]
    assert failure["reason"] == (
        '"image" is a list of 2 images: write valueList="$image" in the labeling config, not value="$image", so that '
        "each has boxes of its own"
    )
    client.set_label_config(project, config('valueList="$image"'))
    client.retrieve_predictions(project)
    ((prediction,),) = client.predictions(project).values()
    assert {region["item_index"] for region in prediction["result"]} == {0, 1}


REPEATER = """<View><Repeater on="$pages" indexFlag="{{idx}}" mode="pagination">
<Image name="page_{{idx}}" value="$pages[{{idx}}].image"/>
<RectangleLabels name="labels_{{idx}}" toName="page_{{idx}}"><Label value="RBC"/></RectangleLabels></Repeater></View>"""


@pytest.mark.parametrize(
    ("label_config", "reason"),
    [
        (REPEATER, "inside a Repeater, which takes no predictions: use one Image with valueList and one Rectangle"),
        (
            config('value="$image"', f'<VectorLabels name="p" toName="image">{LABELS}</VectorLabels>'),
            'VectorLabels "p" isn\'t predicted: write RectangleLabels, or another control that is, instead',
        ),
        (
            config('value="$image"', f'{WORDS}<KeyPoint name="k" toName="image"/>'),
            'Labels "kind" has no Rectangle on "image" beside it, nor a Polygon, Brush or Ellipse: add one, or write',
        ),
        (
            config('value="$image"', f'{WORDS}<Brush name="b" toName="image"/>'),
            'The control "kind" paints masks, which want segmentation weights, and bccd.pt are detect weights: name',
        ),
        (
            config('value="$image"', FOREIGN),
            "None of the labels (label 1, U+8ECA), Ä and 1 more is a class of bccd.pt, which has RBC, WBC, Platelets",
        ),
    ],
)  # fmt: skip
def test_the_reason_that_label_studio_shows_says_what_was_found_and_what_to_write(
    client: StudioClient, backend: BackendServer, label_config: str, reason: str
) -> None:
    project = client.create_project("Not served", label_config)
    with pytest.raises(requests.HTTPError) as raised:
        client.connect(project, backend.url)
    (shown_there,) = raised.value.response.json()["validation_errors"]["non_field_errors"]
    assert reason in html.unescape(shown_there)
    (shown,) = [item for item in status(backend)["projects"] if item["project"] == str(project)]
    assert "U+" not in shown["reason"]


def status(backend: BackendServer) -> dict[str, Any]:
    """What the backend's page says, for programs."""
    return dict(requests.get(backend.url, timeout=10).json())
