"""The commands, run as a person runs them: in a process of its own, with settings in the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_backend.demo.stack import ROOT
from yolo_backend.settings import setting_variables

TIMEOUT_S = 240


def start_command(
    *arguments: str | Path, environment: Mapping[str, str], cwd: Path, **options: Any
) -> subprocess.Popen[str]:
    """`python -m yolo_backend`, with these settings and no others; `cwd` is a folder without a `.env`."""
    inherited = {name: value for name, value in os.environ.items() if name not in setting_variables()}
    # A wide terminal, so that no line is broken where a test looks for it.
    settings = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.Popen(
        [sys.executable, "-m", "yolo_backend", *map(str, arguments)],
        env={**inherited, **settings, **environment},
        cwd=cwd,
        text=True,
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def run_command(
    *arguments: str | Path, environment: Mapping[str, str], cwd: Path, text_in: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it printed, and its exit code."""
    stdin = subprocess.DEVNULL if text_in is None else subprocess.PIPE
    with start_command(*arguments, environment=environment, cwd=cwd, stdin=stdin) as process:
        stdout, stderr = process.communicate(text_in, TIMEOUT_S)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run_json(*arguments: str | Path, environment: Mapping[str, str], cwd: Path) -> Any:
    """What a command that must succeed prints with `--json`."""
    done = run_command(*arguments, "--json", environment=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
