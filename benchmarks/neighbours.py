"""Another person's calls during a click, by answer and by import: `python -m benchmarks.neighbours`.

Label Studio stores a click's predictions from the backend's answer where the backend has no token, and as the backend
imports them where it has one. Meanwhile annotations are saved and tasks are opened. The table stands in
docs/journal/reliability.md. Exits with 1 where one of these calls failed. PostgreSQL has to be installed.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.harness.bulk import LABEL_CONFIG, image_server, is_at_work
from tests.harness.neighbours import Neighbour, failures_in, percentiles
from tests.harness.postgres import POSTGRESQL, SQLITE, label_studio_on
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import (
    LabelStudioServer,
    backend_server,
    bypass_proxies,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import StudioClient
from yolo_backend.demo.scenes import draw_scene

_IMAGE_AFTER_S = 0.3
# By answer, 400 are stored, and each other one comes when its task is opened.
_LOOKED_AT_S = 60.0
_BY_ANSWER, _BY_IMPORT = "answer", "import"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=500, help="tasks of the click (%(default)s)")
    parser.add_argument("--predicted", type=int, default=200, help="tasks of another version before (%(default)s)")
    options = parser.parse_args()
    bypass_proxies()
    began_at = time.monotonic()
    rows, problems = [], []
    files = [_photo(seed) for seed in range(3)]
    with tempfile.TemporaryDirectory() as name, image_server(files, after_s=_IMAGE_AFTER_S) as images:
        for database in (SQLITE, POSTGRESQL):
            for quick in (False, True):
                folder = Path(name) / f"{database}-{quick}"
                with label_studio_on(database, folder / "label-studio", quick_imports=quick) as studio:
                    for way in (_BY_ANSWER, _BY_IMPORT):
                        cells, failures = _measured(studio, images, way, folder, options)
                        rows.append([database, "on" if quick else "off", way, *cells, str(len(failures))])
                        problems += [f"{database}, {way}: {failure}" for failure in failures]
                        print(*rows[-1], sep="\t", flush=True)
    head = ["database", "flag", "by", "stored", "saving p50 / p95", "opening p50 / p95", "failures"]
    how = made_by("neighbours", time.monotonic() - began_at)
    write_section("neighbours", f"{table(head, rows)}\n\n{how}")
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def _measured(
    studio: LabelStudioServer, images: str, way: str, folder: Path, options: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """The cells of a row, and what failed."""
    count, predicted = int(options.tasks), int(options.predicted)
    token = studio.personal_access_token()
    where = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": token}
    settings = {
        "MODEL_NAME": "demo",
        "MODEL_IMAGE_SIZE": "160",
        "DEVICE": "cpu",
        "ENGINE": "torch",
        "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
        **(where if way == _BY_IMPORT else {}),
    }
    client = StudioClient(studio.url, token)
    project = client.create_project(f"stored by {way}", LABEL_CONFIG)
    old = {"predictions": [{"result": [], "model_version": "another-00000000"}]}
    client.import_tasks(
        project,
        [{"data": {"image": f"{images}/{n}.jpg"}} | (old if n < predicted else {}) for n in range(count)],
    )
    task_ids = [int(task["id"]) for task in client.tasks(project)]
    log_size = studio.log.stat().st_size
    with backend_server(pick_port(0), settings, folder / f"{way}.log") as backend:
        wait_until_ready(backend.url)
        client.connect(project, backend.url)
        started_at = time.monotonic()
        with Neighbour(client, project, task_ids) as neighbour:
            client.retrieve_predictions(project)
            while (stored := client.total_predictions(project) - predicted) < count or _may_import(backend.url, way):
                if time.monotonic() > started_at + _LOOKED_AT_S:
                    break
                time.sleep(0.5)
            took_s = time.monotonic() - started_at
    counted = {int(task["id"]): task["total_annotations"] for task in client.tasks(project)}
    failures = neighbour.failures + failures_in(studio.log, log_size)
    if counted != {task_id: neighbour.saved[task_id] for task_id in task_ids}:
        failures.append("total_annotations isn't what was saved")
    if way == _BY_IMPORT and stored < count:
        failures.append(f"{stored} of {count} predictions are stored")
    seconds = ("{:.3f} / {:.3f} s".format(*percentiles(each)) for each in (neighbour.saving_s, neighbour.opening_s))
    return [f"{stored} in {took_s:.0f} s", *seconds], failures


def _may_import(backend_url: str, way: str) -> bool:
    """Without a token the backend keeps what it answered for a while: then Label Studio's own count is enough."""
    return way == _BY_IMPORT and is_at_work(backend_url)


def _photo(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_scene(seed).image).resize((320, 240)).save(file, "JPEG")
    return file.getvalue()


if __name__ == "__main__":
    main()
