"""The commands, with settings in the environment: in this process, or in one of their own, as a person runs them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.harness.stack import ROOT
from yolo_backend.cli.app import main
from yolo_backend.settings import setting_variables

TIMEOUT_S = 240
_BENCHMARK_TIMEOUT_S, _END_TIMEOUT_S = 600, 120


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*arguments: str | Path, environment: Mapping[str, str], cwd: Path, text_in: str | None = None) -> Done:
    """Run a command in this process, with these settings and no others; `cwd` is a folder without a `.env`."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        _as_in_a_process_of_its_own(arguments, environment, cwd),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO((text_in or "").encode()))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert code is None or isinstance(code, int), code
    return Done(code or 0, out.getvalue(), err.getvalue())


def exit_code(command: str, *arguments: str) -> int:
    """Run a command in this process, with the test's own environment and streams; its exit code."""
    with patch.object(sys, "argv", ["yolo-backend", command, *arguments]), _heeding_ctrl_c():
        try:
            main()
        except SystemExit as ended:
            return int(str(ended.code or 0))
    return 0


def run_json(*arguments: str | Path, environment: Mapping[str, str], cwd: Path) -> Any:
    """What a command that must succeed prints with `--json`."""
    done = run_command(*arguments, "--json", environment=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def start_command(
    *arguments: str | Path, environment: Mapping[str, str], cwd: Path, **options: Any
) -> subprocess.Popen[str]:
    """Start a command in a process of its own, with these settings and no others."""
    with _heeding_ctrl_c():  # which the process inherits
        return subprocess.Popen(
            [sys.executable, "-m", "yolo_backend", *map(str, arguments)],
            env={**_without_settings(os.environ), "PYTHONPATH": str(ROOT), **environment},
            cwd=cwd,
            text=True,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )


def run_process(*arguments: str | Path, environment: Mapping[str, str], cwd: Path, text_in: str | None = None) -> Done:
    """Run a command in a process of its own, to its end."""
    stdin = subprocess.DEVNULL if text_in is None else subprocess.PIPE
    with start_command(*arguments, environment=environment, cwd=cwd, stdin=stdin) as process:
        stdout, stderr = process.communicate(text_in, TIMEOUT_S)
    return Done(process.returncode, stdout, stderr)


def run_benchmark(name: str, *arguments: str, data_dir: Path) -> Done:
    """Run one of `benchmarks/` in a process of its own, to its end. Raises subprocess.TimeoutExpired after 600 s."""
    with _heeding_ctrl_c():  # which the process inherits
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments],
            env={**os.environ, "TEST_DATA_DIR": str(data_dir.resolve())},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    with process:
        try:
            stdout, stderr = process.communicate(timeout=_BENCHMARK_TIMEOUT_S)
        except BaseException:
            process.send_signal(signal.SIGINT)  # killed, it would leave behind the servers that it has started
            try:
                process.communicate(timeout=_END_TIMEOUT_S)
            finally:
                process.kill()
            raise
    return Done(process.returncode, stdout, stderr)


@contextlib.contextmanager
def _as_in_a_process_of_its_own(
    arguments: tuple[str | Path, ...], environment: Mapping[str, str], cwd: Path
) -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    with (
        patch.dict(os.environ, {**_without_settings(os.environ), **environment}, clear=True),
        patch.object(sys, "argv", ["yolo-backend", *map(str, arguments)]),
        contextlib.chdir(cwd),
        _heeding_ctrl_c(),
    ):
        try:
            yield
        finally:
            root.setLevel(level)
            root.handlers[:] = handlers


@contextlib.contextmanager
def _heeding_ctrl_c() -> Iterator[None]:
    """As on a terminal: tests that a script runs in the background have inherited that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in setting_variables()}
