"""Finding weights: by bare name, checked, and one line that says what to do where they can't be had."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from yolo_backend.detection.weights import WeightsError, file_fingerprint, find_weights


def failure(name: str, model_root: Path) -> str:
    with pytest.raises(WeightsError) as raised:
        find_weights(name, model_root, may_download=True)
    assert str(raised.value).isprintable()
    return str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".pt",
        "../x.pt",
        "folder/x.pt",
        "/x.pt",
        "~/x.pt",
        "folder\\x.pt",
        "https://example.com/x.pt",
        "http://example.com/yolo11n.pt",
        "x",
        "x.pth",
        "x.pt.txt",
        "x.yaml",
        "x.engine",
        "x.PT ",
        "DEMO",
    ],
)
def test_what_is_no_name_of_weights(tmp_path: Path, name: str) -> None:
    root = tmp_path / "models"
    root.mkdir()
    for file in (tmp_path / "x.pt", root / "x.pt"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("data.pkl", b"")
    message = failure(name, root)
    assert "demo" in message
    assert "MODEL_ROOT" in message or str(root) in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.pt", b""),
        ("x.pt", b"not weights"),
        ("x.pt", b"<html>404</html>"),
        ("x.pt", b"PK\3\4" + bytes(100)),
        ("x.onnx", b""),
        ("x.onnx", b"short"),
        ("yolo11n.pt", b"broken, though its name is that of a release"),
    ],
)
def test_a_broken_file_is_told_and_left_alone(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    message = failure(name, tmp_path)
    assert str(file) in message
    assert "broken" in message
    assert file.read_bytes() == content


def test_a_half_downloaded_file_is_told(tmp_path: Path, bccd_weights: Path) -> None:
    file = tmp_path / "half.pt"
    content = bccd_weights.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "half downloaded" in failure("half.pt", tmp_path)


def test_a_file_in_the_model_root_is_found(bccd_weights: Path) -> None:
    assert find_weights(bccd_weights.name, bccd_weights.parent) == bccd_weights


@pytest.mark.parametrize("name", ["my weights (2).pt", "größe.pt", "a.b.c.pt"])
def test_odd_names_are_fine(tmp_path: Path, name: str, bccd_weights: Path) -> None:
    (tmp_path / name).symlink_to(bccd_weights)
    assert find_weights(name, tmp_path) == tmp_path / name


def test_the_demo_weights_come_along(tmp_path: Path) -> None:
    path = find_weights("demo", tmp_path)
    assert path.is_file()
    assert path.suffix == ".pt"


@pytest.mark.parametrize("content", [b"", b"a", b"x" * 3_000_000])
def test_the_fingerprint_is_the_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    assert file_fingerprint(file) == hashlib.sha256(content).hexdigest()
