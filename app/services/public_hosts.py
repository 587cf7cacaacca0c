"""Host names of strangers to addresses that may be connected to.

Who may give this server a URL must not reach with it what only this server can reach: its own
ports, its private network, a cloud's metadata service.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from app.core.errors import FetchFailed, UnfitUrl

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""The only part of IPv6 that is handed out for the internet (RFC 4291, section 2.4). The
``is_global`` of ``ipaddress`` says yes to what is not listed at all, the former site-local
fec0::/10 among it."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""Stands for the IPv4 address in its last 32 bits (RFC 6052, section 2.1)."""

_SPECIAL: Final[tuple[IPv4Network | IPv6Network, ...]] = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments, RFC 6890
    IPv4Network("192.88.99.0/24"),  # relays of 6to4, RFC 7526
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
)
"""Special-purpose networks that ``is_global`` of some Python versions takes for the internet."""

_LOOKUP_THREADS: Final = ThreadPoolExecutor(4, "lookup")
"""Of its own: names whose servers never answer hold a thread for as long as the system's resolver
tries, and must not hold those that other work waits for."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet. IPv4 addresses inside IPv6 ones (mapped, 6to4,
    NAT64) count as what they stand for; multicast is not public, nor is what is reserved."""
    found = _unwrapped(ipaddress.ip_address(address))
    if isinstance(found, IPv6Address) and found not in _GLOBAL_UNICAST:
        return False
    if any(found in network for network in _SPECIAL):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


async def addresses(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The IP addresses of ``host`` (a name, or an address in any notation) in the order in which
    the system would try them; all are public unless ``allow_private``.

    Cancelling it leaves nothing behind but a thread that ends with the system's own time limit.

    Raises:
        FetchFailed: there are none.
        UnfitUrl: any of them is not public.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(_LOOKUP_THREADS, look_up, host, port)
    except (OSError, UnicodeError):  # the second: no name at all, such as one with an empty label
        raise FetchFailed(
            "The audio URL cannot be fetched: its host name is not known; check the URL."
        ) from None
    # All, not some: which of them a later look-up gives first is up to whoever owns the name.
    if not allow_private and not all(map(is_public, found)):
        raise UnfitUrl(
            "The audio URL cannot be fetched: its host is not on the public internet; put the file "
            "on one that is, or send the audio itself."
        )
    return found


def look_up(host: str, port: int) -> list[str]:
    """Ask the system; blocking. Raises OSError or UnicodeError if there is no such name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
