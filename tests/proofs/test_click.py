"""The benchmark of clicks: its ratios are what they say, and a short run clicks over each way. No time is judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.click_results import BUCKET, FOLDER, HTTP, Click, Part, Results, Round, Row, not_stored_once, ratios
from tests.harness.bulk import wait_until_idle
from tests.harness.command import run_benchmark
from tests.harness.http_server import StartServer, reply
from tests.harness.stack import PROCESSES, find_uwsgi


def test_a_click_is_held_against_the_rounds_own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.click_results.usable_cores", lambda: 2)
    click = Click(100, took_s=5.0, answered_s=4.0, stored_when_answered=80, studio_core_s=3.0, backend_core_s=4.0)
    predict, serving, storing = Part(100, 4.0, 5.0), Part(50, 2.5, 1.5), Part(100, 1.0, 2.0)
    rows = [
        Row("SQLite", "1 MP", 100, "320", way, [Round(click, predict, served, storing, 60.0)])
        for way, served in ((FOLDER, None), (HTTP, serving))
    ]
    assert [row.rounds[0].cores_allow for row in rows] == pytest.approx([2000 / 70, 2000 / 100])
    found = ratios(Results(rows))
    assert [each.measured for each in found] == pytest.approx([0.8, 1.0])
    assert [each.target for each in found] == [0.75, 0.9]
    assert [replace(rows[1], processes=many).processes_allow for many in (1, 2, 4)] == pytest.approx(
        [1000 / 30, 2000 / 30, 2000 / 30]
    )


@pytest.mark.parametrize(
    ("held", "wrong"),
    [
        ([1, 1, 1], None),
        ([1, 0, 1], "1 of 3 hold 0, 2 of 3 hold 1"),
        ([2, 1, 1], "2 of 3 hold 1, 1 of 3 hold 2"),
        ([1, 1], "2 of 3 hold 1"),
        ([1, 1, 1, 1], "4 of 3 hold 1"),
        ([], "none of 3 is there"),
    ],
    ids=["all once", "one missing", "one twice", "fewer tasks", "more tasks", "no task"],
)
def test_a_prediction_that_is_not_stored_once_is_told(held: list[int], wrong: str | None) -> None:
    predictions = {task_id: ["a prediction"] * number for task_id, number in enumerate(held)}
    told = [f"each task should hold one prediction: {wrong}"] if wrong else []
    assert not_stored_once(predictions, 3) == told


def test_a_backend_that_never_finishes_is_told(serve: StartServer) -> None:
    finished, working = ({"project": "7", "finished_at": at} for at in ("2026-11-29T08:00:00Z", None))
    wait_until_idle(serve(reply(json.dumps({"work": [finished]}).encode())).url, timeout_s=0)
    with pytest.raises(TimeoutError, match=r"has not finished after 0\.1 s: .*'project': '7'"):
        wait_until_idle(serve(reply(json.dumps({"work": [finished, working]}).encode())).url, 0.1, look_every_s=0.02)


@pytest.mark.timeout(900)
def test_a_short_run_clicks_over_each_way(data_dir: Path) -> None:
    cases = ["120", "120-processes"]
    run = run_benchmark("click", "--tasks", "24", "--only", *cases, "--no-report", data_dir=data_dir)
    assert run.returncode == 0, run.stdout + run.stderr
    several = [(str(PROCESSES), HTTP)] if find_uwsgi() else []
    rows = [tuple(line.split("\t")[3:5]) for line in run.stdout.splitlines() if "\t" in line]
    assert rows == [("1", FOLDER), ("1", HTTP), ("1", BUCKET), *several]
