"""What tests of every kind share: photographs and weights, an empty environment, servers that say what a test wants."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
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
from tests.harness.stack import bypass_proxies
from yolo_backend.images.decode import decode_image
from yolo_backend.settings import setting_variables

hypothesis.settings.register_profile("backend", deadline=None, derandomize=True, max_examples=60, database=None)
hypothesis.settings.load_profile("backend")
bypass_proxies()

_DATA = Path(__file__).parent / "data"
_LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a run leaves in the repository."""
    parser.addoption("--write-docs", action="store_true", help="write what the fault table's proof saw into docs/")


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """All of tests/proofs takes minutes."""
    if "proofs" in item.path.parts:
        item.add_marker("proof")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that share Label Studio go first, for they take longest; where no browser is, its tests are left out."""
    items.sort(key=lambda item: not _shares_label_studio(item.nodeid))
    in_browser = [item for item in items if "chromium" in getattr(item, "fixturenames", ())]
    if in_browser and not find_chromium():
        items[:] = [item for item in items if item not in in_browser]
        config.hook.pytest_deselected(items=in_browser)
        config.stash[_LEFT_OUT] = len(in_browser)
        if (output := getattr(config, "workeroutput", None)) is not None:
            output["left_out"] = len(in_browser)


def _shares_label_studio(nodeid: str) -> bool:
    """Is this one of the end-to-end tests with the one Label Studio? What stands apart has servers of its own."""
    return nodeid.startswith("tests/e2e/") and not nodeid.startswith("tests/e2e/apart/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together what shares servers: each file's, and the one Label Studio of all end-to-end tests."""
    scheduling: Any = importlib.import_module("xdist.scheduler").LoadFileScheduling

    class BySharedServers(scheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return "tests/e2e" if _shares_label_studio(nodeid) else str(super()._split_scope(nodeid))

    config.option.loadscopereorder = False  # as they were collected: the longest first, not that of the most tests
    return BySharedServers(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker left out, its controller tells."""
    if count := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[_LEFT_OUT] = count


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the last line what was left out."""
    if (count := config.stash.get(_LEFT_OUT, 0)) and not hasattr(config, "workerinput"):
        print(f"\n{count} tests in a browser were left out, for there is none: `make browser` gets one")


@pytest.fixture(scope="session")
def bccd_weights() -> Path:
    """The weights of a small, real detector of blood cells: RBC, WBC, Platelets."""
    return _DATA / "weights" / "bccd.pt"


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
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `MODEL_DIR` for all tests, for an export takes seconds: those of the blood cells' weights are made once."""
    return tmp_path_factory.mktemp("model_dir")


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
