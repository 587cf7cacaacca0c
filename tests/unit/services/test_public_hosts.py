"""Which addresses a stranger's URL may lead to, and what a name must give."""

from __future__ import annotations

import pytest

from app.core.errors import InvalidRequest
from app.services import public_hosts

PUBLIC = [
    "8.8.8.8",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
    "64:ff9b::808:808",
]

NOT_PUBLIC = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "::",
    "::1",
    "::7f00:1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "ff0e::1",
    "4000::1",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "64:ff9b:1::1",
    # Private addresses in IPv6 clothes.
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet(address: str) -> None:
    assert public_hosts.is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_only_this_machine_or_its_network_reaches(address: str) -> None:
    assert not public_hosts.is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
async def test_every_notation_of_loopback_is_refused(host: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await public_hosts.addresses(host, 80, allow_private=False)
    assert "not on the public internet" in caught.value.text
    assert "127" not in caught.value.text
    assert await public_hosts.addresses(host, 80, allow_private=True) == ["127.0.0.1"]


async def test_one_private_address_among_public_ones_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(public_hosts, "look_up", lambda host, port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(InvalidRequest):
        await public_hosts.addresses("both.example", 80, allow_private=False)


async def test_all_addresses_are_given_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["2606:4700::1111", "8.8.8.8"]
    monkeypatch.setattr(public_hosts, "look_up", lambda host, port: found)
    assert await public_hosts.addresses("public.example", 80, allow_private=False) == found


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_what_is_no_name_is_refused_like_an_unknown_one(host: str) -> None:
    with pytest.raises(InvalidRequest, match="host name is not known"):
        await public_hosts.addresses(host, 80, allow_private=True)
