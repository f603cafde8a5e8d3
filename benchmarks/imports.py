"""An import of predictions into a project that holds many, with the flag and without: `python -m benchmarks.imports`.

A Label Studio of its own for each row; the table stands in docs/journal/speed.md. PostgreSQL has to be installed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from tests.harness.postgres import POSTGRESQL, SQLITE, label_studio_on
from tests.harness.report import made_by, table, write_section
from tests.harness.stack import ROOT, bypass_proxies
from tests.harness.studio_client import StudioClient

_REPORT = ROOT / "docs" / "journal" / "speed.md"
_TASKS, _IMPORTED, _TIMES = 1500, 200, 3
_REGION = {
    "from_name": "label", "to_name": "image", "type": "rectanglelabels", "original_width": 640, "original_height": 480,
    "value": {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["RBC"]},
}  # fmt: skip


def main() -> None:
    """Measure, and write the table."""
    bypass_proxies()
    began_at = time.monotonic()
    rows = []
    for database in (SQLITE, POSTGRESQL):
        for quick in (False, True):
            with (
                tempfile.TemporaryDirectory() as folder,
                label_studio_on(database, Path(folder) / "label-studio", quick_imports=quick) as server,
            ):
                client = StudioClient(server.url, server.personal_access_token())
                rows.append([database, "on" if quick else "off", *_measured(client)])
                print(*rows[-1], sep="\t", flush=True)
    head = ["database", "flag", "into a fresh project", f"where {_TASKS:,} of {_TASKS:,} are predicted"]
    how = made_by("imports", time.monotonic() - began_at)
    write_section("imports", f"{table(head, rows)}\n\n{how}", _REPORT)


def _measured(client: StudioClient) -> list[str]:
    cells = []
    for predicted in (0, _TASKS):
        project = client.create_project(f"{predicted} predicted")
        old = {"predictions": [{"result": [_REGION], "model_version": "old"}]} if predicted else {}
        client.import_tasks(project, [{"data": {"image": "x"}} | old for _ in range(_TASKS)])
        task_ids = [int(task["id"]) for task in client.tasks(project)]
        took_s = []
        for number in range(_TIMES):  # each for other tasks
            some = task_ids[number * _IMPORTED : (number + 1) * _IMPORTED]
            predictions = [{"task": task_id, "result": [_REGION] * 5, "model_version": "new"} for task_id in some]
            started_at = time.monotonic()
            answer = client.call("POST", f"/api/projects/{project}/import/predictions", json=predictions)
            took_s.append(time.monotonic() - started_at)
            if answer["created"] != _IMPORTED:
                raise SystemExit(f"Label Studio created {answer['created']} of {_IMPORTED}")
        cells.append(f"{statistics.median(took_s):.2f} s")
    return cells


if __name__ == "__main__":
    main()
