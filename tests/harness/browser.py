"""Label Studio's pages as a person uses them, in a headless Chromium."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response, expect, sync_playwright

from tests.harness.stack import LabelStudioServer

_ARGUMENTS = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_ARTIFACTS = Path(__file__).resolve().parent.parent.parent / "test-artifacts"
_VIEWPORT = (1280, 800)
_TALL_VIEWPORT = (1280, 3000)
_TIMEOUT_MS = 60_000
_PREDICTION_TIMEOUT_MS = 150_000

# Each region is a rectangle named "<region's id>#<annotation's id> ..." on the one canvas of the page.
_DRAWN_BOXES = """() => {
  const image = document.querySelector(".lsf-image").getBoundingClientRect();
  const boxes = Konva.stages.flatMap(stage => stage.find("Rect")).filter(rect => rect.name().includes("#"));
  return Object.fromEntries(boxes.map(rect => [rect.name().split("#")[0], [
    rect.x() / image.width * 100, rect.y() / image.height * 100,
    rect.width() / image.width * 100, rect.height() / image.height * 100,
  ]]));
}"""
_IMAGE_IS_SHOWN = """() => {
  const image = document.querySelector(".lsf-image img");
  return image !== null && image.complete && image.naturalWidth > 0 && window.Konva.stages.length > 0;
}"""
_REGIONS = "Htx.annotationStore.selected.regions"
_TOGGLE_REGIONS_OF = f"""control => {_REGIONS}
  .filter(region => region.results.some(result => result.from_name.name === control))
  .forEach(region => region.toggleHidden())"""
_PAINTING_MS = 700  # masks are painted some time after their regions are there
_VISIBLE_CHANGE = 12  # of a color, of 255

Box = list[float]
"""x, y, width, height in percent of the image."""


@dataclass(frozen=True)
class LabelingPage:
    """What the labeling page shows of one annotation or prediction."""

    listed: list[tuple[str, str]]
    """Label and score of each entry in the Regions panel, as written there."""
    drawn: dict[str, list[float]]
    """x, y, width, height of each box on the image, in percent of the image, by the region's id."""


