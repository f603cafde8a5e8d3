"""The runs of a project: counted up, promoted and taken back, told of after whatever was killed meanwhile."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from yolo_backend.detection.record import TrainedRecord, add_record
from yolo_backend.detection.trained import withdraw_trained
from yolo_backend.detection.weights import WeightsError, file_fingerprint
from yolo_backend.training import registry as registry_module
from yolo_backend.training.records import Comparison, ImageCounts, Manifest, Options, Result, TaskSource, Verdict
from yolo_backend.training.registry import VALIDATION, ProjectModels, Registry, RegistryError

KEY = "7-00c0ffee"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectModels:
    monkeypatch.setattr("yolo_backend.detection.weights.content_problem", lambda path: None)
    return Registry(tmp_path).project(KEY)


def train(models: ProjectModels, score: float | None = None) -> str:
    """A run that ended, with weights."""
    run = models.begin_run(Options("demo", 1))
    path = models.folder_of(run.run) / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(run.run))
    add_record(path, TrainedRecord({"newt": 0.5}, run.run, models.key))
    result = Result(run.run, True, "", None, ImageCounts(8, 2), map50=Comparison(candidate=score))
    models.write(replace(run, state="ended", result=result))
    return run.run


def serving(models: ProjectModels) -> str | None:
    """What a server would find."""
    if not models.file.exists():
        return None
    with zipfile.ZipFile(models.file) as archive:
        return str(pickle.loads(archive.read("weights/data.pkl")))


# Runs


def test_runs_are_counted_up_and_told_newest_first(models: ProjectModels) -> None:
    assert models.runs() == []
    runs = [models.begin_run(Options("demo", 1)) for _ in range(11)]
    assert [run.run for run in runs] == [str(number) for number in range(1, 12)]
    assert [run.run for run in models.runs()] == [str(number) for number in range(11, 0, -1)]
    assert models.runs()[0] == runs[-1]
    assert {run.state for run in runs} == {"collecting"}
    assert models.run("3") == runs[2]


def test_a_number_that_another_process_has_just_taken_is_left_to_it(
    models: ProjectModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.begin_run(Options("demo", 1))
    monkeypatch.setattr(ProjectModels, "_numbers", lambda _: [])
    assert models.begin_run(Options("demo", 1)).run == "2"


@pytest.mark.parametrize("content", ["", '{"run": "1", "pro', "[]", "\0\0\0", None])
def test_a_broken_run_was_cut_off_and_is_no_crash(models: ProjectModels, content: str | None) -> None:
    models.begin_run(Options("demo", 1))
    path = models.folder_of("1") / "run.json"
    path.write_text(content) if content is not None else path.unlink()
    (run,) = models.runs()
    assert (run.run, run.project, run.is_over) == ("1", KEY, False)
    assert "can't be read" in run.remarks[0]
    assert models.begin_run(Options("demo", 1)).run == "2"


def test_what_is_no_run_is_passed_over(models: ProjectModels) -> None:
    models.begin_run(Options("demo", 1))
    (models.folder / "runs" / "notes").mkdir()
    (models.folder / "runs" / ".DS_Store").touch()
    assert len(models.runs()) == 1


def test_a_run_that_is_not_there_is_told_with_those_that_are(models: ProjectModels) -> None:
    with pytest.raises(RegistryError, match="has no run 3: train one first"):
        models.run("3")
    train(models)
    for name in ("3", "../1", ""):
        with pytest.raises(RegistryError, match="name one of 1"):
            models.run(name)


def test_a_run_is_written_whole_or_not_at_all(models: ProjectModels, monkeypatch: pytest.MonkeyPatch) -> None:
    run = models.begin_run(Options("demo", 1))

    def killed(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(OSError, match="no space"):
        models.write(replace(run, state="fitting"))
    assert models.runs() == [run]
    assert [path.name for path in models.folder_of("1").iterdir()] == ["run.json"]


def test_a_full_disk_leaves_no_run_that_never_began(models: ProjectModels, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:

        def is_full(*_: object) -> None:
            raise OSError("no space left")

        patched.setattr("os.fsync", is_full)
        with pytest.raises(OSError, match="no space"):
            models.begin_run(Options("demo", 1))
    assert models.runs() == []
    assert models.begin_run(Options("demo", 1)).run == "1"


def test_what_a_run_is_made_from_is_no_part_of_what_is_read_all_the_time(models: ProjectModels) -> None:
    """Of 5,000 tasks it is a megabyte, and a run.json is written each second, and read for each look at the page."""
    run = models.begin_run(Options("demo", 1))
    assert models.manifest_of("1") is None
    before = (models.folder_of("1") / "run.json").read_bytes()
    manifest = Manifest((TaskSource(1, 2, "ab", "cd"),), "ef", epochs=40, batch=16, threads=2, versions={"torch": "2"})
    models.write_manifest("1", manifest)
    assert models.manifest_of("1") == manifest
    assert (models.folder_of("1") / "run.json").read_bytes() == before
    assert models.runs() == [run]


def test_what_a_killed_process_left_half_written_goes(models: ProjectModels) -> None:
    models.begin_run(Options("demo", 1))
    in_run, in_project = models.folder_of("1") / ".run.json.0a1b2c3d", models.folder / ".asked.json.0a1b2c3d"
    kept = [models.folder_of("1") / name for name in (".run.json", "weights.0a1b2c3d", ".nfs0a1b2c3d")]
    for path in (in_run, in_project, *kept):
        path.touch()
    models.tidy_up()
    assert not in_run.exists()
    assert in_project.exists(), "another process may be writing it"
    os.utime(in_project, (0, 0))
    models.tidy_up()
    assert not in_project.exists()
    assert all(path.exists() for path in kept)


# Promotion


def test_a_promoted_run_serves_as_it_is(models: ProjectModels) -> None:
    assert models.promoted() is None
    run = train(models)
    fingerprint = models.promote(run)
    assert (models.promoted(), serving(models)) == (run, run)
    assert fingerprint == file_fingerprint(models.file) == file_fingerprint(models.folder_of(run) / "weights.pt")
    assert models.file == models.model_dir / "trained" / KEY / "project-7.pt"


def test_the_way_back_is_the_way_that_was_come(models: ProjectModels) -> None:
    runs = [train(models) for _ in range(3)]
    for run in runs:
        models.promote(run)
    models.promote(runs[0])
    assert [models.roll_back() for _ in range(3)] == [runs[2], runs[1], runs[0]]
    assert models.roll_back() is None
    assert serving(models) is None
    with pytest.raises(RegistryError, match="nothing to roll back"):
        models.roll_back()
    taken_back = [each for each in models.promotions() if each.taken_back_at]
    assert sorted(each.run for each in taken_back) == ["1", "1", "2", "3"]


def test_what_comes_after_a_way_back_has_what_served_then_before_it(models: ProjectModels) -> None:
    first, second, third = (train(models) for _ in range(3))
    models.promote(first)
    models.promote(second)
    models.roll_back()
    models.promote(third)
    assert models.roll_back() == first


def test_promoting_what_serves_is_no_step(models: ProjectModels) -> None:
    first, second = train(models), train(models)
    for run in (first, second, second):
        models.promote(run)
    assert models.roll_back() == first


def test_a_promotion_that_was_killed_before_it_served_is_none(
    models: ProjectModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (train(models, score) for score in (0.1, 0.2, 0.9))
    models.promote(first)
    models.promote(second)
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise WeightsError("killed")

        patched.setattr(registry_module, "publish_trained", killed)
        with pytest.raises(WeightsError):
            models.promote(third)
        with pytest.raises(WeightsError):
            models.roll_back()
    assert models.promoted() == second
    assert [each.run for each in models.promotions()] == [first, second], "the third never served"
    best = models.best()
    assert best
    assert best.run == second, "the third never served"
    assert models.roll_back() == first


@pytest.mark.parametrize("error", [WeightsError("killed"), OSError("no space left")])
def test_a_first_promotion_that_failed_leaves_the_next_one_the_first(
    models: ProjectModels, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A first model serves unjudged where there is little to judge by; it is still to come."""
    run = train(models)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(registry_module, "publish_trained", fail)
    with pytest.raises(type(error)):
        models.promote(run)
    assert (models.promoted(), models.promotions()) == (None, [])


