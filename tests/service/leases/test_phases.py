"""The two orders of an attempt's phases, and which of them a lease asks for. On both databases."""

from __future__ import annotations

import pytest

from service.database.sessions import Database
from service.leases.phases import HARDWARE_FIRST, PHASES, TRAINING_FIRST, follows, order_of
from service.settings import Settings
from tests.service.sweep_driver import Driver, small

SEARCH = {"sampler": "random", "seed": 7, "reuse": False}


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    driver.add_worker()
    return driver


@pytest.mark.parametrize(
    ("wish", "constraints", "measured_first"),
    [
        (None, [], False),
        (None, ["parameter_count <= 5e5", "validation_loss <= 3"], False),
        (None, ["validation_loss <= 3", "latency_ms_p99 <= 12"], True),
        ("auto", ["memory_bytes <= 1e6 * hidden_size"], True),
        # The loss is known last: what is measured alone ends no trial.
        ("auto", ["latency_ms_p50 * validation_loss <= 12"], False),
        ("always", [], True),
        ("never", ["latency_ms_p99 <= 12"], False),
    ],
)
def test_a_lease_says_whether_hardware_comes_first(
    driver: Driver, wish: str | None, constraints: list[str], measured_first: bool
) -> None:
    search = SEARCH if wish is None else SEARCH | {"hardware_first": wish}
    sweep = driver.post(small(search=search) | {"constraints": constraints})
    driver.step(sweep)
    lease = driver.claim()
    assert lease is not None
    assert lease.hardware_first is measured_first


def test_a_sweep_of_before_the_field_is_measured_first_where_a_constraint_needs_it(driver: Driver) -> None:
    for constraints, measured_first in ([], False), (["latency_ms_p99 <= 12"], True):
        sweep = driver.post(small(search=SEARCH) | {"constraints": constraints})
        document = driver.sweep(sweep).document
        driver.set(sweep, document=document | {"search": SEARCH})
        driver.step(sweep)
        lease = driver.claim()
        assert lease is not None
        assert (lease.sweep, lease.hardware_first) == (sweep, measured_first)
        driver.cancel(sweep)


@pytest.mark.parametrize("order", [HARDWARE_FIRST, TRAINING_FIRST])
def test_phases_may_be_left_out_and_do_not_come_again(order: tuple[str, ...]) -> None:
    for index, phase in enumerate(order):
        assert follows(order[:index], phase)
        assert follows(order[: index // 2], phase)
        assert follows(order[: index + 1], phase), "the same again is no step back"
    assert not any(follows(order, phase) for phase in PHASES if phase != "finish")


def test_the_order_of_an_attempt_is_what_its_worker_does() -> None:
    for entered, hardware_first, order in (
        ([], True, HARDWARE_FIRST),
        ([], False, TRAINING_FIRST),
        (["check", "train"], False, TRAINING_FIRST),
        # A worker that does not know the second order.
        (["check", "build", "measure", "train"], False, HARDWARE_FIRST),
        (["check", "train", "build"], True, TRAINING_FIRST),
        # Its second try counts.
        (["check", "train", "build", "check", "build", "train"], False, HARDWARE_FIRST),
    ):
        assert order_of(entered, hardware_first=hardware_first) == order
