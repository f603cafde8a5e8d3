"""The backend's own page, in a real browser, after a real project was predicted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import requests
from playwright.sync_api import Locator, Page, ViewportSize, expect

from tests.harness.app_here import wait_for_title
from tests.harness.browser import chromium_page
from tests.harness.http_server import ServedFolder
from tests.harness.stack import BackendServer
from tests.harness.studio_client import StudioClient
from yolo_backend.failure_kinds import FailureKind

CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image" model_score_threshold="0.3">
    <Label value="Red cell" predicted_values="RBC"/>
    <Label value="White cell" predicted_values="WBC" model_score_threshold="0.15"/>
    <Label value="Parasite"/>
  </RectangleLabels>
</View>
"""
TASK_COUNT = 24
PHONE: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture
def browser_page(request: pytest.FixtureRequest, chromium: Path, backend: BackendServer) -> Iterator[tuple[Page, Path]]:
    """A browser's page, and the folder for its pictures."""
    with chromium_page(chromium, backend.url, request.node.name) as opened:
        yield opened


def test_a_person_sees_what_is_served_and_what_failed(
    browser_page: tuple[Page, Path],
    backend: BackendServer,
    client: StudioClient,
    image_server: ServedFolder,
    personal_access_token: str,
    bccd_files: list[Path],
) -> None:
    page, pictures = browser_page
    photographs = bccd_files[:TASK_COUNT]
    for number, path in enumerate(photographs):
        content = path.read_bytes()
        (image_server.path / f"slide-{number}.jpg").write_bytes(content[:3000] if number == 5 else content)
    project = client.create_project("Blood cells", CONFIG)
    addresses = [f"{image_server.url}/slide-{number}.jpg?signature=secret" for number in range(TASK_COUNT)]
    client.import_tasks(project, [{"data": {"image": address}} for address in addresses])
    client.connect(project, backend.url)
    client.retrieve_predictions(project)
    wait_for_title(backend.url, project)
    (broken,) = (task for task, of_task in client.predictions(project).items() if not of_task)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))

    page.goto(backend.url)

    expect(page.get_by_text("Ready", exact=True)).to_be_visible()
    facts = requests.get(backend.url, timeout=10).json()
    for name, value in (("Weights", "bccd.pt"), ("Device", facts["device"]), ("Engine", facts["engine"])):
        expect(page.locator("dl > div", has=page.get_by_text(name, exact=True))).to_contain_text(value)
    work = section(page, "Work", project)
    expect(work).to_contain_text(f"{TASK_COUNT} of {TASK_COUNT} tasks · finished")
    expect(work).to_contain_text(f"{TASK_COUNT - 1} predicted, 1 failed")
    connected = section(page, "Projects", project)
    assert connected.locator("tbody tr").all_inner_texts() == ["Red cell\tRBC\t0.3", "White cell\tWBC\t0.15"]
    expect(connected.locator(".notice")).to_contain_text("no class of bccd.pt has the name: Parasite")
    expect(connected).to_contain_text("Classes without a label, left out: Platelets")
    failure = page.locator("article.error", has_text=re.compile(rf"\b{broken}\b"))
    expect(failure).to_contain_text("The image is broken")
    expect(failure).to_contain_text(FailureKind.BROKEN.advice)
    expect(failure).to_contain_text("/slide-5.jpg")
    assert personal_access_token not in page.content()
    assert "signature=secret" not in page.content()
    page.screenshot(path=pictures / "desktop.png", full_page=True)
    link = page.get_by_role("link", name="Blood cells").first
    expect(link).to_have_attribute("href", f"{client._studio.url}/projects/{project}/data")

    page.get_by_role("link", name="Pause").click()
    expect(page.get_by_text("Paused")).to_be_visible()
    page.set_viewport_size(PHONE)
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.screenshot(path=pictures / f"phone-{scheme}.png", full_page=True)

    assert {url.split("?")[0] for url in asked if not url.startswith("data:")} == {f"{backend.url}/"}
    assert told == []


def section(page: Page, heading: str, project: int) -> Locator:
    """What a section says of a project."""
    name = page.get_by_text(f"(project {project})")
    return page.get_by_role("region", name=heading).locator("article", has=name)
