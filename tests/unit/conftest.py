"""Unit tests import no torch, start no process and talk to loopback fakes only; here they are held to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_SLOW_IMPORTS = {"torch", "ultralytics", "ray", "playwright", "label_studio_ml", "matplotlib"}
_PROCESS_EVENTS = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}

_problems: list[str] | None = None  # None while no unit test runs


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _problems is None:
        return
    if event in _PROCESS_EVENTS:
        _problems.append(f"starts a process: {arguments[0]!r}")
    elif event == "import" and arguments[0] in _SLOW_IMPORTS:
        _problems.append(f"imports {arguments[0]}")
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
        if not host.startswith("127.") and host not in {"::1", "localhost"}:
            _problems.append(f"connects to {host}")


sys.addaudithook(_watch)  # for good: there is no way to take one away


def pytest_collection_finish(session: pytest.Session) -> None:
    """What a test module imports by itself is imported before any test runs; playwright is asked for a browser, too."""
    only_unit_tests = all("unit" in item.path.parts for item in session.items)
    if only_unit_tests and (imported := (_SLOW_IMPORTS - {"playwright"}) & sys.modules.keys()):
        pytest.exit(f"a module of tests/unit imports {', '.join(sorted(imported))}: move it to tests/integration", 1)


@pytest.fixture(autouse=True)
def _held_to_be_quick() -> Iterator[None]:
    global _problems  # noqa: PLW0603  the hook stays, and this says whether it looks
    _problems = []
    try:
        yield
        assert not _problems, "a unit test " + "; ".join(_problems) + ": move it to tests/integration"
    finally:
        _problems = None
