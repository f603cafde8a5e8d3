"""The demo: a real Label Studio, a real backend, scenes with known boxes. `make demo`, `make demo-check`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from label_studio_sdk import LabelStudio

from yolo_backend.addresses import file_name_in
from yolo_backend.connecting.connect import ensure_connected, ensure_project, labeling_config_for
from yolo_backend.demo.checking import (
    IOU_THRESHOLD,
    LABELS,
    SCORE_THRESHOLD,
    Shown,
    print_table,
    problems_of,
    wait_for_predictions,
)
from yolo_backend.demo.scenes import Scene, draw_scene, save_scene
from yolo_backend.demo.stack import (
    LABEL_STUDIO,
    ROOT,
    LabelStudioServer,
    StackError,
    backend_server,
    bypass_proxies,
    has_data,
    label_studio_server,
    pick_port,
)
from yolo_backend.detection.naming import DEMO
from yolo_backend.errors import UserError
from yolo_backend.label_studio.projects import open_project
from yolo_backend.label_studio.storing import QUICK_IMPORTS
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.drawing import draw_contact_sheet
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.registering.items import Item
from yolo_backend.registering.registration import register

_OUTPUT = ROOT / "demo-output"
_SCENES = 24
_MODEL = "YOLO demo"
_TITLE = "YOLO demo: nuts, bolts and washers"
_LATER_S = 180.0
_FIRST_START, _LATER_START = "its first start makes a database: 1 to 3 minutes", "20 to 60 s"


def main() -> None:
    """Run the demo; with `--check`, end by itself with exit code 0 only if everything is right."""
    parser = argparse.ArgumentParser(description="A real Label Studio with predictions of the embedded weights.")
    parser.add_argument("--check", action="store_true", help="check the stored predictions, then end")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where its data are kept (%(default)s)")
    options = parser.parse_args()
    # Ctrl-C too, for it is ignored in what a script starts in the background.
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)
    bypass_proxies()
    try:
        problems = _run(options.folder.resolve() / ("check" if options.check else "demo"), check=options.check)
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped.")
        sys.exit(130 if options.check else 0)
    if options.check:
        for problem in problems:
            print(f"FAILED: {problem}")
        print("The demo check failed" if problems else "The demo check passed")
        sys.exit(1 if problems else 0)


def _run(kept: Path, *, check: bool) -> list[str]:
    if not LABEL_STUDIO.exists():
        raise StackError(f"There is no Label Studio at {LABEL_STUDIO}: `make demo` installs it")
    with ExitStack() as stack:
        studio_port, backend_port = _ports()
        folder = stack.enter_context(_own_folder(kept))
        drawing = stack.enter_context(ThreadPoolExecutor(1)).submit(_draw_scenes, folder / "scenes")
        is_new = not has_data(folder / "label-studio")
        print(f"Starting Label Studio ({_FIRST_START if is_new else _LATER_START}) ...", flush=True)
        studio = stack.enter_context(
            label_studio_server(
                folder / "label-studio", studio_port, environment={QUICK_IMPORTS: "true"}, is_new=is_new
            )
        )
        token = studio.personal_access_token()
        print("Starting the backend (5 to 20 s) ...", flush=True)
        environment = {
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": token,
            "LABEL_STUDIO_MEDIA_ROOT": str(studio.media_root),
            "TRAINING": "on",
            "MODEL_NAME": DEMO,
            "MODEL_SCORE_THRESHOLD": str(SCORE_THRESHOLD),
            "MODEL_IOU_THRESHOLD": str(IOU_THRESHOLD),
            "MODEL_DIR": str(folder / "backend"),
        }
        backend = stack.enter_context(backend_server(backend_port, environment, folder / "backend" / "backend.log"))
        client = LabelStudio(base_url=studio.url, api_key=token)
        if check:
            _delete_projects(client)
        project = ensure_project(Studio(studio.url, token), _TITLE, labeling_config_for(LABELS))
        shown = _predict_scenes(studio, client, project, backend.url, drawing.result())
        print_table(shown)
        picture = _OUTPUT / "predictions.jpg"
        draw_contact_sheet((item.as_drawn() for item in shown), picture)
        print(f"\nThe boxes that Label Studio stored are drawn in {picture.relative_to(ROOT)}")
        if check:
            return problems_of(shown, labeling_config_for(LABELS))
        print(f"\nThe project:  {studio.url}/projects/{project}/data")
        print(f"  login:      {studio.username}\n  password:   {studio.password}")
        print(f"The backend:  {backend.url}\n")
        print("Ctrl-C stops both; `make demo` goes on with what you did here, `make clean` forgets it.", flush=True)
        threading.Event().wait()
    return []


@contextmanager
def _own_folder(kept: Path) -> Iterator[Path]:
    """This folder, which is kept; a scratch one beside it where another demo has it."""
    kept.mkdir(parents=True, exist_ok=True)
    lock = FileLock(kept.with_suffix(".lock"))  # it dies with its holder
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Another demo runs: this one has a Label Studio of its own, which goes when it ends")
        with _scratch_folder(kept.parent) as folder:
            yield folder
    else:
        with lock:
            yield kept


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder that goes when the demo ends, unless a server failed: then its log tells why."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    except StackError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _ports() -> tuple[int, int]:
    ports = []
    for name, preferred in (("Label Studio", 8080), ("the backend", 9090)):
        port = pick_port(preferred)
        if port != preferred:
            print(f"Port {preferred} is taken: {name} takes {port}")
        ports.append(port)
    return ports[0], ports[1]


def _delete_projects(client: LabelStudio) -> None:
    """What earlier checks left."""
    for project in client.projects.list(title=_TITLE):
        client.projects.delete(id=int(project.id))


def _predict_scenes(
    studio: LabelStudioServer,
    client: LabelStudio,
    project: int,
    backend_url: str,
    scenes: dict[Path, Scene],
) -> list[Shown]:
    print("Uploading the scenes that are missing ...", flush=True)
    _upload(studio, project, list(scenes))
    print("Connecting the model and retrieving predictions ...", flush=True)
    for connection in client.ml.list(project=project):
        if connection.title == _MODEL and connection.url != backend_url:  # of another start, at another port
            client.ml.delete(id=int(connection.id))
    ensure_connected(Studio(studio.url, studio.personal_access_token()), project, backend_url, _MODEL)
    started_at = time.monotonic()
    client.actions.create(
        id="retrieve_tasks_predictions",
        project=project,
        selected_items={"all": True, "excluded": []},
    )
    # On a busy machine, some are stored after the click, in the background.
    names = {path.name for path in scenes}
    stored = wait_for_predictions(lambda: _stored(client, project), names, _LATER_S)
    took_s = time.monotonic() - started_at
    predicted = sum(stored.get(name) is not None for name in names)
    print(f"{predicted} of {len(scenes)} scenes have their prediction, {took_s:.1f} s after the click\n")
    return [Shown(scene, path, stored.get(path.name)) for path, scene in scenes.items()]


def _stored(client: LabelStudio, project: int) -> dict[str, dict[str, Any] | None]:
    """The last prediction of each task, by its file's name."""
    stored = {}
    for task in client.tasks.list(project=project, fields="all"):
        predictions = [dict(prediction) for prediction in task.predictions or []]
        stored[file_name_in(task.data.get("image"))] = predictions[-1] if predictions else None
    return stored


def _draw_scenes(folder: Path) -> dict[Path, Scene]:
    folder.mkdir(parents=True, exist_ok=True)
    scenes = {}
    for seed in range(_SCENES):
        path = folder / f"bench{seed:02d}{'.png' if seed % 6 == 5 else '.jpg'}"
        scenes[path] = draw_scene(seed)
        save_scene(scenes[path], path)
    return scenes


def _upload(studio: LabelStudioServer, project_id: int, paths: list[Path]) -> None:
    project = open_project(Studio(studio.url, studio.personal_access_token()), project_id)
    control, *_ = parse_labeling_config(project.label_config).controls
    list(register(project, [Item(path) for path in paths], control))


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