class StudioBrowser:
    """A person at Label Studio's pages; a picture of each step is kept as `<number>-<step>.png`."""

    def __init__(self, page: Page, url: str, artifacts: Path) -> None:
        self.page = page
        self._url = url
        self._artifacts = artifacts
        self._step = 0

    def log_in(self, username: str, password: str) -> None:
        self.page.goto(f"{self._url}/user/login/")
        self.page.locator("input[name=email]").fill(username)
        self.page.locator("input[name=password]").fill(password)
        self.keep_picture("login")
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(lambda url: not urlsplit(url).path.startswith("/user/login"))

    def connect_model(self, project: int, title: str, backend_url: str) -> Response:
        """Fill in Settings > Model > Connect Model and press Validate and Save; Label Studio's answer."""
        self.page.goto(f"{self._url}/projects/{project}/settings")
        self.page.get_by_role("link", name="Model", exact=True).click()
        self.page.get_by_text("Connect Model", exact=True).click()
        self.page.locator("input[name=title]").fill(title)
        self.page.locator("input[name=url]").fill(backend_url)
        self.keep_picture("connect-model")
        with self.page.expect_response(_is_post_to("/api/ml"), timeout=_TIMEOUT_MS) as answer:
            self.page.get_by_text("Validate and Save", exact=True).click()
        return answer.value

    def press_start_training(self, project: int) -> None:
        """Settings > Model, the card's menu > Start Training, and Start Training in the dialog."""
        self.page.goto(f"{self._url}/projects/{project}/settings/ml")
        self.model_card.get_by_label("Machine learning model options").click()
        self.page.get_by_text("Start Training", exact=True).click()
        confirm = self.page.get_by_role("button", name="Start Training")
        with self.page.expect_response(_is_post_to(re.compile("/api/ml/[0-9]+/train/?")), timeout=_TIMEOUT_MS):
            confirm.click()
        self.keep_picture("start-training")

    @property
    def model_card(self) -> Locator:
        """The connected model in Settings > Model."""
        return self.page.locator(".lsf-backend-card")

    @property
    def error_dialog(self) -> Locator:
        """What Label Studio shows when it refuses something."""
        return self.page.locator(".lsf-modal-ls", has=self.page.locator(".lsf-error-message")).last

    @property
    def status_bar(self) -> Locator:
        """The counts at the foot of the Data Manager."""
        return self.page.locator("div", has=self.page.get_by_text("Submitted annotations:")).last

    def retrieve_predictions(self, project: int) -> Response:
        """Select all tasks in the Data Manager, then Actions > Retrieve Predictions > OK; Label Studio's answer."""
        self.page.goto(f"{self._url}/projects/{project}/data")
        self.page.get_by_test_id("table-row").first.wait_for()
        self.page.get_by_label("Select all rows").click()
        self.page.get_by_label("Tasks Actions").click()
        action = self.page.get_by_text("Retrieve Predictions", exact=True)
        action.wait_for()
        self.keep_picture("actions")
        action.click()
        confirm = self.page.get_by_text("OK", exact=True)
        confirm.wait_for()
        self.keep_picture("retrieve-predictions")
        with self.page.expect_response(_is_post_to("/api/dm/actions"), timeout=_PREDICTION_TIMEOUT_MS) as answer:
            confirm.click()
        return answer.value

    def open_task(self, task: int) -> None:
        """Click a task's row in the Data Manager and wait for its image and its regions."""
        checkbox = self.page.get_by_label(re.compile(rf"^(Select|Unselect) Task {task}$"))
        self.page.get_by_test_id("table-row").filter(has=checkbox).click()
        self.wait_for_regions()

    def open_prediction(self) -> Locator:
        """Go to the prediction's own tab above the image; the tab."""
        tab = self.page.locator(".lsf-annotation-button", has=self.page.locator("[class*=userpic_prediction]"))
        tab.click()
        expect(tab).to_have_class(re.compile("_selected"), timeout=_TIMEOUT_MS)
        self.page.mouse.move(0, _VIEWPORT[1] - 1)  # off the tab, whose tooltip hides the image
        self.wait_for_regions()
        return tab

    def read_labeling_page(self, region_count: int) -> LabelingPage:
        """What is shown, once as many regions as expected are drawn and listed.

        Raises TimeoutError or AssertionError if they never are.
        """
        self.page.wait_for_function(f"Object.keys(({_DRAWN_BOXES})()).length === {region_count}")
        drawn = self.page.evaluate(_DRAWN_BOXES)
        entries = self.page.locator(".lsf-outliner-item")
        # The panel renders only the entries that fit.
        self._resize(_TALL_VIEWPORT)
        expect(entries).to_have_count(region_count, timeout=_TIMEOUT_MS)
        labels = entries.locator(".lsf-outliner-item__title").all_inner_texts()
        scores = entries.locator(".lsf-outliner-item__control_type_score").all_inner_texts()
        self._resize(_VIEWPORT)
        return LabelingPage(list(zip(labels, scores, strict=True)), drawn)

    def submit(self) -> None:
        """Press Submit, and wait until Label Studio has stored the annotation."""
        submit = self.page.get_by_role("button", name="Submit", exact=False).first
        with self.page.expect_response(
            lambda answer: answer.request.method == "POST" and "/annotations" in answer.url, timeout=_TIMEOUT_MS
        ):
            submit.click()

    def open_task_of(self, project: int, task: int) -> None:
        """Go to a task's own address and wait for its image; there may be no region on it."""
        self.page.goto(f"{self._url}/projects/{project}/data?task={task}")
        self.page.wait_for_function(_IMAGE_IS_SHOWN)

    def take_the_smart_tool(self, *, auto_accept: bool) -> None:
        """Switch Auto-Annotation on, Auto-Accept Suggestions on or off, and pick the smart rectangle."""
        for name, wanted in (("annotation", True), ("accept", auto_accept)):
            switch = self.page.get_by_test_id(f"bottombar-auto-{name}-toggle")
            switch.set_checked(wanted, force=True)
        self.page.locator(".lsf-tool_smart").first.click()

    def draw(self, label: str, box: Box) -> list[dict[str, Any]]:
        """Choose a label, and draw a rectangle with the smart tool; the regions of Label Studio's answer.

        It is begun at the top left corner, where no region may lie: else that one is dragged.
        """
        self.page.locator(".lsf-label", has_text=label).first.click()
        corners = [self.point_of(box[0], box[1]), self.point_of(box[0] + box[2], box[1] + box[3])]
        with self.page.expect_response(_is_post_to(re.compile("/api/ml/[0-9]+/interactive-annotating"))) as answer:
            self.page.mouse.move(*corners[0])
            self.page.mouse.down()
            for part in (0.3, 0.6, 1):  # the page looks at the pointer 20 times a second
                self.page.wait_for_timeout(100)
                self.page.mouse.move(*(start + part * (end - start) for start, end in zip(*corners, strict=True)))
            self.page.wait_for_timeout(100)
            self.page.mouse.up()
        regions: list[dict[str, Any]] = answer.value.json()["data"]["result"]
        self.page.wait_for_function("() => !Htx.awaitingSuggestions")
        return regions

    def accept(self, box: Box) -> None:
        """Click the tick below a suggestion."""
        x, y = self.point_of(box[0] + box[2] / 2, box[1] + box[3])
        self.page.mouse.click(x + 16, y + 26)

    def delete_region(self, region: str) -> None:
        """Click a region's entry in the Regions panel, and press Delete."""
        self.page.evaluate(f"Htx.annotationStore.selected.selectArea({_REGIONS}.find(r => r.cleanId === '{region}'))")
        self.page.keyboard.press("Backspace")
        self.page.wait_for_function(f"() => !{_REGIONS}.some(r => r.cleanId === '{region}')")

    def boxes_on_the_page(self) -> tuple[list[Box], list[Box], list[Box]]:
        """What lies on the image: boxes, suggestions, and what the smart tool drew."""
        boxes, suggestions, drawn = self.page.evaluate(f"""() => {{
            const places = regions => regions.map(r => [r.x, r.y, r.width, r.height]);
            return [
                places({_REGIONS}.filter(r => !r.dynamic)),
                places([...Htx.annotationStore.selected.suggestions.values()]),
                places({_REGIONS}.filter(r => r.dynamic)),
            ];
        }}""")
        return boxes, suggestions, drawn

    def point_of(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the image, in percent, is on the page, in pixels."""
        image = self.page.locator(".lsf-image img").first.bounding_box()  # the page zooms a little
        assert image
        return image["x"] + image["width"] * x / 100, image["y"] + image["height"] * y / 100

    def picture_of_image(self, size_wh: tuple[int, int]) -> NDArray[np.int32]:
        """What the page shows of the image and on it (height, width, 3), in the image's own pixels."""
        left, top = self.point_of(0, 0)
        right, bottom = self.point_of(100, 100)
        clip: Any = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        with Image.open(io.BytesIO(self.page.screenshot(clip=clip))) as picture:
            return np.asarray(picture.convert("RGB").resize(size_wh)).astype(np.int32)

    def painted_by(self, control: str, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
        """Which pixels of the image (height, width) look otherwise while a control's regions are hidden."""
        pictures = []
        for _ in range(2):  # as they are, and hidden
            self.page.wait_for_timeout(_PAINTING_MS)
            pictures.append(self.picture_of_image(size_wh))
            self.page.evaluate(_TOGGLE_REGIONS_OF, control)
        changed: NDArray[np.bool_] = np.abs(pictures[0] - pictures[1]).max(axis=2) > _VISIBLE_CHANGE
        return changed

    def turn_the_page(self) -> None:
        """Go to the next image of a task that has several."""
        indicator = self.page.locator(".lsf-pagination__page-indicator")
        before = indicator.inner_text()
        self.page.locator(".lsf-pagination__btn_arrow-right").first.click()
        expect(indicator).not_to_have_text(before)
        self.page.wait_for_function(_IMAGE_IS_SHOWN)

    def keep_picture(self, step: str) -> None:
        """Keep a picture of the page among the artifacts."""
        self._step += 1
        self.page.screenshot(path=self._artifacts / f"{self._step:02}-{step}.png", animations="disabled")

    def wait_for_regions(self) -> None:
        """Wait until the labeling page shows its image and has drawn regions on it."""
        self.page.locator(".lsf-outliner-item").first.wait_for()
        self.page.wait_for_function(_IMAGE_IS_SHOWN)
        self.page.wait_for_function(f"Object.keys(({_DRAWN_BOXES})()).length > 0")

    def _resize(self, size_wh: tuple[int, int]) -> None:
        self.page.set_viewport_size({"width": size_wh[0], "height": size_wh[1]})


OpenBrowser = Callable[[str], AbstractContextManager[StudioBrowser]]
"""Opens a browser, by the name of the folder for its pictures."""


@contextmanager
def chromium_page(chromium: Path, url: str, name: str) -> Iterator[tuple[Page, Path]]:
    """A page of a new browser, and the folder `name` among the artifacts for its pictures."""
    with _chromium(chromium, url) as launched:
        yield _new_page(_new_context(launched)), _new_folder(name)


@contextmanager
def studio_browsers(studio: LabelStudioServer, chromium: Path) -> Iterator[OpenBrowser]:
    """Opens browsers with someone logged in to Label Studio: one program, one login, and nothing else in common.

    A browser's pictures go to the folder of its name among the artifacts.
    """
    with _chromium(chromium, studio.url) as launched:
        cookies: list[Any] = []

        @contextmanager
        def open_browser(name: str) -> Iterator[StudioBrowser]:
            context = _new_context(launched)
            browser = StudioBrowser(_new_page(context), studio.url, _new_folder(name))
            if cookies:
                context.add_cookies(cookies)
            else:
                browser.log_in(studio.username, studio.password)
                cookies.extend(context.cookies())
            try:
                yield browser
            finally:
                browser.keep_picture("end")
                context.close()

        yield open_browser


@contextmanager
def studio_browser(studio: LabelStudioServer, chromium: Path, name: str) -> Iterator[StudioBrowser]:
    """One browser with someone logged in to Label Studio."""
    with studio_browsers(studio, chromium) as open_browser, open_browser(name) as browser:
        yield browser


@contextmanager
def _chromium(chromium: Path, url: str) -> Iterator[Browser]:
    # No other host than the one of `url` is found, so that the pages wait for nobody.
    offline = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {urlsplit(url).hostname}"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=[*_ARGUMENTS, offline])
        try:
            yield launched
        finally:
            launched.close()


def _new_context(launched: Browser) -> BrowserContext:
    width, height = _VIEWPORT
    return launched.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")


def _new_page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_MS)
    return page


def _new_folder(name: str) -> Path:
    folder = Path(os.environ.get("TEST_ARTIFACTS_DIR") or _ARTIFACTS) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _is_post_to(path: str | re.Pattern[str]) -> Any:
    pattern = path if isinstance(path, re.Pattern) else re.compile(re.escape(path))
    return lambda response: response.request.method == "POST" and bool(pattern.fullmatch(urlsplit(response.url).path))
