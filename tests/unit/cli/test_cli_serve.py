"""What ``funspeech serve`` tells its owner."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app import __version__
from app.cli.serve import TellingSupervisor, announce, banner, check_engines, reread
from app.core.config import Config, ConfigError
from app.core.log_sink import LogSink
from app.core.speech import Role
from app.serving.supervisor import Running

CERTIFICATE = Path(__file__).parents[2] / "support" / "self_signed.pem"
BOTH: tuple[tuple[Role, str, str], ...] = (("asr", "fake", "for tests"), ("tts", "fake", ""))


def shown(
    host: str = "127.0.0.1", engines: tuple[tuple[Role, str, str], ...] = BOTH, **settings: object
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


def test_a_half_that_is_not_installed_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: None)
    assert "  synthesis    none: no tts engine is installed; " in shown(engines=BOTH[:1])
    check_engines(Config())  # such a server starts


def test_a_wrong_setting_stops_the_start_where_the_server_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("app.engines.registry.has_nvidia_card", lambda: False)
    wrong = Config(modelscope_cache=tmp_path, sherpa_streaming_model="voice-zh-en")
    with pytest.raises(ConfigError, match="voice-zh-en is a model for voice"):
        check_engines(wrong)
    check_engines(wrong.model_copy(update={"asr_engine": "embedded"}))
    check_engines(Config(modelscope_cache=tmp_path, sherpa_voice_model="none"))
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: None)
    check_engines(wrong)  # with no engine installed the other half may still serve


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


class Sink(LogSink):
    """Notes that it was reopened."""

    reopened = False

    def __init__(self) -> None:
        pass

    def reopen(self) -> None:
        self.reopened = True


@pytest.mark.parametrize(
    ("env_file", "expected"),
    [
        ("PORT=9000\n", []),
        (
            "PORT=9001\nAPPTOKEN=s3cret\n",
            [("warning", "changed settings need a restart", ["PORT", "APPTOKEN"])],
        ),
        ("PORT=x\n", [("error", "the changed settings would stop the next start", None)]),
    ],
)
def test_rereading_reopens_the_log_and_names_what_waits_for_a_restart(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    env_file: str,
    expected: list[tuple[str, str, list[str] | None]],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Config.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".env").write_text(env_file)
    sink = Sink()
    with capture_logs() as records:
        reread(Config(port=9000), sink)
    assert sink.reopened
    assert [(r["log_level"], r["event"], r.get("settings")) for r in records] == expected
    assert "s3cret" not in str(records)


def test_a_reload_rereads_first() -> None:
    told: list[str] = []
    supervisor = TellingSupervisor(
        Config(), lambda source, line: None, lambda running: None, lambda: told.append("reread")
    )
    with capture_logs() as records:
        supervisor.reload()
    assert told == ["reread"]
    assert [r["event"] for r in records] == ["reloading"]
