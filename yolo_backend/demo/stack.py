"""A real Label Studio and the backend as child processes: for the demo, and below what the tests start."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from yolo_backend.errors import UserError
from yolo_backend.settings import setting_variables

ROOT = Path(__file__).resolve().parent.parent.parent
LABEL_STUDIO = ROOT / ".venv-label-studio" / "bin" / "label-studio"
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 15.0
_DATA_FOLDER = "data"
_LOGIN_FILE, _TOKEN_FILE = "login.json", "personal-access-token"
_LOOPBACK = "127.0.0.1,localhost"
_FREE_PORTS, _PORTS_TRIED = range(20_000, 32_000), 100


class StackError(UserError):
    """A process that didn't come up; the message says where its log is."""


@dataclass(frozen=True)
class LabelStudioServer:
    """A running Label Studio and its first user. The legacy token works only where it was started with them on."""

    url: str
    username: str
    password: str
    legacy_token: str
    log: Path

    @property
    def media_root(self) -> Path:
        """The folder that holds its `upload/`."""
        return self.log.with_name(_DATA_FOLDER) / "media"

    def personal_access_token(self) -> str:
        """The user's Personal Access Token, made when it is first asked for: Label Studio shows it only once.

        Raises StackError where the kept one was taken back.
        """
        file = self.log.with_name(_TOKEN_FILE)
        if not file.exists():
            _write_secret(file, self._new_personal_access_token())
            return file.read_text()
        token = file.read_text()
        answer = requests.post(f"{self.url}/api/token/refresh", json={"refresh": token}, timeout=30)
        if not answer.ok:
            raise StackError(
                f"Label Studio refuses the token in {file} ({answer.status_code}): `make clean` forgets it"
            )
        return token

    def _new_personal_access_token(self) -> str:
        """Log in as the page does and make one; Label Studio allows one for each user."""
        with requests.Session() as session:
            page = session.get(f"{self.url}/user/login/", timeout=30)
            form = {
                "email": self.username,
                "password": self.password,
                "csrfmiddlewaretoken": session.cookies["csrftoken"],
            }
            headers = {"Referer": page.url}
            # Label Studio's uwsgi closes a connection without a word, maybe while the next request is on its way.
            session.close()
            login = session.post(
                f"{self.url}/user/login/", data=form, headers=headers, timeout=30, allow_redirects=False
            )
            login.raise_for_status()
            session.close()
            headers["X-CSRFToken"] = session.cookies["csrftoken"]
            answer = session.post(f"{self.url}/api/token/", json={}, headers=headers, timeout=30)
            if answer.status_code == requests.codes.conflict:
                raise StackError(
                    "The demo's token is lost, and Label Studio shows it only once: `make clean`, start anew"
                )
            answer.raise_for_status()
            return str(answer.json()["token"])


@dataclass(frozen=True)
class BackendServer:
    """A running backend."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def label_studio_server(
    folder: Path,
    port: int,
    *,
    legacy_tokens: bool = False,
    environment: Mapping[str, str] | None = None,
    is_new: bool = True,
    program: Sequence[str | Path] = (LABEL_STUDIO,),
) -> Iterator[LabelStudioServer]:
    """Start Label Studio on SQLite in an emptied `folder`, and stop it at the end. Raises StackError.

    Not `is_new`: with the data that are there, and so with the user, tokens and password of its first start. Another
    `program` takes the same arguments.
    """
    login = _new_login(folder) if is_new else json.loads((folder / _LOGIN_FILE).read_text())
    who = {name: value for name, value in login.items() if name != "secret_key"}
    server = LabelStudioServer(url=f"http://127.0.0.1:{port}", log=folder / "label-studio.log", **who)
    settings = {
        **_label_studio_settings(folder, server.url),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true" if legacy_tokens else "false",
        # One that was started by an earlier version keeps its own.
        **({"SECRET_KEY": login["secret_key"]} if "secret_key" in login else {}),
        **(environment or {}),
    }
    command = [
        *map(str, program), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port),
        "--username", server.username, f"--password={server.password}",  # which may begin with "-"
        "--user-token", server.legacy_token,
    ]  # fmt: skip
    with _process(command, settings, server.log) as process:
        _wait_until_up(f"{server.url}/health", process, "Label Studio", server.log)
        if is_new:  # last: a first start that was cut off is made anew
            _write_secret(folder / _LOGIN_FILE, json.dumps(login))
        yield server


def _new_login(folder: Path) -> dict[str, str]:
    """The first user, token and password of a Label Studio whose folder is emptied for it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {
        "username": "demo@example.com",
        "password": secrets.token_urlsafe(9),
        "legacy_token": secrets.token_hex(20),
        # Of one that it draws itself and that begins with "$", it makes a reference at the next start: it draws
        # another then, and the token is refused.
        "secret_key": secrets.token_hex(32),
    }


def _label_studio_settings(folder: Path, url: str) -> dict[str, str]:
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / _DATA_FOLDER),
        "LABEL_STUDIO_HOST": url,
        "DJANGO_DB": "sqlite",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # Label Studio refuses a model on a loopback address unless this is off.
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }


def has_data(folder: Path) -> bool:
    """Returns True if a Label Studio was started in this folder before."""
    return (folder / _LOGIN_FILE).exists()


@contextlib.contextmanager
def backend_server(
    port: int, environment: Mapping[str, str], log: Path, entry: Sequence[str] = ("-m", "yolo_backend", "serve")
) -> Iterator[BackendServer]:
    """Start the backend under gunicorn, and stop it at the end; `entry` is what Python runs. Raises StackError."""
    command = [sys.executable, *entry, "--host", "127.0.0.1", "--port", str(port)]
    with _process(command, environment, log) as process:
        server = BackendServer(f"http://127.0.0.1:{port}", log, process)
        _wait_until_up(f"{server.url}/health", process, "The backend", log)
        yield server


def bypass_proxies() -> None:
    """Let this process talk to its own machine directly, whatever proxy is configured."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = _LOOPBACK


def pick_port(preferred: int) -> int:
    """The preferred port, or a free one where it is taken or 0. Raises StackError."""
    # None that the system gives to connections going out: such a one could be taken again before a server has it.
    for port in (*filter(None, [preferred]), *random.sample(_FREE_PORTS, _PORTS_TRIED)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise StackError("no free port was found")


def _write_secret(file: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    making = file.with_name(f"{file.name}.making")
    making.touch(mode=0o600)
    making.write_text(text)
    making.replace(file)


@contextlib.contextmanager
def _process(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    # What the caller has configured for servers of their own is not for these.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in setting_variables() and not re.match(r"LABEL_STUDIO_|HEARTEX_|DJANGO_|POSTGRE_|REDIS_", name)
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**inherited, **environment, "NO_PROXY": _LOOPBACK, "no_proxy": _LOOPBACK},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for us; we stop the whole group
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # The second round is for children of the group that outlived its leader, too.
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    ends_at = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            break
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        time.sleep(0.3)
    last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise StackError(f"{name} didn't come up at {url}; the end of {log}:\n{last_lines}")
