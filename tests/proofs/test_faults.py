"""Every fault of the table at length: told, alone in its loss, and without a trace in memory, files or threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.table import inject_all, section
from tests.harness.report import write_section


@pytest.mark.timeout(1800)
def test_every_fault_comes_out_as_it_should(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    run = inject_all(tmp_path)
    if pytestconfig.getoption("--write-docs"):
        write_section("faults", section(run))
    assert run.problems == []
