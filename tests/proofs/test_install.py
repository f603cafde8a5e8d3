"""A whole install into an empty environment, as pip resolves it, then with label-studio-ml beside it."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest

from tests.harness.sources import copy_sources
from tests.harness.stack import ROOT

BASE_OF = "from yolo_backend.model import YoloBackend; print(YoloBackend.__mro__[1].__module__)"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    clean = {"PATH": os.environ["PATH"], "HOME": str(cwd), "YOLO_OFFLINE": "true", **environment}
    clean |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(1800)
def test_pip_install_gives_a_backend_that_predicts_with_label_studio_ml_and_without(tmp_path: Path) -> None:
    """It takes registries to install from, some 7 GB of disk and some minutes."""
    env, home = tmp_path / "env", tmp_path / "home"
    venv.create(env, with_pip=True)
    home.mkdir()
    pip: list[str | Path] = [env / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]

    run(*pip, "-c", ROOT / "constraints.txt", copy_sources(tmp_path / "sources"), cwd=home)
    assert run(env / "bin" / "python", "-c", BASE_OF, cwd=home).strip() == "yolo_backend.base"
    assert "--model MODULE:CLASS" in run(env / "bin" / "yolo-backend", "serve", "--help", cwd=home)
    assert run(env / "bin" / "python", "-c", PREDICT, cwd=home, MODEL_NAME="demo").strip() == "True"
    run(env / "bin" / "python", "-m", "pip", "check", cwd=home)  # nothing that pip wants is missing

    run(*pip, "--no-deps", "-r", ROOT / "requirements-base.txt", cwd=home)
    assert run(env / "bin" / "python", "-c", BASE_OF, cwd=home).strip() == "label_studio_ml.model"
    assert run(env / "bin" / "python", "-c", PREDICT, cwd=home, MODEL_NAME="demo").strip() == "True"


PREDICT = '''
import base64, io
from PIL import Image
from yolo_backend.demo.scenes import draw_scene
from yolo_backend.model import YoloBackend
file = io.BytesIO()
Image.fromarray(draw_scene(1).image).save(file, "JPEG")
image = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
config = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="Nut"/><Label value="Bolt"/><Label value="Washer"/></RectangleLabels></View>"""
(prediction,) = YoloBackend(project_id="1", label_config=config).predict([{"id": 1, "data": {"image": image}}])
print(len(prediction["result"]) > 3)
'''
