"""What a person sees of the backend on Label Studio's own pages, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.harness.browser import StudioBrowser
from tests.harness.stack import BackendServer
from tests.harness.studio_client import StudioClient

BLOOD_CONFIG = """
<View>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="label" toName="image" strokeWidth="2" opacity="0.15">
    <Label value="RBC" background="#d92d20"/>
    <Label value="WBC" background="#2e3bd6"/>
    <Label value="Platelets" background="#087a2f"/>
  </RectangleLabels>
</View>
"""
STREET_CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="Car"/><Label value="Bus"/></RectangleLabels>
</View>
"""
TASK_COUNT = 6


# Before the fixtures that take a minute to start.
pytestmark = pytest.mark.usefixtures("chromium")


def test_a_person_connects_the_model_and_sees_its_boxes(
    browser: StudioBrowser, client: StudioClient, backend: BackendServer, bccd_files: list[Path]
) -> None:
    project = client.create_project("Blood cells", BLOOD_CONFIG)
    photographs = bccd_files[:TASK_COUNT]
    client.upload(project, photographs)

    browser.connect_model(project, "YOLO", backend.url)
    expect(browser.model_card).to_contain_text("Connected", timeout=30_000)
    expect(browser.model_card).to_contain_text("YOLO")
    browser.keep_picture("model-connected")

    answer = browser.retrieve_predictions(project)
    assert answer.json()["detail"] == f"Retrieved {TASK_COUNT} predictions"
    expect(browser.status_bar).to_contain_text(f"Predictions: {TASK_COUNT}", timeout=30_000)
    browser.keep_picture("predictions-retrieved")
    predictions = client.predictions(project)
    assert [len(of_task) for of_task in predictions.values()] == [1] * TASK_COUNT

    task, (prediction,) = max(predictions.items(), key=lambda item: len(item[1][0]["result"]))
    regions = prediction["result"]
    assert len(regions) > 10
    browser.open_task(task)
    browser.keep_picture("draft-from-the-prediction")
    draft = browser.read_labeling_page(len(regions))
    tab = browser.open_prediction()
    browser.keep_picture("prediction")
    expect(tab).to_contain_text(f"{prediction['score'] * 100:.2f}%")
    for shown in (draft, browser.read_labeling_page(len(regions))):
        assert shown.listed == [(label_of(region), f"{region['score']:.2f}") for region in regions]
        assert shown.drawn == {region["id"]: pytest.approx(box_of(region), abs=0.1) for region in regions}


def test_the_page_says_why_a_model_does_not_fit_the_labels(
    browser: StudioBrowser, client: StudioClient, backend: BackendServer
) -> None:
    project = client.create_project("Street", STREET_CONFIG)

    answer = browser.connect_model(project, "YOLO", backend.url)

    assert not answer.ok
    expect(browser.error_dialog).to_contain_text(
        "422 Client Error: None of the labels Car, Bus is a class of bccd.pt", timeout=30_000
    )
    browser.keep_picture("reason")
    assert client.call("GET", f"/api/ml?project={project}") == []


def label_of(region: dict[str, Any]) -> str:
    (label,) = region["value"]["rectanglelabels"]
    return str(label)


def box_of(region: dict[str, Any]) -> list[float]:
    """x, y, width, height in percent of the image."""
    return [region["value"][key] for key in ("x", "y", "width", "height")]
