"""The README's moving picture, of the real pages: `make recording` (`python -m tests.harness.recording`).

A real Label Studio, a real backend with the demo's weights, and a browser that clicks as a person does.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page

from tests.harness.browser import StudioBrowser, chromium_page
from tests.harness.chromium import find_chromium
from tests.harness.stack import (
    ROOT,
    LabelStudioServer,
    backend_server,
    bypass_proxies,
    label_studio_server,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import StudioClient
from yolo_backend.connecting.connect import labeling_config_for
from yolo_backend.demo.scenes import draw_scene, save_scene

MOVIE = ROOT / "docs" / "images" / "predictions.gif"
_MAX_BYTES = 2_000_000
_SCENES = (6, 0, 1, 2, 3, 4, 7, 8)
_VIEWPORT_WH = (1280, 768)
_MOVIE_WH = (960, 576)
_COLOURS = 256
_GLIDE_STEPS = 4
_STEP_MS, _LOOK_MS, _END_MS = 90, 1200, 3500
_LABELS = ("Nut", "Bolt", "Washer")

# A headless browser draws no pointer.
_POINTER = """([x, y]) => {
  let pointer = document.getElementById("pointer");
  if (!pointer) {
    pointer = document.createElement("div");
    pointer.id = "pointer";
    pointer.style.cssText = "position:fixed;z-index:2147483647;pointer-events:none;width:24px;height:24px";
    const path = '<path d="M3 1v18l5-4 3 7 3-1-3-7h7z" fill="#111" stroke="#fff"/>';
    pointer.innerHTML = `<svg viewBox="0 0 24 24">${path}</svg>`;
    document.body.appendChild(pointer);
  }
  pointer.style.left = x + "px";
  pointer.style.top = y + "px";
}"""


class Movie:
    """Pictures of a page, each shown for a while."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._at = (_VIEWPORT_WH[0] * 0.6, _VIEWPORT_WH[1] * 0.7)
        self._frames: list[tuple[Image.Image, int]] = []

    def take(self, shown_ms: int = _LOOK_MS) -> None:
        """Add the page as it is now."""
        self._page.evaluate(_POINTER, list(self._at))
        picture = Image.open(io.BytesIO(self._page.screenshot(animations="disabled"))).convert("RGB")
        self._frames.append((picture.resize(_MOVIE_WH, Image.Resampling.LANCZOS), shown_ms))

    def click(self, target: Locator) -> None:
        """Move the pointer to the target, and click it."""
        box = target.bounding_box()
        assert box
        begin, end = self._at, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for step in range(1, _GLIDE_STEPS + 1):
            part = step / _GLIDE_STEPS
            self._at = (begin[0] + part * (end[0] - begin[0]), begin[1] + part * (end[1] - begin[1]))
            self._page.mouse.move(*self._at)
            self.take(_STEP_MS if step < _GLIDE_STEPS else 3 * _STEP_MS)
        self._page.mouse.click(*end)

    def save(self, path: Path) -> None:
        """Write it as a GIF that repeats."""
        # Each frame has colours of its own: in those of the whole movie, boxes would be pale.
        frames = [picture.quantize(_COLOURS, dither=Image.Dither.NONE) for picture, _ in self._frames]
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=[shown_ms for _, shown_ms in self._frames],
            loop=0,
            optimize=True,
        )


def record(browser: StudioBrowser, page: Page, url: str, project: int) -> Movie:
    """Open a project, retrieve its predictions, and open a task."""
    movie = Movie(page)
    page.goto(f"{url}/projects/{project}/data")
    page.get_by_test_id("table-row").first.wait_for()
    page.wait_for_load_state("networkidle")
    movie.take(2 * _LOOK_MS)
    movie.click(page.get_by_label("Select all rows"))
    movie.take(_LOOK_MS // 2)
    movie.click(page.get_by_label("Tasks Actions"))
    action = page.get_by_text("Retrieve Predictions", exact=True)
    action.wait_for()
    movie.click(action)
    confirm = page.get_by_text("OK", exact=True)
    confirm.wait_for()
    movie.take(_LOOK_MS // 2)
    movie.click(confirm)
    browser.status_bar.get_by_text(f"Predictions: {len(_SCENES)}").wait_for()
    page.wait_for_load_state("networkidle")
    movie.take(2 * _LOOK_MS)
    row = page.get_by_test_id("table-row").filter(has=page.get_by_label(re.compile(r"^(Select|Unselect) Task \d+$")))
    movie.click(row.first)
    browser.wait_for_regions()
    page.wait_for_load_state("networkidle")
    movie.take(_END_MS)
    return movie


def main() -> None:
    """Record the movie; it ends with an error if the file is too large for a README."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("No Chromium was found: `make browser` gets one")
    bypass_proxies()
    with (
        tempfile.TemporaryDirectory() as folder,
        label_studio_server(Path(folder, "label-studio"), pick_port(0)) as studio,
    ):
        _record_with(studio, chromium, Path(folder))
    size = MOVIE.stat().st_size
    print(f"{MOVIE.relative_to(ROOT)}: {size / 1000:,.0f} kB")
    if size > _MAX_BYTES:
        sys.exit(f"That is more than {_MAX_BYTES / 1000:,.0f} kB")


def _record_with(studio: LabelStudioServer, chromium: Path, folder: Path) -> None:
    files = []
    for number, seed in enumerate(_SCENES, 1):
        files.append(folder / f"bench{number}.jpg")
        save_scene(draw_scene(seed), files[-1])
    token = studio.personal_access_token()
    environment = {
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": token,
        "MODEL_NAME": "demo",
        "MODEL_DIR": str(folder / "backend"),
        "MODEL_SCORE_THRESHOLD": "0.3",
        "MODEL_IOU_THRESHOLD": "0.5",
    }
    with backend_server(pick_port(0), environment, folder / "backend" / "backend.log") as backend:
        wait_until_ready(backend.url)
        client = StudioClient(studio.url, token)
        project = client.create_project("Nuts, bolts and washers", labeling_config_for(_LABELS))
        client.upload(project, files)
        client.connect(project, backend.url)
        with chromium_page(chromium, studio.url, "recording") as (page, artifacts):
            page.set_viewport_size({"width": _VIEWPORT_WH[0], "height": _VIEWPORT_WH[1]})
            browser = StudioBrowser(page, studio.url, artifacts)
            browser.log_in(studio.username, studio.password)
            record(browser, page, studio.url, project).save(MOVIE)


if __name__ == "__main__":
    main()
