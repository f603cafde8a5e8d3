"""Labeling configs as HumanSignal's YOLO example documents them: on the real Label Studio, with several weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from tests.fakes.fixed_weights import white, write_fixed_weights
from tests.harness.command import run_command, run_json
from tests.harness.http_server import ServedFolder
from tests.harness.pictures import encode
from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import StudioClient

IMAGE = '<Image name="image" value="$image"/>'
POINTS = f"""<View>
  <RectangleLabels name="keypoints_bbox" toName="image" model_skip="true"><Label value="person"/></RectangleLabels>
  <KeyPointLabels name="keypoints" toName="image" model_score_threshold="0.5" model_point_threshold="0.5"
    model_add_bboxes="true" model_point_size="1" model_path="pose.onnx">
    <Label value="nose" predicted_values="person" model_index="0" background="red"/>
    <View>
      <Label value="left_eye" predicted_values="person" model_index="1" background="yellow"/>
      <Label value="right_eye" predicted_values="person" model_index="2" background="yellow"/>
    </View>
  </KeyPointLabels>
  {IMAGE}
</View>"""
ONLY_POINTS = POINTS.replace('model_add_bboxes="true"', 'model_add_bboxes="false"').replace(
    POINTS[POINTS.index("  <RectangleLabels") : POINTS.index("  <KeyPointLabels")], ""
)
KINDS = (
    '<Choice value="Airplane" predicted_values="aircraft_carrier,airliner"/><Choice value="Car" predicted_values="{}"/>'
)
CHOICES = f"""<View>{IMAGE}
  <Choices name="choice" toName="image" model_score_threshold="0.25">{KINDS.format("limousine,minivan,jeep")}</Choices>
</View>"""
MULTIPLE = CHOICES.replace("model_score", 'choice="multiple" model_score').replace(
    ",jeep", '"/><Choice value="Off-road" predicted_values="jeep'
)
TAXONOMY = f"""<View>{IMAGE}
  <Taxonomy name="tree" toName="image" model_score_threshold="0.25"><Choice value="Vehicles">{KINDS.format("limousine")}
  </Choice></Taxonomy></View>"""
MIXED = """<View>
  <Image name="image1" value="$image"/>
  <RectangleLabels name="label" toName="image1" score_threshold="0.1">
    <Label value="Car" background="blue"/><Label value="truck" background="red"/></RectangleLabels>
  <Image name="image2" value="$image"/>
  <Choices name="choice" toName="image2" score_threshold="0.1"><Choice value="airliner"/>
    <Choice value="limousine"/></Choices>
  <Number name="cars" toName="image1" model_count="car"/>
</View>"""
ALL = "det.onnx, pose.onnx, cls.onnx"


@pytest.fixture(scope="module")
def environment(command_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of a backend that has weights of three kinds."""
    root = tmp_path_factory.mktemp("kinds")
    write_fixed_weights(root)
    return command_environment | {"MODEL_NAME": ALL, "MODEL_ROOT": str(root)}


@pytest.fixture(scope="module")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendServer]:
    with backend_server(pick_port(0), environment, tmp_path_factory.mktemp("server") / "backend.log") as server:
        wait_until_ready(server.url)
        yield server


@pytest.fixture
def address(image_server: ServedFolder) -> str:
    """A white image of 640 by 640 pixels: ten times as large as what the weights are shown."""
    (image_server.path / "white.png").write_bytes(encode(Image.fromarray(white(640))))
    return f"{image_server.url}/white.png"


def predicted(client: StudioClient, server: BackendServer, address: str, config: str) -> list[dict[str, Any]]:
    """The regions that Label Studio has stored of one task."""
    project = client.create_project("documented", config)
    client.import_tasks(project, [{"data": {"image": address}}])
    client.connect(project, server.url)
    client.retrieve_predictions(project)
    ((prediction,),) = client.predictions(project).values()
    assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
    regions: list[dict[str, Any]] = prediction["result"]
    assert len({region["id"] for region in regions}) == len(regions)
    return regions


