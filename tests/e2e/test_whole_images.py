"""Choices, taxonomies and numbers of what is found, on the real Label Studio: stored, drawn, checked and sampled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tests.harness.command import run_command, run_json
from tests.harness.http_server import ServedFolder
from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import StudioClient

LABELS = "".join(f'<Label value="{name}"/>' for name in ("RBC", "WBC", "Platelets"))
KINDS = (
    '<Choice value="Red" predicted_values="RBC"/><Choice value="White" predicted_values="WBC"/>'
    '<Choice value="Platelets" alias="small"/><Choice value="Other"/>'
)
TREE = (
    '<Choice value="Cells"><Choice value="WBC"/><Choice value="RBC"/></Choice><Choice value="Parts">'
    '<Choice value="Platelets"/></Choice>'
)
# People's own stand between, about which nothing is said.
CONTROLS = f"""<RectangleLabels name="boxes" toName="image">{LABELS}</RectangleLabels>
<Choices name="kinds" toName="image" choice="multiple" model_presence="true">{KINDS}</Choices>
<Choices name="surest" toName="image" model_presence="true">{KINDS}</Choices>
<Choices name="quality" toName="image"><Choice value="sharp"/><Choice value="RBC"/></Choices>
<Choices name="of_box" toName="image" perRegion="true" model_presence="true"><Choice value="RBC"/></Choices>
<Taxonomy name="tree" toName="image" choice="multiple" model_presence="true">{TREE}</Taxonomy>
<Number name="reds" toName="image" model_count="RBC" min="0"/>
<Number name="few" toName="image" model_count="RBC" max="1"/>
<Number name="age" toName="image"/>"""
CONFIG = f'<View><Image name="image" value="$image"/>{CONTROLS}</View>'
ALIASES = {"RBC": "Red", "WBC": "White", "Platelets": "small"}
PATHS = {"RBC": ["Cells", "RBC"], "WBC": ["Cells", "WBC"], "Platelets": ["Parts", "Platelets"]}


@pytest.fixture(scope="module")
def server(command_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendServer]:
    """A backend that exports nothing first."""
    environment = command_environment | {"ENGINE": "torch"}
    with backend_server(pick_port(0), environment, tmp_path_factory.mktemp("whole") / "backend.log") as server:
        wait_until_ready(server.url)
        yield server


@pytest.fixture
def addresses(image_server: ServedFolder, bccd_files: list[Path]) -> list[str]:
    for path in bccd_files[:3]:
        (image_server.path / path.name).write_bytes(path.read_bytes())
    return [f"{image_server.url}/{path.name}" for path in bccd_files[:3]]


def of(prediction: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [region for region in prediction["result"] if region["from_name"] == name]


def assert_as_the_boxes_say(prediction: dict[str, Any], config: str = CONFIG) -> None:
    """Valid, also where Label Studio's own judge lets pass what its page doesn't."""
    assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
    ids = [region["id"] for region in prediction["result"]]
    assert len(set(ids)) == len(ids)
    boxes = of(prediction, "boxes")
    labels = [box["value"]["rectanglelabels"][0] for box in boxes]
    count = Counter(labels)
    assert len(boxes) > 5
    (kinds,) = of(prediction, "kinds")
    assert sorted(kinds["value"]["choices"]) == sorted(ALIASES[label] for label in count)
    best = {
        label: max(box["score"] for box, mine in zip(boxes, labels, strict=True) if mine == label) for label in count
    }
    assert kinds["score"] == pytest.approx(sum(best.values()) / len(best))
    (surest,) = of(prediction, "surest")
    assert surest["value"] == {"choices": [ALIASES[max(best, key=lambda label: best[label])]]}
    (tree,) = of(prediction, "tree")
    assert tree["type"] == "taxonomy"
    assert sorted(tree["value"]["taxonomy"]) == sorted(PATHS[label] for label in count)
    (reds,) = of(prediction, "reds")
    assert (reds["type"], reds["value"]) == ("number", {"number": count["RBC"]})
    assert not any(of(prediction, name) for name in ("few", "age", "quality", "of_box"))


def test_they_are_stored_as_the_boxes_say(client: StudioClient, server: BackendServer, addresses: list[str]) -> None:
    project = client.create_project("whole images", CONFIG)
    client.import_tasks(project, [{"data": {"image": address}} for address in addresses])
    client.connect(project, server.url)
    client.retrieve_predictions(project)
    stored = client.predictions(project)
    assert [len(predictions) for predictions in stored.values()] == [1, 1, 1]
    for (prediction,) in stored.values():
        assert_as_the_boxes_say(prediction)


def test_the_commands_know_them(
    client: StudioClient, addresses: list[str], command_environment: dict[str, str], tmp_path: Path
) -> None:
    project = client.create_project("whole images by command", CONFIG)
    client.import_tasks(project, [{"data": {"image": address}} for address in addresses])
    environment, pictures = command_environment | {"ENGINE": "torch"}, tmp_path / "pictures"

    options = ("-n", "1", "--register", "--report", tmp_path / "report")
    sampled = run_json("sample", "-p", str(project), *options, environment=environment, cwd=tmp_path)
    assert len(sampled["chosen"]) == 1
    (chosen,) = [predictions[0] for predictions in client.predictions(project).values() if predictions]
    assert_as_the_boxes_say(chosen)  # as the server would, though boxes were looked at further down

    report = run_json("prelabel", "-p", str(project), "--out", pictures, environment=environment, cwd=tmp_path)
    assert (report["stored"], report["failed"]) == (2, [])
    stored = client.predictions(project)
    for (prediction,) in stored.values():
        assert_as_the_boxes_say(prediction)
        assert prediction["model_version"] == report["model_version"]
    for path in sorted(pictures.glob("*.png")):
        corner = np.asarray(Image.open(path).convert("RGB"), np.int16)[:60, :200]
        assert len(np.unique(corner.reshape(-1, 3), axis=0)) > 50

    findings = json.loads(
        run_command("check", "-p", str(project), "--json", environment=environment, cwd=tmp_path).stdout
    )
    labels = [finding["detail"] for finding in findings if finding["check"] == "labels"]
    assert any(detail.startswith("kinds on image: RBC → Red above 0.25; WBC → White") for detail in labels)
    assert any(detail.startswith("reds on image: RBC → RBC above 0.25") for detail in labels)
    assert not any("not served" in detail for detail in labels)


PAGES = f"""<View><Image name="image" valueList="$pages"/>
<RectangleLabels name="boxes" toName="image">{LABELS}</RectangleLabels>
<Number name="all" toName="image" model_count="RBC"/>
<Number name="each" toName="image" model_count="RBC" perItem="true"/>
<Choices name="kinds" toName="image" choice="multiple" model_presence="true">{KINDS}</Choices></View>"""


def test_of_several_pages_there_is_one_result_or_one_of_each(
    client: StudioClient, server: BackendServer, addresses: list[str]
) -> None:
    project = client.create_project("pages", PAGES)
    client.import_tasks(project, [{"data": {"pages": addresses[:2]}}])
    client.connect(project, server.url)
    client.retrieve_predictions(project)
    ((prediction,),) = client.predictions(project).values()
    reds = Counter(box["item_index"] for box in of(prediction, "boxes") if box["value"]["rectanglelabels"] == ["RBC"])
    assert set(reds) == {0, 1}
    assert {one["item_index"]: one["value"]["number"] for one in of(prediction, "each")} == reds
    (together,) = of(prediction, "all")
    assert together["value"] == {"number": sum(reds.values())}
    (kinds,) = of(prediction, "kinds")
    assert "item_index" not in together.keys() | kinds.keys()
