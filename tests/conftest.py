"""What tests of every kind share: photographs and weights, an empty environment, servers that say what a test wants."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.harness.certificates import Certificates, make_certificates
from tests.harness.chromium import find_chromium
from tests.harness.http_server import StartServer, http_servers
from tests.harness.postgres import find_postgres
from tests.harness.small_disk import can_mount
from tests.harness.stack import ROOT, bypass_proxies
from yolo_backend.images.decode import decode_image
from yolo_backend.settings import setting_variables

hypothesis.settings.register_profile("backend", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("backend"), max_examples=10)
hypothesis.settings.load_profile("backend")
bypass_proxies()

_DATA = Path(__file__).parent / "data"
# What some tests need that pip doesn't bring: who needs it, is it there, and how it is got.
_NEEDED: dict[str, tuple[Callable[[pytest.Item], bool], Callable[[], Path | None], str]] = {
    "in a browser": (lambda item: "chromium" in getattr(item, "fixturenames", ()), find_chromium, "`make browser`"),
    "on PostgreSQL": (
        lambda item: item.get_closest_marker("postgres") is not None,
        find_postgres,
        "`apt-get install postgresql`",
    ),
    "on a disk that is full": (
        lambda item: item.get_closest_marker("small_disk") is not None,
        can_mount,
        "running them as root",
    ),
}
_LEFT_OUT = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a run leaves in the repository."""
    parser.addoption("--write-docs", action="store_true", help="write what the fault table's proof saw into docs/")


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """All of tests/proofs takes minutes, and what it shows needs a machine of its own."""
    if "proofs" in item.path.parts:
        item.add_marker("proof")
        item.add_marker("alone")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The end-to-end tests go first, for they take longest; what needs what isn't there is left out."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
    left_out = config.stash[_LEFT_OUT] = {}
    for kind, (needs, find, _) in _NEEDED.items():
        those = [item for item in items if needs(item)]
        if those and not find():
            items[:] = [item for item in items if item not in those]
            config.hook.pytest_deselected(items=those)
            left_out[kind] = len(those)
    if left_out and (output := getattr(config, "workeroutput", None)) is not None:
        output["left_out"] = left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker left out, its controller tells."""
    if left_out := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[_LEFT_OUT] = left_out


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the last lines what was left out."""
    if not hasattr(config, "workerinput"):
        for kind, count in config.stash.get(_LEFT_OUT, {}).items():
            print(f"\n{count} tests {kind} were left out, because there is none: {_NEEDED[kind][2]} gets one")


@pytest.fixture(scope="session")
def bccd_weights() -> Path:
    """The weights of a small, real detector of blood cells: RBC, WBC, Platelets."""
    return _DATA / "weights" / "bccd.pt"


@pytest.fixture(scope="session")
def make_weights(tmp_path_factory: pytest.TempPathFactory, bccd_weights: Path) -> Callable[[str], Path]:
    """Weights of another architecture: what it shares with those of the blood cells is trained."""
    folder = tmp_path_factory.mktemp("weights")

    def make(architecture: str) -> Path:
        from tests.harness.architectures import weights_of  # which brings torch

        return weights_of(architecture, folder, bccd_weights)

    return make


@pytest.fixture(scope="session")
def bccd_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """24 photographs of blood, 640x480: a dozen real ones, then the same seen in a mirror."""
    photographs = sorted((_DATA / "bccd" / "images").glob("*.jpg"))
    folder = tmp_path_factory.mktemp("bccd")
    mirrored = []
    for path in photographs:
        mirrored.append(folder / f"mirrored-{path.name}")
        with Image.open(path) as photograph:
            ImageOps.mirror(photograph).save(mirrored[-1], quality=95)
    return photographs + mirrored


@pytest.fixture(scope="session")
def bccd_labels() -> Path:
    """The folder with what people have labelled in the dozen, as YOLO text files; `data.yaml` is beside it."""
    return _DATA / "bccd" / "labels"


@pytest.fixture(scope="session")
def bccd_images(bccd_files: list[Path]) -> list[NDArray[np.uint8]]:
    """The 24 as RGB pixels."""
    return [decode_image(file.read_bytes(), 10).pixels for file in bccd_files]


@pytest.fixture(scope="session")
def kept_exports(pytestconfig: pytest.Config) -> Path:
    """Exports of weights that never change, made once for all workers and later runs: each takes seconds.

    Other code of `detection/` begins anew; other versions of what it stands on are told apart by the exports' names.
    """
    code = b"".join(path.read_bytes() for path in sorted((ROOT / "yolo_backend" / "detection").rglob("*.py")))
    return pytestconfig.cache.mkdir(f"exports-{hashlib.sha256(code).hexdigest()[:8]}")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, kept_exports: Path) -> Path:
    """A `MODEL_DIR` for all tests, with the kept exports."""
    folder = tmp_path_factory.mktemp("model_dir")
    (folder / "exports").symlink_to(kept_exports)
    return folder


@pytest.fixture(scope="session")
def bccd_environment(bccd_weights: Path, model_dir: Path) -> dict[str, str]:
    """The settings of a backend that serves the blood cells' weights."""
    return {"MODEL_NAME": bccd_weights.name, "MODEL_ROOT": str(bccd_weights.parent), "MODEL_DIR": str(model_dir)}


@pytest.fixture(scope="session")
def export_folder(model_dir: Path) -> Path:
    """Where the backend keeps its exports there."""
    return model_dir / "exports"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No setting in the environment, and none in a `.env` of the current folder, which is an empty one."""
    for variable in setting_variables():
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return monkeypatch


@pytest.fixture
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be downloaded, though the machine may have a network."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for name in (variable, variable.lower()):
            monkeypatch.setenv(name, "http://127.0.0.1:1")


@pytest.fixture
def ray_cluster() -> Iterator[Any]:
    """A Ray cluster of two real nodes of one core each."""
    cluster_utils: Any = importlib.import_module("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def made_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and what it signs."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def certificates(made_certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """An authority that nobody knows, and what it signs; those that requests brings along are trusted alone."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    return made_certificates


@pytest.fixture
def serve() -> Iterator[StartServer]:
    """Starts real HTTP servers; they end with the test."""
    with http_servers() as start:
        yield start
