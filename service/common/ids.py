"""Identifiers: 26 characters that sort by the time they were made (ULID, Crockford's base 32)."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Return a new identifier; later ones of the same process always sort after earlier ones."""
    global _last
    with _lock:
        fresh = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        same_or_earlier = fresh >> _RANDOM_BITS <= _last >> _RANDOM_BITS
        _last = value = _last + 1 + secrets.randbits(32) if same_or_earlier else fresh
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
