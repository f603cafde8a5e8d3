from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from tests.harness.pictures import encode
from yolo_backend.registering.unfit import set_apart, set_broken_apart


def test_a_pipe_is_left_out_and_not_waited_for(tmp_path: Path) -> None:
    pipe, image = tmp_path / "x.jpg", tmp_path / "y.jpg"
    os.mkfifo(pipe)
    image.write_bytes(b"\xff\xd8\xff\xe0" + bytes(20))
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(set_apart([pipe, image], uploaded=True)), daemon=True)
    thread.start()
    thread.join(3)
    assert found == [([image], {"is no regular file but such as a pipe or a device: leave it out": [pipe]})]


def test_what_can_not_be_read_is_told_elsewhere(tmp_path: Path) -> None:
    missing = tmp_path / "x.jpg"
    assert set_apart([missing, "https://host/a.jpg"], uploaded=True) == ([missing, "https://host/a.jpg"], {})


@pytest.mark.parametrize(("more_bytes", "is_fit"), [(0, True), (1, False)])
def test_a_file_may_have_as_many_bytes_as_label_studio_takes(tmp_path: Path, more_bytes: int, is_fit: bool) -> None:
    image = tmp_path / "large.jpg"
    with image.open("wb") as file:
        file.write(b"\xff\xd8\xff\xe0")
        file.truncate(200_000_000 + more_bytes)  # the rest takes no room
    told = "has more than 200,000,000 bytes, which Label Studio doesn't take: make it smaller"
    assert set_apart([image], uploaded=True) == (([image], {}) if is_fit else ([], {told: [image]}))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "avif"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_an_image_that_was_cut_short_is_broken(tmp_path: Path, suffix: str, share: float) -> None:
    content = encode(Image.effect_noise((64, 48), 50).convert("RGB"), {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    whole.write_bytes(content)
    cut.write_bytes(content[: int(len(content) * share)])

    fit, broken = set_broken_apart([cut, whole], 150)

    assert (fit, list(broken)) == ([whole], [cut])
    assert broken[cut].startswith(("is cut short: copy it again", "the image is broken"))


def test_what_has_no_pixels_to_look_at_is_not_broken(tmp_path: Path) -> None:
    drawing, large, missing = tmp_path / "a.svg", tmp_path / "large.png", tmp_path / "missing.jpg"
    drawing.write_bytes(b"<svg/>")
    large.write_bytes(encode(Image.new("RGB", (2000, 1000))))

    assert set_broken_apart([drawing, large, missing, "s3://b/a.jpg"], 1) == (
        [drawing, large, missing, "s3://b/a.jpg"],
        {},
    )
