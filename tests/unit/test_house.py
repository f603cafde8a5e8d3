"""The house's order: imports point one way, between the wings and between the modules, and no circle comes about."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import yolo_backend
from tests.harness.stack import ROOT

PACKAGE = Path(yolo_backend.__file__).parent
NAME = PACKAGE.name

# Modules that everyone may stand on, and that stand on nothing but each other.
GROUND = {
    "__init__",
    "addresses",
    "base",
    "child_processes",
    "cores",
    "errors",
    "failure_kinds",
    "failures",
    "files",
    "fit_hook",
    "kept_connections",
    "messages",
    "metrics",
    "parallel",
    "protocol",
    "request_ids",
    "settings",
    "tls",
}

# Which wing may import which; a wing that stands above another one here is below it in the house.
WINGS: Mapping[str, set[str]] = {
    "images": set(),
    "detection": set(),
    "labels": {"detection"},
    "label_studio": {"labels"},
    "serving": {"images", "detection", "labels", "label_studio"},
    "model": {"detection", "labels", "serving", "training"},
    "connecting": {"label_studio", "labels"},
    "server": {"images", "detection", "labels", "label_studio", "serving", "training", "connecting"},
    "registering": {"images", "detection", "labels", "label_studio"},
    "prelabeling": {"images", "labels", "label_studio", "serving"},
    "sampling": {"images", "labels", "label_studio", "serving", "registering"},
    "training": {"images", "detection", "labels", "label_studio", "serving"},
    "doctor": {"images", "detection", "labels", "label_studio", "serving", "connecting"},
    "cli": {
        "connecting",
        "detection",
        "doctor",
        "label_studio",
        "labels",
        "prelabeling",
        "registering",
        "sampling",
        "server",
        "serving",
        "training",
    },
    "__main__": {"cli"},
    "demo": {"connecting", "detection", "label_studio", "labels", "registering"},
}

Imports = Mapping[str, set[str]]


def imports_of(folder: Path) -> dict[str, set[str]]:
    """Each module of a package, and the modules of the same package that it imports anywhere in its text."""
    files = {name_of(path, folder): path for path in folder.rglob("*.py")}
    return {
        name: {imported for imported in imported_by(path, folder.name, set(files)) if imported != name}
        for name, path in files.items()
    }


def name_of(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported_by(path: Path, package: str, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, _, inner = name.partition(".")
            if top == package:  # the name of a module, or of something in one
                yield inner if inner in modules else inner.rpartition(".")[0] or "__init__"


def wing_of(module: str) -> str:
    return module.partition(".")[0]


def forbidden(imports: Imports, wings: Mapping[str, set[str]], ground: set[str]) -> list[str]:
    """The imports that point the wrong way, as `module imports module`."""
    wrong = []
    for module, imported in sorted(imports.items()):
        wing = wing_of(module)
        allowed = ground | ({wing} | wings[wing] if wing in wings else set())
        wrong += [f"{module} imports {other}" for other in sorted(imported) if wing_of(other) not in allowed]
    return wrong


def find_circle(imports: Imports) -> list[str]:
    """Modules that import each other, the first of them once more at the end; none where there is no circle."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(imports.get(module, ())):
            if circle := visit(other, [*way, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(imports) if (circle := visit(module, []))), [])


def test_each_module_has_its_place() -> None:
    assert {wing_of(module) for module in imports_of(PACKAGE)} == GROUND | set(WINGS)


def test_the_wings_point_one_way() -> None:
    assert forbidden(imports_of(PACKAGE), WINGS, GROUND) == []


def test_the_table_of_wings_has_no_circle() -> None:
    assert find_circle(WINGS) == []


def test_no_modules_import_each_other() -> None:
    assert find_circle(imports_of(PACKAGE)) == []


@pytest.mark.parametrize(
    ("files", "wrong", "circle"),
    [
        ({"low/a.py": "", "high/b.py": "from house.low import a\nfrom house.low.a import x\nimport json"}, [], []),
        ({"low/a.py": "from house.high.b import x", "high/b.py": ""}, ["low.a imports high.b"], []),
        ({"low/a.py": "def f():\n    import house.high.b", "high/b.py": ""}, ["low.a imports high.b"], []),
        ({"stone.py": "from house.low import a", "low/a.py": ""}, ["stone imports low.a"], []),
        (
            {"low/a.py": "from house.low import b", "low/b.py": "from house.low.a import x"},
            [],
            ["low.a", "low.b", "low.a"],
        ),
        ({"high/b.py": "from house import stone, __version__", "stone.py": "", "__init__.py": ""}, [], []),
    ],
)
def test_what_points_the_wrong_way_is_found(
    files: dict[str, str], wrong: list[str], circle: list[str], tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    imports = imports_of(tmp_path / "house")
    assert forbidden(imports, {"low": set(), "high": {"low"}}, {"stone", "__init__"}) == wrong
    assert find_circle(imports) == circle


def test_what_tests_share_is_no_test() -> None:
    """It is in fakes and harness; a fixture is in a conftest.py, which nobody imports."""
    of_a_test = re.compile(r"^from tests\S* import .*\b(?:test_\w+|conftest)|^from tests\S*\.(?:test_|conftest)", re.M)
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert [path for path in files if of_a_test.search(path.read_text(encoding="utf-8"))] == []


def test_a_benchmark_that_has_a_main_runs_it() -> None:
    """One didn't, and so ended well without having measured anything."""
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        runs_it = text.endswith('\n\nif __name__ == "__main__":\n    main()\n')
        assert runs_it or "\ndef main() -> None:" not in text, path
