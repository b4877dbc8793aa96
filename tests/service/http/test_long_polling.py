"""Who waits for a sweep learns what another process changed in it, whatever the number of those who wait."""

from __future__ import annotations

import asyncio

import pytest

from service.auth.access import Access
from service.auth.rate_limits import Limits
from service.common.notifications import Notifications, sweep_topic
from service.database.sessions import Database
from service.events import events
from service.http.dependencies import Services
from service.http.long_polling import ChangePoller
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.sweeps.validation import Validation
from tests.service.rows import Rows


@pytest.fixture
def services(database: Database, settings: Settings) -> Services:
    scheduler = Scheduler(database, database.notifications, settings)
    access = Access(database, settings.threads, Limits(settings))
    validation = Validation(database, settings.validation_processes)
    return Services(settings, database, database.notifications, scheduler, access, validation)


async def _begun(notifications: Notifications, topic: str) -> asyncio.Task[bool]:
    waiter = asyncio.create_task(notifications.wait(topic, 60))
    while topic not in notifications.waited():
        await asyncio.sleep(0)
    return waiter


async def _settled(waiter: asyncio.Task[bool]) -> bool:
    """Whether what was published before this call has woken the waiter."""
    for _ in range(5):
        await asyncio.sleep(0)
    return waiter.done()


def test_a_change_by_another_process_wakes_those_who_wait_for_that_sweep(services: Services, rows: Rows) -> None:
    database, topic = services.database, {sweep: sweep_topic(sweep) for sweep in (rows.sweep(1), rows.sweep(1))}
    changed, other = topic
    elsewhere = Database(database.url.render_as_string(hide_password=False))

    async def story() -> None:
        watch, notifications = ChangePoller(services), services.notifications
        waiters = {sweep: await _begun(notifications, topic[sweep]) for sweep in topic}
        await watch.poll()
        assert [await _settled(waiters[sweep]) for sweep in topic] == [True, True], "each is looked at once"

        waiters = {sweep: await _begun(notifications, topic[sweep]) for sweep in topic}
        waits = {"target": None, "waits_for": "a worker"}
        elsewhere.write(lambda session: events.append(session, changed, "sweep.target", data=waits))
        await watch.poll()
        assert await _settled(waiters[changed])
        assert not await _settled(waiters[other])
        waiters[other].cancel()

    asyncio.run(story())
    elsewhere.close()


def test_a_sweep_that_is_gone_wakes_its_waiters_once(services: Services) -> None:
    async def story() -> None:
        watch, topic = ChangePoller(services), sweep_topic("0" * 26)
        first = await _begun(services.notifications, topic)
        await watch.poll()
        assert await _settled(first)
        second = await _begun(services.notifications, topic)
        await watch.poll()
        assert not await _settled(second)
        second.cancel()

    asyncio.run(story())
