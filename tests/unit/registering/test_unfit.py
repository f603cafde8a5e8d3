from __future__ import annotations

import os
import threading
from pathlib import Path

from yolo_backend.registering.unfit import set_apart


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
