"""What the wheel holds, and that it runs with label-studio-ml and without it; a whole install is in tests/proofs."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.harness.sources import copy_sources
from tests.harness.stack import ROOT
from yolo_backend import __version__

HIDE = """
import sys
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name == "label_studio_ml":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hiding())
"""
BASE_OF = "from yolo_backend.model import YoloBackend; print(YoloBackend.__mro__[1].__module__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources, folder = copy_sources(tmp_path_factory.mktemp("sources")), tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", str(sources)]
    subprocess.run([*command, "--wheel-dir", str(folder)], check=True)
    (built,) = folder.iterdir()
    return built


def run(python: Path, *arguments: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"yolo_backend", f"yolo_backend-{__version__}.dist-info"}
    templates = ("server/templates/status.html", "server/templates/status.css")
    for name in ("py.typed", *templates, "demo/demo.pt", "model.py", "cli/app.py"):
        assert f"yolo_backend/{name}" in names
    in_sources = {
        str(path.relative_to(ROOT)) for path in (ROOT / "yolo_backend").rglob("*.py") if "__pycache__" not in path.parts
    }
    assert {name for name in names if name.endswith(".py")} == in_sources


def test_its_metadata_name_what_requirements_txt_names_and_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"yolo_backend-{__version__}.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)
    needed = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    named = {line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")}
    assert needed == named
    assert not any("label-studio-ml" in line for line in needed)
    assert set(metadata.get_all("Provides-Extra", [])) == {"dev", "heic", "openvino", "ray"}
    assert metadata["License-Expression"] == "AGPL-3.0-only"


@pytest.mark.parametrize(("is_hidden", "base"), [(False, "label_studio_ml.model"), (True, "yolo_backend.base")])
def test_it_runs_with_label_studio_ml_and_without(wheel: Path, tmp_path: Path, is_hidden: bool, base: str) -> None:
    """In an environment of its own, which borrows what it stands on from this one."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = ["-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", str(wheel)]
    run(Path(sys.executable), *install, cwd=tmp_path)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    if is_hidden:
        (site / "hiding.py").write_text(HIDE)
        (site / "hiding.pth").write_text("import hiding\n")

    assert run(python, "-c", BASE_OF, cwd=tmp_path).strip() == base
    assert run(tmp_path / "env" / "bin" / "yolo-backend", "--version", cwd=tmp_path) == f"yolo-backend {__version__}\n"
    where = run(python, "-c", "import yolo_backend; print(yolo_backend.__file__)", cwd=tmp_path)
    assert where.startswith(str(site))


@pytest.mark.parametrize("arguments", [["--help"], ["sampel"], ["sample", "--help"], ["serve", "--help"]])
def test_help_and_typing_errors_import_nothing_that_takes_seconds(arguments: list[str], tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        sys.argv[1:] = {arguments!r}
        from yolo_backend.cli.app import main
        try:
            main()
        finally:
            slow = ("torch", "ultralytics", "label_studio_ml", "label_studio_sdk", "matplotlib", "ray", "onnxruntime")
            print("slow:", [name for name in slow if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.rstrip().endswith("slow: []"), done.stdout + done.stderr


def test_python_m_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("typer", "model", "requests"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('this one was not asked for')")
    arguments = ["-m", "yolo_backend", "tasks", "--help"]
    assert "yolo-backend tasks" in run(Path(sys.executable), *arguments, cwd=tmp_path)
