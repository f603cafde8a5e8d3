"""The pictures of docs/controls.md, of the real pages: `make pictures` (`python -m tests.harness.control_pictures`).

A real Label Studio, a real backend with the tests' weights of each kind, and a click on Retrieve Predictions.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.harness.browser import StudioBrowser, studio_browser
from tests.harness.chromium import find_chromium
from tests.harness.control_examples import EXAMPLES, Example, settings
from tests.harness.stack import (
    ROOT,
    BackendServer,
    backend_server,
    bypass_proxies,
    label_studio_server,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import StudioClient

FOLDER = ROOT / "docs" / "images"
_MAX_BYTES = 80_000
_WIDTH = 340
_COLORS = 128
_PAINTING_MS = 1500
_MARGIN = 8


def main() -> None:
    """Take a picture of each example; it ends with an error if one is too large for a page."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("No Chromium was found: `make browser` gets one")
    bypass_proxies()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with label_studio_server(folder / "label-studio", pick_port(0)) as studio:
            token = studio.personal_access_token()
            environment = settings() | {
                "LABEL_STUDIO_URL": studio.url,
                "LABEL_STUDIO_API_KEY": token,
                "MODEL_DIR": str(folder / "backend"),
            }
            with (
                backend_server(pick_port(0), environment, folder / "backend" / "backend.log") as backend,
                studio_browser(studio, chromium, "control-pictures") as browser,
            ):
                wait_until_ready(backend.url)
                client = StudioClient(studio.url, token)
                sizes = [take(example, client, browser, backend, folder) for example in EXAMPLES]
    if max(sizes) > _MAX_BYTES:
        sys.exit(f"One has more than {_MAX_BYTES / 1000:,.0f} kB")


def take(example: Example, client: StudioClient, browser: StudioBrowser, backend: BackendServer, folder: Path) -> int:
    """Retrieve the example's prediction, open its task, and keep what is seen of the image and below it; the bytes."""
    scene = folder / f"{example.name}.png"
    example.save_scene(scene)
    project = client.create_project(example.shown_as, example.config)
    client.upload(project, [scene])
    client.connect(project, backend.url)
    browser.retrieve_predictions(project)
    (task,) = client.tasks(project)
    browser.open_task_of(project, task["id"])
    browser.page.mouse.move(0, 0)
    browser.page.wait_for_timeout(_PAINTING_MS)
    image = browser.page.locator(".lsf-image").bounding_box()
    everything = browser.page.locator(".lsf-main-view__annotation").bounding_box()
    assert image
    assert everything
    clip: Any = {
        "x": image["x"] - _MARGIN,
        "y": image["y"] - _MARGIN,
        "width": image["width"] + 2 * _MARGIN,
        "height": everything["y"] + everything["height"] - image["y"] + _MARGIN,
    }
    with Image.open(io.BytesIO(browser.page.screenshot(clip=clip, animations="disabled"))) as picture:
        size_wh = (_WIDTH, round(_WIDTH * picture.height / picture.width))
        small = picture.convert("RGB").resize(size_wh, Image.Resampling.LANCZOS)
    path = FOLDER / f"control-{example.name}.png"
    small.quantize(_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:,.0f} kB")
    return path.stat().st_size


if __name__ == "__main__":
    main()
