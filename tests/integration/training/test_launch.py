"""Trainings in processes of their own, beside a Label Studio whose scenes somebody has labelled.

They give way to everything else, so nothing may run beside them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.labelled_label_studio import LABELS, PROJECT, TOKEN
from tests.harness.command import run_process, start_command
from tests.harness.stack import ROOT
from tests.harness.training_house import OPTIONS, House, is_fitting
from tests.harness.waiting import wait_for
from yolo_backend.detection.record import read_record
from yolo_backend.settings import load_settings
from yolo_backend.training import launch
from yolo_backend.training.launch import CancelError, TrainingStartError, cancel_running, start
from yolo_backend.training.lock import TrainingLock, was_cut_off
from yolo_backend.training.records import Options
from yolo_backend.training.registry import Registry

pytestmark = pytest.mark.alone

END_S = 5.0


def test_a_project_that_nobody_knew_is_trained_and_served(house: House) -> None:
    """The whole way, by the command, in some CPU seconds."""
    house.studio.thresholds = {"Mutter": 0.99}
    done = house.train("--minutes", "0.4", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() == {
        "run", "promoted", "reason", "model_version", "images", "labels", "map50", "map50_95",
    }  # fmt: skip
    # Three validation images are too few to judge by: the first model serves all the same.
    assert (result["run"], result["promoted"]) == ("1", True)
    assert result["images"] == {"train": 10, "val": 4}
    assert result["labels"].keys() == set(LABELS)
    assert result["model_version"].startswith(f"project-{PROJECT}-")
    assert house.models.promoted() == "1"
    assert result["labels"]["Mutter"]["threshold"] == 0.99
    record = read_record(house.models.file)
    assert record
    assert record.thresholds.keys() == set(LABELS)
    assert record.thresholds["Mutter"] < 0.91, "what the model learnt, so that the config's own can be taken out"
    manifest = house.models.manifest_of("1")
    assert manifest
    assert len(manifest.tasks) == 14
    assert manifest.epochs
    assert manifest.batch
    assert not (house.models.folder_of("1") / "work").exists()
    assert (house.models.folder_of("1") / "training.log").exists()


def test_while_it_fits_the_kernel_lets_others_go_first_and_it_ends_in_a_moment(house: House) -> None:
    training = house.started_until(is_fitting)
    pid = training.process.pid
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    assert os.getpgid(pid) == pid
    assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    # Another one can't begin meanwhile, whoever starts it.
    with pytest.raises(TrainingStartError, match=r"A training runs in MODEL_DIR already \(run 1 of project 7"):
        house.start()
    began = time.monotonic()
    training.process.terminate()
    training.process.wait(END_S)
    assert time.monotonic() - began < END_S
    run = training.wait()
    assert (run.state, run.failure) == ("cancelled", "It was cancelled, and what serves is as before")
    assert TrainingLock(house.settings.model_dir).holder() is None
    assert house.models.promoted() is None


def test_a_training_ends_with_who_started_it(house: House) -> None:
    command = ("train", "--project", str(PROJECT), "--minutes", "20", "--image-size", "160")
    lock = TrainingLock(house.settings.model_dir)
    with start_command(*command, environment=house.environment, cwd=house.settings.model_dir) as parent:
        wait_for(lambda: (holder := lock.holder()) and holder.run)
        wait_for(lambda: is_fitting(house.models.run("1")))
        parent.kill()
        parent.communicate()
        wait_for(lambda: lock.holder() is None, END_S)
    assert was_cut_off(house.models.run("1"), lock.holder())
    # The next one begins anew, and says what became of that one.
    house.start()
    assert house.models.run("1").state == "failed"
    assert "cut off" in str(house.models.run("1").failure)
    assert not was_cut_off(house.models.run("1"), lock.holder())


def test_a_process_that_is_killed_is_told_with_what_to_do(house: House) -> None:
    training = house.started_until(is_fitting)
    training.process.kill()
    run = training.wait()
    assert run.state == "failed"
    assert "most likely because memory ran out" in str(run.failure)
    assert house.models.run("1") == run
    assert house.models.promoted() is None


def test_a_process_that_dies_before_its_run_has_no_log_that_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "CHILD", "yolo_backend.training.no_such_module")
    with pytest.raises(
        TrainingStartError, match=r"died \(exit status 1\): what it printed last, here or in the server"
    ):
        start(7, Options("demo", 1), load_settings(model_dir=tmp_path))


def test_it_is_cancelled_from_another_process(house: House) -> None:
    training = house.started_until(is_fitting)
    done = run_process(
        "train", "--project", str(PROJECT), "--cancel", environment=house.environment, cwd=house.settings.model_dir
    )
    assert done.returncode == 0, done.stderr
    assert "Cancelled run 1 of project 7" in done.stdout
    assert training.wait().state == "cancelled"


def test_it_is_cancelled_by_a_file_where_no_signal_arrives(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    training = house.started_until(is_fitting)
    monkeypatch.setattr("yolo_backend.training.launch._is_child", lambda _: False)
    assert cancel_running(house.settings.model_dir, lambda _: True).run == "1"
    assert training.wait().state == "cancelled"


def test_what_isn_t_there_can_t_be_cancelled(house: House) -> None:
    with pytest.raises(CancelError, match="No training of this project runs"):
        cancel_running(house.settings.model_dir, lambda _: True)


def test_an_export_is_no_base(house: House) -> None:
    (house.settings.model_dir / "cells.onnx").write_bytes(b"\x08\x09:\x00")
    moved = house.settings.model_copy(update={"model_root": house.settings.model_dir})
    with pytest.raises(TrainingStartError, match=r"cells\.onnx is an export, .* name the \.pt that it was made of"):
        start(PROJECT, Options("cells.onnx", 1), moved)


@pytest.mark.parametrize(
    ("scenes", "options", "expected"),
    [
        (
            4,
            (),
            "A training needs at least 10 labelled images with boxes, and project 7 has 4: label and submit 6 more",
        ),
        (14, ("--base", "nothing.pt"), "nothing.pt are not in MODEL_ROOT"),
    ],
)
def test_what_can_t_begin_is_one_line(scenes: int, options: tuple[str, ...], expected: str, house: House) -> None:
    house.studio.scenes = scenes
    done = house.train("--json", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_predictions_that_nobody_submitted_are_told_where_labels_are_too_few(house: House) -> None:
    """As of labels that were registered without `--as annotations`."""
    house.studio.scenes, house.studio.unsubmitted = 14, 10
    assert house.train_here(OPTIONS).failure == (
        "A training needs at least 10 labelled images with boxes, and project 7 has 4: label and submit 6 more, and "
        "train again. Tasks whose predictions nobody submitted aren't trained on: there are 10"
    )


def test_a_label_studio_that_is_away_is_one_line(house: House) -> None:
    house.studio.away = True
    done = house.train("--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_ctrl_c_cancels(house: House) -> None:
    command = ("train", "--project", str(PROJECT), "--minutes", "20", "--image-size", "160")
    with start_command(*command, environment=house.environment, cwd=house.settings.model_dir) as process:
        wait_for(lambda: Registry(house.settings.model_dir).projects() and is_fitting(house.models.run("1")))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=2 * END_S)
    assert process.returncode == 130
    assert "The training was cancelled" in stderr
    assert house.models.run("1").state == "cancelled"


def test_importing_what_starts_a_training_brings_no_torch() -> None:
    """A server starts one, and its unit tests must not pay for it."""
    script = "import sys, yolo_backend.training.launch, yolo_backend.training.run; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