def test_key_points_with_their_boxes(client: StudioClient, server: BackendServer, address: str) -> None:
    box, nose, eye = predicted(client, server, address, POINTS)
    assert (box["from_name"], box["value"]["rectanglelabels"]) == ("keypoints_bbox", ["person"])
    assert [box["value"][key] for key in ("x", "y", "width", "height")] == pytest.approx([12.5, 25, 25, 50])
    labels = [one["value"]["keypointlabels"] for one in (nose, eye)]
    assert labels == [["nose"], ["left_eye"]]  # the right one isn't sure enough
    assert [nose["value"][key] for key in ("x", "y", "width")] == pytest.approx([25, 31.25, 100 / 640])
    assert [eye["value"][key] for key in ("x", "y")] == pytest.approx([18.75, 37.5])
    assert [one["score"] for one in (box, nose, eye)] == pytest.approx([0.9, 0.95, 0.6])
    assert {one["parentID"] for one in (nose, eye)} == {box["id"]}
    assert {one["meta"]["text"][0] for one in (box, nose, eye)} == {"bbox-0"}


def test_key_points_alone(client: StudioClient, server: BackendServer, address: str) -> None:
    regions = predicted(client, server, address, ONLY_POINTS)
    assert [one["value"]["keypointlabels"][0] for one in regions] == ["nose", "left_eye"]
    assert not any("parentID" in one for one in regions)


def test_choices(client: StudioClient, server: BackendServer, address: str) -> None:
    (single,) = predicted(client, server, address, CHOICES)
    assert (single["type"], single["value"]) == ("choices", {"choices": ["Car"]})
    assert single["score"] == pytest.approx(0.6)
    (multiple,) = predicted(client, server, address, MULTIPLE)
    assert multiple["value"] == {"choices": ["Car", "Off-road"]}
    assert multiple["score"] == pytest.approx(0.45)


def test_a_taxonomy_is_stored_by_its_path(client: StudioClient, server: BackendServer, address: str) -> None:
    (region,) = predicted(client, server, address, TAXONOMY)
    assert (region["type"], region["value"]) == ("taxonomy", {"taxonomy": [["Vehicles", "Car"]]})


def test_controls_of_several_kinds(client: StudioClient, server: BackendServer, address: str) -> None:
    regions = predicted(client, server, address, MIXED)
    assert [(one["from_name"], one["to_name"], one["value"][one["type"]]) for one in regions] == [
        ("label", "image1", ["Car"]),
        ("label", "image1", ["Car"]),
        ("label", "image1", ["truck"]),
        ("choice", "image2", ["limousine"]),
        ("cars", "image1", 2),
    ]


def test_what_the_weights_cannot_serve_is_told(
    client: StudioClient, environment: dict[str, str], address: str, tmp_path: Path
) -> None:
    project = client.create_project("told", MIXED)
    client.import_tasks(project, [{"data": {"image": address}}])
    settings = environment | {"MODEL_NAME": "cls.onnx"}
    done = run_command("check", "-p", str(project), "--json", environment=settings, cwd=tmp_path)
    assert 'not served: cls.onnx are classify weights, which find no places for \\"label\\"' in done.stdout
    assert 'not served: Number \\"cars\\" counts boxes' in done.stdout
    report = run_json("prelabel", "-p", str(project), "--out", tmp_path / "drawn", environment=settings, cwd=tmp_path)
    assert (report["stored"], report["failed"]) == (1, [])
    ((prediction,),) = client.predictions(project).values()
    assert [one["value"] for one in prediction["result"]] == [{"choices": ["limousine"]}]
    assert prediction["score"] == pytest.approx(0.6)


def test_how_unsure_classes_and_points_are_orders_a_sample(
    client: StudioClient, environment: dict[str, str], address: str, tmp_path: Path, image_server: ServedFolder
) -> None:
    """In a darker image the probabilities are lower."""
    darker = encode(Image.fromarray((white(640) * 0.85).astype(np.uint8)))
    (image_server.path / "darker.png").write_bytes(darker)
    project = client.create_project("sampled", CHOICES)
    addresses = [address, f"{image_server.url}/darker.png"]
    client.import_tasks(project, [{"data": {"image": each}} for each in addresses])
    options = ("-n", "2", "--measure", "least-confidence", "--register", "--report", tmp_path / "report")
    sampled = run_json("sample", "-p", str(project), *options, environment=environment, cwd=tmp_path)
    # The sum of both classes that have a choice: of the probabilities 0.6 and 0.3, and of 0.85 times as much.
    assert [item["uncertainty"] for item in sampled["chosen"]] == pytest.approx([1.492, 1.4], abs=1e-3)
    stored = [predictions[0]["result"] for predictions in client.predictions(project).values()]
    assert [[region["value"] for region in regions] for regions in stored] == [[{"choices": ["Car"]}]] * 2
