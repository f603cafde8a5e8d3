"""How many cores: what the machine has, what the process may run on, and what its container pays for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yolo_backend.cores import has_full_share, keep_to_core, usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def write(cgroup: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = cgroup / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def v1(quota: bytes, period: bytes = b"100000\n") -> dict[str, bytes]:
    return {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": b"200000 100000\n"}, 2),
        ({"cpu.max": b"250000 100000\n"}, 3),
        ({"cpu.max": b"50000 100000\n"}, 1),
        ({"cpu.max": b"1000 100000\n"}, 1),
        ({"cpu.max": b"100000 50000\n"}, 2),
        ({"cpu.max": b"max 100000\n"}, 8),
        ({"cpu.max": b"6400000 100000\n"}, 8),
        (v1(b"300000\n"), 3),
        (v1(b"150000\n"), 2),
        (v1(b"-1\n"), 8),
        (v1(b"9900000\n"), 8),
        ({"cpu.max": b"200000 100000\n", **v1(b"400000\n")}, 2),
        ({"cpu.max": b"max\n", **v1(b"400000\n")}, 4),
        ({"cpu.max": b""}, 8),
        ({"cpu.max": b"\xff\xfe"}, 8),
        ({"cpu.max": b"a b\n"}, 8),
        ({"cpu.max": b"200000 0\n"}, 8),
        ({"cpu.max": b"0 100000\n"}, 8),
        ({"cpu.max/a folder": b""}, 8),
        (v1(b"many\n"), 8),
        (v1(b"200000\n", b"0\n"), 8),
        ({"cpu/cpu.cfs_quota_us": b"200000\n"}, 8),
    ],
)
def test_the_quota_counts_rounded_up_and_never_more_than_the_cores(
    tmp_path: Path, files: dict[str, bytes], expected: int
) -> None:
    write(tmp_path, files)
    assert usable_cores(tmp_path) == expected


def test_without_a_cgroup_the_cores_of_the_process_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "nowhere") == 8


@pytest.mark.parametrize(("count", "expected"), [(3, 3), (None, 1)])
def test_where_affinity_is_unknown_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, expected: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores(tmp_path) == expected


def test_here_are_some_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def cores_of_thread(index: int, of: int) -> set[int]:
    """The cores that a thread may run on after it asked for one of its own."""

    def ask() -> set[int]:
        keep_to_core(index, of)
        return os.sched_getaffinity(0)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result()


def test_as_many_threads_as_cores_have_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cores = sorted(os.sched_getaffinity(0))
    have_one_each = usable_cores() == len(cores) > 1
    for index, core in enumerate(cores):
        assert cores_of_thread(index, len(cores)) == ({core} if have_one_each else set(cores))
    assert sorted(os.sched_getaffinity(0)) == cores


@pytest.mark.parametrize("of", [1, 7, 9])
def test_fewer_or_more_threads_share_the_cores(monkeypatch: pytest.MonkeyPatch, of: int) -> None:
    asked: list[set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: asked.append(cores), raising=False)
    keep_to_core(0, of)
    assert asked == []


@pytest.mark.parametrize(
    ("mark", "file", "weight", "expected"),
    [
        (".dockerenv", "cpu.weight", b"100\n", True),
        (".dockerenv", "cpu.weight", b"1\n", False),
        (".dockerenv", "cpu/cpu.shares", b"1024\n", True),
        (".dockerenv", "cpu/cpu.shares", b"2\n", False),
        ("run/.containerenv", "cpu.weight", b"100\n", True),
        (".dockerenv", "cpu.weight", b"", False),
        ("etc/machine", "cpu/cpu.shares", b"1024\n", False),  # the machine itself
        (".dockerenv", "cpu.max", b"max 100000\n", False),
    ],
)
def test_a_container_whose_share_is_as_large_as_others_is_told_from_one_that_gives_way(
    tmp_path: Path, mark: str, file: str, weight: bytes, expected: bool
) -> None:
    for name, content in ((mark, b""), (f"sys/fs/cgroup/{file}", weight)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert has_full_share(tmp_path) is expected
