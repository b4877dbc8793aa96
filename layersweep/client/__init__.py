"""The client of a Layersweep service: `Client` for threads, `AsyncClient` (in `asynchronous`) for event loops."""

from layersweep.client.blocking import DEFAULT_SERVER, Client

__all__ = ["DEFAULT_SERVER", "Client"]
