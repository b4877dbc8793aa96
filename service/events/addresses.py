"""Which addresses the service may call on a user's behalf: public ones, and those that its operator allows.

A name is resolved once, every address that it has is judged, and the connection goes to an address that was judged:
a name that answers otherwise the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_CHARACTERS = 2000
_PORTS = {"http": 80, "https": 443}
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class AddressError(ValueError):
    """A URL that is not called; the message says why."""


def check_url(url: str) -> tuple[str, int]:
    """The host and the port that a URL names. Raises AddressError for what is not a plain http(s) URL."""
    if len(url) > MAX_URL_CHARACTERS:
        raise AddressError(f"a URL has at most {MAX_URL_CHARACTERS} characters")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise AddressError("a URL has visible ASCII characters only (a name in another script: in its xn-- form)")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AddressError(f"it is not a URL: {error}") from None
    if parts.scheme not in _PORTS or not host:
        raise AddressError("it does not begin with https:// or http:// and a host")
    if "@" in parts.netloc:
        raise AddressError("it holds a name or a password, which would be shown: the signature says who calls")
    if parts.fragment:
        raise AddressError("it has a fragment (#...), which is never sent")
    if not _HOST_CHARACTERS.issuperset(host):
        raise AddressError(f"{host!r} is not the name of a host")
    return host, port if port is not None else _PORTS[parts.scheme]


def literal(host: str) -> Address | None:
    """The address that `host` spells out, in any way that a look-up of names understands; None for a name."""
    host = host.rstrip(".")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        # 127.1, 0x7f000001, 017700000001, 2130706433
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def may_call(address: Address, allowed: Iterable[Network]) -> bool:
    """True for a public address, and for one in the networks that are allowed."""
    inner = _unwrapped(address)
    if any(each.version == network.version and each in network for network in allowed for each in (address, inner)):
        return True
    return inner.is_global and not (inner.is_multicast or inner.is_reserved or inner.is_unspecified)


def check_address(address: Address, allowed: Iterable[Network]) -> None:
    """Raise AddressError unless the address may be called."""
    if not may_call(address, allowed):
        raise AddressError(
            f"{address} is not a public address: this service calls such only where "
            "LAYERSWEEP_WEBHOOK_ALLOWED_NETWORKS names its network"
        )


async def resolve(host: str, port: int, allowed: Sequence[Network]) -> list[Address]:
    """Every address of `host`, all of which may be called. Raises AddressError, also for a name without an address."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressError(f"{host} has no address: {error}") from None
    # Without the zone of a link-local address ("fe80::1%eth0").
    addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    for address in addresses:
        check_address(address, allowed)
    return list(dict.fromkeys(addresses))


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if inner is None and any(address in network for network in _NAT64):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or address
