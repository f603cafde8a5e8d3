"""The tests' way to start a real Label Studio and real backends: the demo's own, and what only tests need."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock

from yolo_backend.cores import usable_cores
from yolo_backend.demo import stack
from yolo_backend.demo.stack import (
    LABEL_STUDIO,
    ROOT,
    BackendServer,
    LabelStudioServer,
    StackError,
    backend_server,
    bypass_proxies,
    pick_port,
)

__all__ = [
    "LABEL_STUDIO",
    "ONE_THREAD",
    "PROCESSES",
    "ROOT",
    "BackendServer",
    "LabelStudioServer",
    "StackError",
    "backend_server",
    "bypass_proxies",
    "find_uwsgi",
    "label_studio_server",
    "pick_port",
    "several_processes",
    "wait_until_ready",
]

# Label Studio answers one request after the other: it can't answer anybody while it waits for a backend.
ONE_THREAD = (
    LABEL_STUDIO.with_name("python"),
    "-c",
    "from django.core.management import call_command\n"
    "from label_studio import server\n"
    "server._app_run = lambda host, port: call_command('runserver', '--noreload', '--nothreading', f'{host}:{port}')\n"
    "server.main()",
)
# As `label-studio-uwsgi` in Label Studio's Docker image serves: processes of one thread each, twice as many as cores.
PROCESSES = 2 * usable_cores()
_UWSGI = (
    "--module", "core.wsgi:application", "--processes", str(PROCESSES), "--threads", "1", "--master",
    "--single-interpreter", "--lazy-apps", "--enable-threads", "--thunder-lock", "--need-app", "--die-on-term",
    "--buffer-size", "65535", "--post-buffering", "4096", "--http-timeout", "300", "--harakiri", "120",
    "--max-requests", "5000",
)  # fmt: skip
_READY_TIMEOUT_S = 120.0


def find_uwsgi() -> Path | None:
    """The program that serves Label Studio in several processes: beside Label Studio, else the one on the path."""
    found = shutil.which("uwsgi", path=LABEL_STUDIO.parent) or shutil.which("uwsgi")
    return Path(found) if found else None


def several_processes(uwsgi: Path) -> tuple[str | Path, ...]:
    """The program that prepares Label Studio as ever, and then serves it by uwsgi."""
    return (
        LABEL_STUDIO.with_name("python"),
        "-c",
        "import os, sys\n"
        "from label_studio import server\n"
        "def serve(host, port):\n"
        f"    command = {[str(uwsgi), *_UWSGI]!r} + ['--virtualenv', sys.prefix, '--http', f'{{host}}:{{port}}']\n"
        "    os.execv(command[0], command + ['--pythonpath', os.path.dirname(server.__file__)])\n"
        "server._app_run = serve\n"
        "server.main()",
    )


@contextlib.contextmanager
def label_studio_server(
    folder: Path,
    port: int,
    *,
    legacy_tokens: bool = False,
    environment: Mapping[str, str] | None = None,
    is_new: bool = True,
    **options: Any,
) -> Iterator[LabelStudioServer]:
    """Start Label Studio as the demo does; a new one on SQLite with a copy of a database, for making one takes long."""
    is_copy = is_new and "DJANGO_DB" not in (environment or {})
    if is_copy:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(_new_data(), folder)
    with stack.label_studio_server(
        folder, port, legacy_tokens=legacy_tokens, environment=environment, is_new=is_new and not is_copy, **options
    ) as server:
        if is_copy and not legacy_tokens:
            _refuse_legacy_tokens(server)
        yield server


def _new_data() -> Path:
    """The data of a Label Studio that was started once, and its user; made once for each version that is installed.

    Whether legacy tokens are taken, its first start writes into them: they are, so that they can be switched off.
    """
    home = LABEL_STUDIO.parent.parent
    version = hashlib.sha256((ROOT / "requirements-label-studio.txt").read_bytes()).hexdigest()[:8]
    made = home / f"new-data-{version}-legacy-tokens"
    with FileLock(home / "new-data.lock"):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=home, prefix="making-") as making:
                with stack.label_studio_server(Path(making, "data"), pick_port(0), legacy_tokens=True):
                    pass
                Path(making, "data").replace(made)
    return made


def _refuse_legacy_tokens(server: LabelStudioServer) -> None:
    """As an administrator switches them off, and as they are in an installation without a word about them."""
    login = {"Authorization": f"Token {server.legacy_token}"}
    settings = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": False}
    requests.post(f"{server.url}/api/jwt/settings", json=settings, headers=login, timeout=60).raise_for_status()
    answer = requests.get(f"{server.url}/api/projects", headers=login, timeout=60)
    assert answer.status_code == requests.codes.unauthorized, answer.text


def wait_until_ready(backend_url: str) -> None:
    """Wait until a backend has its model: what is measured then doesn't wait for an export. Raises StackError."""
    ends_at = time.monotonic() + _READY_TIMEOUT_S
    while True:
        index = requests.get(f"{backend_url}/", timeout=10).json()
        if index["status"] == "UP" and index["engine"]:
            return
        if time.monotonic() > ends_at:
            raise StackError(f"the backend at {backend_url} has not loaded its model yet")
        time.sleep(0.2)
