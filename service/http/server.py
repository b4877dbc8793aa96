"""The server: one that stops without breaking off those who wait for something to happen."""

from __future__ import annotations

import socket

import uvicorn

from service.common.notifications import Notifications


class Server(uvicorn.Server):
    """Ends event streams and held requests before it waits for those that are answered."""

    def __init__(self, config: uvicorn.Config, notifications: Notifications) -> None:
        super().__init__(config)
        self._notifications = notifications

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifications.stop()
        await super().shutdown(sockets)
