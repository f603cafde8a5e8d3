"""Files below a folder: what lies there is read, and no name leads out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yolo_backend.images.local_files import open_below, reason_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with `a.jpg` and `sub/b.jpg`, links of all kinds, and a secret beside it."""
    folder = tmp_path / "files"
    (folder / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for secret in (tmp_path / "secret.jpg", tmp_path / "outside" / "b.jpg"):
        secret.write_bytes(b"secret")
    (folder / "a.jpg").write_bytes(b"a")
    (folder / "sub" / "b.jpg").write_bytes(b"b")
    (folder / "file-link").symlink_to("a.jpg")
    (folder / "file-out").symlink_to(tmp_path / "secret.jpg")
    (folder / "folder-link").symlink_to("sub")
    (folder / "folder-out").symlink_to(tmp_path / "outside")
    (folder / "sub" / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(params=["step by step", "checked first"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on POSIX, and as where folders can't be opened one in the other."""
    if request.param == "checked first":
        monkeypatch.setattr(os, "supports_dir_fd", frozenset())


both = pytest.mark.usefixtures("both_ways")


@both
@pytest.mark.parametrize(
    ("name", "content"), [("a.jpg", b"a"), ("sub/b.jpg", b"b"), ("./sub//./b.jpg", b"b"), ("sub/b.jpg/", b"b")]
)
def test_a_file_of_the_folder_is_read(root: Path, name: str, content: bytes) -> None:
    with open_below(root, name) as file:
        assert file.read() == content


@both
def test_the_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(root)
    with open_below(tmp_path / "linked", "sub/b.jpg") as file:
        assert file.read() == b"b"


@both
@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret.jpg",
        "sub/../a.jpg",
        "sub/../../secret.jpg",
        "sub/..",
        "/etc/passwd",
        "//etc/passwd",
        "a.jpg\0",
        "\0",
        "\ud800.jpg",
        "missing.jpg",
        "missing/a.jpg",
        "a.jpg/a.jpg",
        "x" * 5000,
        "x/" * 5000,
        "sub",
        "sub/deep",
        "file-link",
        "file-out",
        "folder-link/b.jpg",
        "folder-out/b.jpg",
        "sub/up/a.jpg",
        "sub/up/../secret.jpg",
        "loop",
        "loop/a.jpg",
        "pipe",
    ],
)
def test_nothing_else_is_opened(root: Path, name: str) -> None:
    with pytest.raises((OSError, ValueError)):
        open_below(root, name)


@both
@pytest.mark.parametrize("name", ["null", "zero"])
def test_devices_are_no_files(name: str) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        open_below(Path("/dev"), name)


@both
def test_a_missing_folder_holds_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_below(tmp_path / "missing", "a.jpg")


@both
def test_no_open_file_is_left_behind(root: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    for name in ("a.jpg", "sub/b.jpg", "sub", "sub/missing", "pipe", "folder-out/b.jpg", "file-out"):
        try:
            open_below(root, name).close()
        except OSError:
            assert open_files() == before, name
    assert open_files() == before


@pytest.mark.parametrize("swapped", ["sub", "sub/b.jpg"])
def test_what_is_swapped_while_it_is_opened_leads_nowhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    real_open = os.open

    def open_and_swap(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == root:  # the first step is about to be made
            (root / swapped).rename(tmp_path / "swapped away")
            (root / swapped).symlink_to(tmp_path / "outside" / ("b.jpg" if swapped.endswith(".jpg") else ""))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_and_swap)
    monkeypatch.setattr(os, "supports_dir_fd", os.supports_dir_fd | {open_and_swap})
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        open_below(root, "sub/b.jpg")


def test_a_locale_without_a_names_letters_is_one_reason_for_all_names() -> None:
    """It is said once for each reason, and a name's own letters and their places are as many as the files."""
    told = set()
    for name in ("ö.jpg", "aü.jpg"):
        with pytest.raises(UnicodeEncodeError) as raised:
            name.encode("ascii")  # as os.open does with the locale C and PYTHONUTF8=0
        told.add(reason_of(raised.value))
    assert told == {"its name has letters that the locale's encoding lacks: let it be UTF-8, by LC_ALL=C.UTF-8"}
