"""How the kernel treats a training, read back from the kernel itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.stack import ROOT

SHOW = """
import json, os, threading
from pathlib import Path
from yolo_backend.training.policy import give_way, use_cores

failed = use_cores(os.sched_getaffinity(os.getpid())) + give_way(on_gpu={on_gpu})
found = []
import torch
torch.rand(400, 400) @ torch.rand(400, 400)  # with threads of its own
for task in Path("/proc/self/task").iterdir():
    found.append(os.sched_getscheduler(int(task.name)))
autogroup = Path("/proc/self/autogroup")
print(json.dumps(dict(
    failed=failed, policies=found, nice=os.getpriority(os.PRIO_PROCESS, 0), threads=torch.get_num_threads(),
    oom=int(Path("/proc/self/oom_score_adj").read_text()), cores=len(os.sched_getaffinity(0)),
    omp=os.environ["OMP_NUM_THREADS"], autogroup=autogroup.read_text() if autogroup.exists() else "",
)))
"""


def show(*, on_gpu: bool = False) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW.replace("{on_gpu}", str(on_gpu))],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="not Linux")
def test_everything_else_goes_first() -> None:
    shown = show()
    assert set(shown["policies"]) == {os.SCHED_IDLE}
    assert shown["nice"] == 19
    assert shown["oom"] == 1000
    assert shown["cores"] == len(os.sched_getaffinity(0))
    assert int(shown["omp"]) == shown["threads"]
    if Path("/proc/self/autogroup").exists():
        assert shown["autogroup"].endswith("nice 19\n")
        assert shown["failed"] == []
    else:  # a kernel without them weighs all processes alike, and needs none
        assert all("sessions" in sentence for sentence in shown["failed"])


def test_on_a_gpu_it_is_only_nice() -> None:
    shown = show(on_gpu=True)
    assert set(shown["policies"]) == {os.sched_getscheduler(0)}
    assert shown["nice"] == 19
    assert not shown["autogroup"].endswith("nice 19\n")


@pytest.mark.proof
def test_all_cores_are_used_by_a_process_that_a_pinned_thread_started() -> None:
    cores = sorted(os.sched_getaffinity(0))
    pinned = SHOW.replace("os.sched_getaffinity(os.getpid())", str(set(cores))).replace("{on_gpu}", "False")
    done = subprocess.run(
        [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{cores[0]}}})\n{pinned}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["cores"] == len(cores)
