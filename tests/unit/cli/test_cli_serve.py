"""What ``funspeech serve`` tells its owner."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app import __version__
from app.cli.serve import TellingSupervisor, announce, banner
from app.core.config import Config
from app.serving.supervisor import Running

CERTIFICATE = Path(__file__).parents[2] / "support" / "self_signed.pem"
BOTH = (("asr", "fake", "for tests"), ("tts", "fake", ""))


def shown(
    host: str = "127.0.0.1", engines: tuple[tuple[str, str, str], ...] = BOTH, **settings: object
) -> str:
    config = Config.model_validate({"host": host, **settings})
    return banner(config, Running(host, 8391, engines))


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("0.0.0.0", "http://127.0.0.1:8391"),
        ("::", "http://[::1]:8391"),
        ("::1", "http://[::1]:8391"),
        ("speech.example", "http://speech.example:8391"),
    ],
)
def test_addresses_can_be_used_as_they_are(host: str, base: str) -> None:
    text = shown(host)
    assert f"FunSpeech serves at {base}\n" in text
    assert f"url = ws{base[4:]}/ws/v1\n" in text
    assert f"'{base}/stream/v1/asr?format=wav'" in text


def test_public_address() -> None:
    text = shown(public_url="https://speech.example", debug=True)
    assert "127.0.0.1" not in text
    assert "wss://speech.example/ws/v1" in text
    assert "https://speech.example/docs" in text


def test_only_what_runs_is_offered() -> None:
    hearing, speaking = shown(engines=BOTH[:1]), shown(engines=BOTH[1:])
    assert "/stream/v1/asr" in hearing and "/stream/v1/tts" not in hearing
    assert "/stream/v1/tts" in speaking and "/stream/v1/asr" not in speaking
    assert "  recognition  fake: for tests\n" in hearing


def test_examples_carry_what_the_server_wants() -> None:
    with_token = shown(apptoken="s3cret", appkey="k3y")
    assert with_token.count("-H 'X-NLS-Token: <APPTOKEN>'") == 2
    with_appkey = shown(appkey="k3y")
    assert with_appkey.count("?appkey=<APPKEY>&") == 2
    assert "s3cret" not in with_token and "k3y" not in with_token + with_appkey
    tls = shown(ssl_certfile=CERTIFICATE, ssl_keyfile=CERTIFICATE)
    assert tls.count("curl --insecure ") == 2
    assert tls.count("'https://127.0.0.1:8391/") == 2


def test_the_log_has_the_start_and_the_stop(capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(host="::1")
    with capture_logs() as records:
        announce(config, Running("::1", 8391, BOTH))
        TellingSupervisor(config, lambda source, line: None, lambda running: None).stop()
    assert "serves at http://[::1]:8391" in capsys.readouterr().out
    assert records == [
        {
            "log_level": "info",
            "event": "serving",
            "version": __version__,
            "address": "http://[::1]:8391",
            "engines": {"asr": "fake", "tts": "fake"},
        },
        {"log_level": "info", "event": "stopping"},
    ]
