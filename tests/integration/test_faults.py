"""The fault table in small: the same faults, injected once each, so that docs/journal/ stays true."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.backend import ENVIRONMENT, Backend, faulty_backend_server
from tests.faults.bodies import Generated, send_bad_bodies, send_bad_images
from tests.faults.callers import CALLERS, BadCaller, inject_caller
from tests.faults.engine import ENGINE_FAULTS
from tests.faults.kinds import FAULTS, Fault, answers
from tests.faults.servers import World, world
from tests.harness.stack import pick_port

# A quarter of them, from all groups, and of those that end by a time limit only two: the rest is for `make faults`.
QUICK = [fault for fault in FAULTS if "timeout" not in fault.outcomes][::4]
HANGING = [fault for fault in FAULTS if fault.name in {"a hang in the headers", "headers that drip"}]
IN_THE_ENGINE = [fault for fault in ENGINE_FAULTS if not fault.spreads and "slow" not in fault.name]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(answers(), tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="module")
def backend(servers: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    log = tmp_path_factory.mktemp("faults") / "backend.log"
    with faulty_backend_server(pick_port(0), ENVIRONMENT, log) as server:
        made = Backend(server, servers)
        made.prepare()
        yield made


@pytest.mark.parametrize("fault", QUICK + HANGING, ids=lambda fault: fault.name)
def test_a_fault_is_told_and_stays_alone(backend: Backend, fault: Fault) -> None:
    assert backend.inject(fault, 1).problems == []


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
def test_a_bad_caller_is_told(backend: Backend, caller: BadCaller) -> None:
    assert inject_caller(backend, caller, 1).problems == []


def test_generated_bodies_and_images_are_told(backend: Backend) -> None:
    generated = Generated()
    send_bad_bodies(backend, generated, 30)
    send_bad_images(backend, generated, 10)
    assert generated.problems == []
    assert generated.total > 100


def test_after_all_of_it_nothing_secret_went_astray(backend: Backend) -> None:
    assert backend.leaks() == []
    assert backend.tracebacks() == []
    assert backend.health().ok


@pytest.mark.parametrize("fault", IN_THE_ENGINE, ids=lambda fault: fault.name)
def test_a_fault_of_the_engine_is_told_and_stays_alone(backend: Backend, fault: Fault) -> None:
    assert backend.inject(fault, 1).problems == []
