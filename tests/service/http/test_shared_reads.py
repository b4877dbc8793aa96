"""One read for all who were woken by the same news."""

from __future__ import annotations

import asyncio

from service.http.shared_reads import SharedReads


def test_all_who_ask_while_it_runs_get_one_read_and_whoever_comes_later_another() -> None:
    async def story() -> None:
        shared, begun, go_on = SharedReads(), 0, asyncio.Event()

        async def read() -> int:
            nonlocal begun
            begun += 1
            number = begun
            await go_on.wait()
            if number == 2:
                raise LookupError("gone")
            return number

        first, gives_up, third = (asyncio.create_task(shared.read("a", read)) for _ in range(3))
        await asyncio.sleep(0)
        gives_up.cancel()
        other = asyncio.create_task(shared.read("b", read))
        go_on.set()
        results = await asyncio.gather(first, gives_up, third, other, return_exceptions=True)
        assert [results[0], results[2]] == [1, 1]
        assert isinstance(results[1], asyncio.CancelledError)
        assert isinstance(results[3], LookupError)
        assert await shared.read("a", read) == 3

    asyncio.run(story())
