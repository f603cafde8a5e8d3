"""`sample`: its options, and what is told of those that don't go together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.harness.command import exit_code
from tests.harness.http_server import StartServer, reply
from tests.harness.studio_client import BCCD_CONFIG
from yolo_backend.cli import sample as sample_module
from yolo_backend.cli.common import UNUSABLE, CommandError
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.registering.items import RegisterError
from yolo_backend.sampling.choosing import Sample
from yolo_backend.sampling.pool import Pool, PoolImage
from yolo_backend.sampling.scoring import Scored
from yolo_backend.sampling.uncertainty import AGGREGATES, MEASURES

run = partial(exit_code, "sample")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--diverse", "--strategy", "random"], "--diverse is about the most uncertain"),
        (["--how", "local-files"], "Set LOCAL_FILES_DOCUMENT_ROOT to the folder that Label Studio serves"),
        (["nowhere"], "nowhere is no folder, no file, no glob"),
        (["empty"], "No image is in the folder empty"),
        (["--report", "file/report"], "file/report can't be made: Not a directory: name another --report"),
        ([], "Label Studio doesn't answer at http://127.0.0.1:1 (connection refused): start it, or correct LABEL_"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    Path("file").touch()

    assert run(*arguments, "-p", "1") == UNUSABLE

    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--count", "0"), ("--floor", "1.5"), ("--empty", "-1"), ("--measure", "guess"), ("--aggregate", "median")],
)
def test_an_option_out_of_its_range_is_refused(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert run("-p", "1", option, value) == UNUSABLE
    assert f"Invalid value for '{option}'" in capsys.readouterr().err.replace("--count' / '-n", "--count")


@pytest.mark.parametrize(
    ("option", "names"), [("--measure", MEASURES), ("--aggregate", AGGREGATES)], ids=["measure", "aggregate"]
)
def test_all_measures_and_aggregates_can_be_asked_for(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, names: dict[str, object]
) -> None:
    for name in names:
        run("-p", "1", option, name)
        assert "Label Studio doesn't answer" in capsys.readouterr().err


def test_a_project_of_several_images_wants_a_control(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], serve: StartServer
) -> None:
    config = """<View><Image name="a" value="$a"/><Image name="b" value="$b"/>
    <RectangleLabels name="on_a" toName="a"><Label value="x"/></RectangleLabels>
    <RectangleLabels name="on_b" toName="b"><Label value="x"/></RectangleLabels></View>"""
    body = json.dumps({"title": "two", "label_config": config})
    studio = serve(reply(body.encode(), Content_Type="application/json"))
    environment.setenv("LABEL_STUDIO_URL", studio.url)
    Path("a.jpg").write_bytes(b"x")

    assert run("a.jpg", "-p", "1") == UNUSABLE

    assert "give --control, one of on_a, on_b" in capsys.readouterr().err


def test_where_registering_breaks_off_the_rest_is_asked_for_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def register_chosen(*_: object) -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise RegisterError("1 of 4 were registered, then it failed. Run it again for the rest", "Wait, and run it")

    monkeypatch.setattr(sample_module, "register_chosen", register_chosen)
    images = [PoolImage(name, name) for name in "abcd"]
    (control,) = parse_labeling_config(BCCD_CONFIG).controls
    project = Project(Studio("http://127.0.0.1:1", "0" * 40), 15, "Cells", BCCD_CONFIG)
    with pytest.raises(CommandError) as raised:
        sample_module._deliver(
            project, Sample(list(map(Scored.unseen, images)), [], []), Pool(images, 4, control, is_new=True)
        )
    assert str(raised.value) == "1 of 4 were registered, then it failed. Wait, and run it with --count 3 for the rest"
