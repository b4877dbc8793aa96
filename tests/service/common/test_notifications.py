"""Wake-ups arrive, whoever waits, and none is lost between a look and a wait."""

from __future__ import annotations

import asyncio
import threading

from service.common.notifications import Notifications


def test_a_waiter_wakes_when_another_thread_publishes() -> None:
    notifications = Notifications()

    async def wait() -> bool:
        since = notifications.version("queue")
        threading.Thread(target=notifications.publish, args=("queue",)).start()
        return await notifications.wait("queue", 30, since=since)

    assert asyncio.run(wait())


def test_what_was_published_since_the_look_is_not_waited_for() -> None:
    notifications = Notifications()
    since = notifications.version(["queue", "scheduler"])
    notifications.publish("scheduler")
    assert notifications.wait_blocking(["queue", "scheduler"], 0, since=since)
    assert asyncio.run(notifications.wait(["queue", "scheduler"], 0, since=since))
    assert not notifications.wait_blocking("queue", 0, since=notifications.version("queue"))


def test_time_runs_out_without_news_of_the_topic() -> None:
    notifications = Notifications()
    since = notifications.version("queue")
    notifications.publish("scheduler")
    assert not asyncio.run(notifications.wait("queue", 0.01, since=since))
    assert not notifications.wait_blocking("queue", 0.01)


def test_all_waiters_wake() -> None:
    notifications = Notifications()

    async def wait_many() -> list[bool]:
        since = notifications.version("sweep:a")
        waits = [asyncio.create_task(notifications.wait("sweep:a", 30, since=since)) for _ in range(50)]
        await asyncio.sleep(0)
        notifications.publish(["sweep:a"])
        return await asyncio.gather(*waits)

    assert all(asyncio.run(wait_many()))


def test_nobody_is_remembered_who_no_longer_waits() -> None:
    notifications = Notifications()
    asyncio.run(notifications.wait("queue", 0))
    notifications.wait_blocking("queue", 0)
    assert not notifications._wakers


def test_topics_of_old_sweeps_are_forgotten_without_losing_a_wake_up() -> None:
    notifications = Notifications()
    since = notifications.version("sweep:0")
    notifications.publish("sweep:0")
    for number in range(1, 12_000):
        notifications.publish(f"sweep:{number}")
    assert len(notifications._versions) <= 10_000
    assert notifications.wait_blocking("sweep:0", 0, since=since)
