"""A PostgreSQL of the test's own, for a Label Studio that keeps its data there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.harness.stack import LabelStudioServer, StackError, label_studio_server, pick_port
from yolo_backend.label_studio.storing import QUICK_IMPORTS

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
_USER = "postgres"
_DEBIANS = "/usr/lib/postgresql"  # a folder for each version, which isn't on the path
_TIMEOUT_S = 60


@cache
def find_postgres() -> Path | None:
    """The folder with `initdb` and `pg_ctl`: the newest of Debian's, else the one on the path."""
    newest = sorted(Path(_DEBIANS).glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    found = newest[-1] if newest else shutil.which("pg_ctl")
    return Path(found).resolve().parent if found else None


@contextlib.contextmanager
def postgres_server() -> Iterator[Mapping[str, str]]:
    """Start PostgreSQL on a free loopback port, empty; gives the settings of a Label Studio that uses it.

    It refuses to run as root, so then it runs as `postgres`, who can't look into pytest's folders: its data lie in a
    temporary folder of its own, and are gone at the end. Raises StackError.
    """
    programs = find_postgres()
    if programs is None:
        raise StackError("no PostgreSQL is installed: `apt-get install postgresql` gets one")
    with tempfile.TemporaryDirectory(prefix="yolo-postgres-") as name:
        folder, port = Path(name), pick_port(0)
        if os.getuid() == 0:
            shutil.chown(folder, _USER)
        # Whether the data outlive a power cut is nobody's question here.
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
        _run(programs / "initdb", "-D", folder / "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        _run(programs / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-o", options, "-w", "start")
        try:
            yield {
                "DJANGO_DB": "default",
                "POSTGRE_NAME": _USER,
                "POSTGRE_USER": _USER,
                "POSTGRE_PASSWORD": "",
                "POSTGRE_HOST": "127.0.0.1",
                "POSTGRE_PORT": str(port),
            }
        finally:
            _run(programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")


@contextlib.contextmanager
def label_studio_on(database: str, folder: Path, *, quick_imports: bool = False) -> Iterator[LabelStudioServer]:
    """Start a new Label Studio in `folder`, on "SQLite" or on "PostgreSQL". Raises StackError.

    With `quick_imports`, as Compose and the demo start it.
    """
    with contextlib.ExitStack() as stack:
        environment = dict(stack.enter_context(postgres_server())) if database == POSTGRESQL else {}
        if quick_imports:
            environment[QUICK_IMPORTS] = "true"
        yield stack.enter_context(label_studio_server(folder, pick_port(0), environment=environment))


def _run(*command: str | Path) -> None:
    as_user = ["runuser", "-u", _USER, "--"] if os.getuid() == 0 else []
    # Its output goes to files: a server that pg_ctl leaves behind would hold a pipe open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [*as_user, *command], cwd="/", stdout=output, stderr=output, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode:
            output.seek(0)
            raise StackError(f"{Path(command[0]).name} failed: {output.read().decode(errors='replace')[-500:]}")