def test_a_promotion_that_can_not_be_noted_is_one(models: ProjectModels, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (train(models) for _ in range(3))
    models.promote(first)
    with monkeypatch.context() as patched:

        def is_full(*_: object) -> None:
            raise OSError("no space left")

        patched.setattr(registry_module, "write_json", is_full)
        models.promote(second)
    assert (models.promoted(), serving(models)) == (second, second)
    models.promote(third)
    assert [each.run for each in models.promotions()] == [first, second, third]
    assert [models.roll_back(), models.roll_back()] == [second, first]


def test_what_was_not_noted_is_noted_before_the_next_run(
    models: ProjectModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next run would take its model to be the first one, which serves unjudged."""
    first, second = train(models), train(models)
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise OSError("killed")

        patched.setattr(registry_module, "write_json", killed)
        models.promote(first)
    assert models.promotions() == []
    models.settle()
    assert [(each.run, each.taken_back_at) for each in models.promotions()] == [(first, None)]
    models.promote(second)
    before = models.promotions()
    models.settle()
    assert models.promotions() == before
    withdraw_trained(models.key, models.model_dir)
    models.settle()
    assert all(each.taken_back_at for each in models.promotions())


def test_a_way_back_that_was_killed_before_it_was_noted_is_one(
    models: ProjectModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (train(models) for _ in range(3))
    for run in (first, second, third):
        models.promote(run)
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise OSError("killed")

        patched.setattr(registry_module, "write_json", killed)
        with pytest.raises(OSError, match="killed"):
            models.roll_back()
    assert (models.promoted(), serving(models)) == (second, second)
    assert models.roll_back() == first


def test_without_its_notes_the_model_that_serves_can_be_taken_back(models: ProjectModels) -> None:
    models.promote(train(models))
    (models.folder / "promotions.json").write_text("[{")
    assert models.promoted() == "1"
    assert models.roll_back() is None
    models.promote("1")
    assert serving(models) == "1"


def test_weights_that_were_published_by_hand_are_of_no_run(models: ProjectModels) -> None:
    run = train(models)
    models.promote(run)
    with zipfile.ZipFile(models.file, "w") as archive:
        archive.writestr("best/data.pkl", pickle.dumps("by hand"))
    assert models.promoted() == ""
    assert models.roll_back() == run
    models.file.write_bytes(b"PK\3\4broken")
    assert models.promoted() == ""
    models.promote(run)
    assert models.promoted() == run


def test_weights_of_another_project_are_of_no_run_of_this_one(models: ProjectModels) -> None:
    other = Registry(models.model_dir).project("8-00c0ffee")
    models.promote(train(models))
    other.file.parent.mkdir(parents=True)
    other.file.write_bytes(models.file.read_bytes())
    assert other.promoted() == ""


def test_a_run_without_weights_is_not_promoted(models: ProjectModels) -> None:
    models.begin_run(Options("demo", 1))
    with pytest.raises(RegistryError, match="Run 1 has no weights any more, or never had"):
        models.promote("1")
    with pytest.raises(RegistryError, match="has no run 9"):
        models.promote("9")
    assert models.promotions() == []


def test_the_best_is_the_best_of_those_that_served_and_were_not_taken_back(models: ProjectModels) -> None:
    assert models.best() is None
    runs = [train(models, score) for score in (None, 0.4, 0.6, 0.5, 0.9)]
    models.promote(runs[0])
    assert models.best() == models.run(runs[0])
    for run in runs[1:4]:
        models.promote(run)
    assert models.best() == models.run(runs[2])
    models.promote(runs[4])
    assert models.best() == models.run(runs[4])
    models.roll_back()
    assert models.best() == models.run(runs[2])


def test_weights_are_kept_of_what_serves_of_what_served_before_of_the_best_and_of_the_latest_five(
    models: ProjectModels,
) -> None:
    runs = [train(models, score) for score in (0.9, 0.1, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2)]
    for run in runs[:4]:
        models.promote(run)
    models.prune()
    assert [run for run in runs if models.weights_of(run)] == [runs[0], *runs[2:4], *runs[5:]]
    assert [run.run for run in models.runs()] == runs[::-1], "what is told of them stays"
    assert models.roll_back() == runs[2]


def test_validation_boxes_are_kept_of_the_latest_trusted_run_of_each_kind(models: ProjectModels) -> None:
    verdicts: list[tuple[Verdict, str]] = [
        ("promote", "detect"), ("aside", "segment"), ("promote", "detect"), ("refuse", "detect"), ("refuse", "segment"),
    ]  # fmt: skip
    runs = [train(models, 0.5) for _ in verdicts]
    for run, (verdict, kind) in zip(runs, verdicts, strict=True):
        models.write(replace(models.run(run), verdict=verdict, kind=kind))
    runs.append(models.begin_run(Options("demo", 1)).run)
    files = [models.folder_of(run) / VALIDATION for run in runs]
    for file in files:
        file.write_bytes(b"{}")
    models.prune()
    assert [file.exists() for file in files] == [False, True, True, False, False, True]


def test_with_nothing_trained_there_is_nothing_to_prune(models: ProjectModels) -> None:
    models.prune()
    assert not models.folder.exists()


# Classes and sides


def test_classes_are_only_appended_to(models: ProjectModels) -> None:
    assert models.classes() == ()
    assert models.append_classes(["newt", "frog"]) == ("newt", "frog")
    assert models.append_classes(["toad", "frog"]) == ("newt", "frog", "toad")
    assert models.append_classes([]) == models.classes() == ("newt", "frog", "toad")


def test_an_image_stays_on_its_side(models: ProjectModels) -> None:
    assert models.split() == {}
    models.add_to_split({"a": "train", "b": "val"})
    models.add_to_split({"b": "train", "c": "val"})
    assert models.split() == {"a": "train", "b": "val", "c": "val"}


@pytest.mark.parametrize("content", ["", '{"a": "val"', '{"a": "both"}', "[1]"])
def test_sides_that_cannot_be_read_are_not_guessed(models: ProjectModels, content: str) -> None:
    models.add_to_split({"a": "train"})
    (models.folder / "split.json").write_text(content)
    with pytest.raises(RegistryError, match=r"split\.json is broken: take it from a backup"):
        models.add_to_split({"b": "train"})
    assert (models.folder / "split.json").read_text() == content


def test_files_are_json_that_a_person_can_read(models: ProjectModels) -> None:
    models.append_classes(["Käfer"])
    assert json.loads((models.folder / "classes.json").read_text()) == ["Käfer"]
    assert [path.name for path in models.folder.iterdir()] == ["classes.json"], "nothing is left over"
