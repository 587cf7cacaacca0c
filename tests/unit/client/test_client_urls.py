"""Addresses that people give, and what becomes of them."""

from __future__ import annotations

import pytest

from app.client.errors import ClientError
from app.client.urls import http_url, is_secure, websocket_url


@pytest.mark.parametrize(
    ("given", "websocket", "http"),
    [
        ("http://host:8000", "ws://host:8000/ws/v1", "http://host:8000"),
        ("http://host:8000/", "ws://host:8000/ws/v1", "http://host:8000"),
        ("https://host", "wss://host/ws/v1", "https://host"),
        ("ws://host:1/ws/v1", "ws://host:1/ws/v1", "http://host:1"),
        ("wss://host/stream/ws/v1", "wss://host/stream/ws/v1", "https://host/stream"),
        ("ws://host/ws/v1?token=t", "ws://host/ws/v1?token=t", "http://host"),
        ("http://[::1]:8000", "ws://[::1]:8000/ws/v1", "http://[::1]:8000"),
        ("HTTP://host", "ws://host/ws/v1", "http://host"),
    ],
)
def test_doors(given: str, websocket: str, http: str) -> None:
    assert websocket_url(given) == websocket
    assert http_url(given) == http
    assert is_secure(given) is websocket.startswith("wss")


@pytest.mark.parametrize(
    "given", ["", "host:8000", "ftp://host", "http://", "http://host:x", "http://[::1", "ws:///x"]
)
def test_not_an_address(given: str) -> None:
    for function in (websocket_url, http_url, is_secure):
        with pytest.raises(ClientError, match="is not an address such as"):
            function(given)
