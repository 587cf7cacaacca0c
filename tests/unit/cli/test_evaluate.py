"""``funspeech eval`` against fake servers: what is sent, what is measured, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from app.audio.wav import make_header
from app.cli import cli
from app.cli.evaluate_manifest import Clip
from app.cli.evaluate_server import changed, log_file, spent
from app.cli.evaluate_stream import Audio, Pace, load, stream
from app.cli.recording import NotUsable
from app.client.nls import NlsClient
from app.core.config import Config, ConfigError
from app.core.config import load as load_config
from tests.support.encoded import encoded
from tests.support.sound import tone

SUCCESS = 20_000_000


class Recogniser:
    """Says what ``texts`` has for so many bytes of audio; fails the task where that is None."""

    def __init__(self, texts: dict[int, str | None]) -> None:
        self.texts = texts
        self.starts: list[dict[str, Any]] = []

    def __call__(self, connection: ServerConnection) -> None:
        start = json.loads(connection.recv())
        self.starts.append(start["payload"])
        header = {**start["header"], "status": SUCCESS}

        def event(name: str, payload: dict[str, Any] | None = None, **fields: object) -> None:
            message = {"header": {**header, "name": name, **fields}, "payload": payload or {}}
            connection.send(json.dumps(message))

        event("TranscriptionStarted")
        size = 0
        while isinstance(message := connection.recv(), bytes):
            size += len(message)
        text = self.texts[size]
        if text is None:
            event("TaskFailed", status=40_000_005, status_text="too busy")
            return
        event("TranscriptionResultChanged", {"index": 1, "time": 500, "result": text})
        event("SentenceEnd", {"index": 1, "begin_time": 0, "time": 500, "result": text})
        event("TranscriptionCompleted")
        with pytest.raises(ConnectionClosed):
            connection.recv()


def wav(path: Path, samples: int, rate: int = 16_000) -> Path:
    path.write_bytes(make_header(rate, samples) + bytes(2 * samples))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips of 1,000, 2,000 and 3,000 bytes; the last one has no label."""
    made = tmp_path / "clips"
    made.mkdir()
    for name, samples in (("a", 500), ("b", 1000), ("c", 1500)):
        wav(made / f"{name}.wav", samples)
    (made / "a.txt").write_text("今天天气很好", encoding="utf-8")
    (made / "b.txt").write_text("二十个苹果", encoding="utf-8")
    return made


@pytest.fixture
def other(server: Any) -> Any:
    """A second fake server."""
    with ExitStack() as stack:
        made = type(server)()
        made.start(stack)
        yield made


GOOD: dict[int, str | None] = {1000: "今天天气很好。", 2000: "20个苹果。", 3000: "喂。"}
WORSE: dict[int, str | None] = {1000: "今天天汽好", 2000: "20个苹果", 3000: "喂喂"}


def invoke(manifest: Path, *arguments: object) -> Result:
    words = ["eval", str(manifest), "--speed", "0", *map(str, arguments)]
    return CliRunner().invoke(cli, words, env={"COLUMNS": "80", "NO_COLOR": "1"})


def test_two_servers_side_by_side(server: Any, other: Any, folder: Path, tmp_path: Path) -> None:
    server.script, other.script = Recogniser(GOOD), Recogniser(WORSE)
    file, copies, plot = tmp_path / "o.json", tmp_path / "listen", tmp_path / "o.png"
    result = invoke(
        *(folder, "--a-url", server.url, "--b-url", other.url, "--json", file),
        *("--copy-to", copies, "--plot", plot, "--a-token", "one", "--b-token", "two"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert f"A: {server.url}" in result.stdout
    found = json.loads(file.read_text(encoding="utf-8"))
    a, b = (found["configurations"][name] for name in "AB")
    assert (a["units"], a["rate"]) == (11, 0)
    assert (b["substitutions"], b["deletions"], b["insertions"]) == (1, 1, 0)
    assert found["disagreement"]["clips"] == 2
    assert a["rtf_clock"] > 0 and a["rtf_cpu"] is None
    assert set(server.tokens) == {"one"} and set(other.tokens) == {"two"}
    assert sorted(path.name for path in copies.iterdir()) == [
        *("001-a.wav", "001-a.wav.txt", "002-c.wav", "002-c.wav.txt"),
    ]
    assert (copies / "001-a.wav").read_bytes() == (folder / "a.wav").read_bytes()
    assert "  B      今天天汽好" in (copies / "001-a.wav.txt").read_text(encoding="utf-8")
    assert str(folder / "b.wav") not in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_one_server(server: Any, folder: Path) -> None:
    server.script = heard = Recogniser(WORSE)
    result = invoke(folder, "--a-url", server.url)
    assert result.exit_code == 0, result.stderr
    assert "18.18 %" in result.stdout
    assert "B - A" not in result.stdout and "differ" not in result.stdout
    assert heard.starts[0]["enable_inverse_text_normalization"] is True
    assert heard.starts[0]["enable_intermediate_result"] is True


def test_raw(server: Any, folder: Path) -> None:
    server.script = heard = Recogniser(GOOD)
    result = invoke(folder, "--a-url", server.url, "--raw")
    assert heard.starts[0]["enable_inverse_text_normalization"] is False
    assert "18.18 %" in result.stdout  # 二十 is not 20


def test_clips_that_fail_are_named_and_left_out(
    server: Any, other: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "d.wav").write_bytes(b"no sound")
    wav(folder / "e.wav", 0)
    server.script, other.script = Recogniser({**GOOD, 1000: None}), Recogniser(WORSE)
    file = tmp_path / "o.json"
    result = invoke(folder, "--a-url", server.url, "--b-url", other.url, "--json", file)
    assert result.exit_code == 1
    lines = sorted(result.stderr.splitlines())
    assert lines[0] == f"funspeech: {folder / 'a.wav'}: too busy (40000005)"
    assert lines[1].startswith(f"funspeech: {folder / 'd.wav'} is not in a known format")
    assert lines[2] == f"funspeech: {folder / 'e.wav'} has no audio"
    assert len(lines) == 3
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["clips"], found["labelled_clips"]) == (2, 1)
    assert [found["configurations"][name]["failed"] for name in "AB"] == [1, 0]


def test_where_nothing_was_recognised(server: Any, folder: Path) -> None:
    server.script = Recogniser(dict.fromkeys(GOOD))
    result = invoke(folder, "--a-url", server.url)
    assert result.exit_code == 1
    assert result.stderr.endswith("funspeech: no clip was recognised\n")


def test_a_server_that_is_not_there_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = invoke(folder, "--a-url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert result.stderr == f"funspeech: A: nothing listens at http://127.0.0.1:{port}\n"


def test_what_a_took_long_for_is_shown_though_b_is_not_there(server: Any, folder: Path) -> None:
    server.script = Recogniser(WORSE)
    result = invoke(folder, "--a-url", server.url, "--b-url", "nonsense")
    assert result.exit_code == 1
    assert result.stderr.startswith("funspeech: B: 'nonsense' is not an address")
    assert result.stderr.count("\n") == 1
    assert "18.18 %" in result.stdout
    assert "\nB: " not in result.stdout and "B - A" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--a", "FUNASR_DTYPE"], "--a FUNASR_DTYPE: give NAME=VALUE"),
        (["--b", "FUNASR_DTYPES=int8"], "FUNASR_DTYPES is not a setting"),
        (["--b", "FUNASR_DTYPE=int9"], "FUNASR_DTYPE: must be one of fp32, bf16, fp16, int8"),
        (["--b", "PORT=8000"], "PORT cannot be chosen here"),
    ],
)
def test_a_wrong_setting_is_one_line(arguments: list[str], reason: str, folder: Path) -> None:
    result = invoke(folder, *arguments)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_settings_for_a_running_server_are_a_usage_error(folder: Path) -> None:
    result = invoke(folder, "--a-url", "http://127.0.0.1:1", "--a", "FUNASR_DTYPE=int8")
    assert result.exit_code == 2
    assert "--a-url" in result.stderr


def test_a_manifest_without_clips_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke(tmp_path / "empty")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"funspeech: {tmp_path / 'empty'} has no clips\n"


def test_a_file_that_cannot_be_written_is_one_line(server: Any, folder: Path) -> None:
    server.script = Recogniser(GOOD)
    result = invoke(folder, "--a-url", server.url, "--json", folder / "none" / "o.json")
    assert result.exit_code == 1
    assert result.stderr.endswith("o.json: No such file or directory\n")


# --- streaming -------------------------------------------------------------------------------


@pytest.mark.parametrize(("speed", "expected"), [(1.0, 0.1), (4.0, 0.025)])
async def test_pieces_go_out_when_they_would_have_been_spoken(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: float, expected: float
) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def spy(seconds: float) -> None:
        if seconds > 1:  # another's, such as the wait for the next ping
            await sleep(seconds)
        else:
            delays.append(seconds)
            await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", spy)
    server.script = Recogniser({8000: "好"})
    clip = Clip("a", wav(tmp_path / "a.wav", 4000), None)
    run = await stream(NlsClient(server.url), [clip], Pace(speed=speed), lambda *_: None)
    # 250 ms: three pieces, each due by the same clock, so that time taken is made up.
    assert len(delays) == 3
    total = 2.5 * expected
    assert delays[-1] <= total and delays[0] <= expected
    assert delays == sorted(delays)
    # The waits were skipped, so the server was done before the clip's end was due.
    assert run.outcomes["a"].latency_ms < 0
    assert run.outcomes["a"].seconds == 0.25


async def test_as_fast_as_it_goes_waits_for_nothing(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = Recogniser({8000: "好"})
    clips = [Clip(name, wav(tmp_path / f"{name}.wav", 4000), None) for name in "abc"]
    done: list[str] = []
    run = await stream(
        NlsClient(server.url),
        clips,
        Pace(speed=0, parallel=2),
        lambda clip, _: done.append(clip.id),
    )
    assert sorted(done) == sorted(run.outcomes) == ["a", "b", "c"]
    for outcome in run.outcomes.values():
        assert outcome.text == "好"
        assert outcome.latency_ms >= 0
        assert outcome.first_ms is not None and outcome.first_ms > 0


def test_audio_keeps_its_rate_where_the_doors_take_it(tmp_path: Path) -> None:
    assert load(wav(tmp_path / "a.wav", 800, 8_000), None) == Audio(bytes(1600), 8_000)
    fast = load(wav(tmp_path / "b.wav", 9600, 96_000), None)
    assert fast.sample_rate == 16_000
    assert fast.seconds == pytest.approx(0.1, abs=0.001)
    raw = tmp_path / "c.pcm"
    raw.write_bytes(bytes(1601))
    assert load(raw, 8_000) == Audio(bytes(1600), 8_000)
    with pytest.raises(NotUsable, match="--sample-rate"):
        load(raw, None)


def test_other_formats_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(encoded("flac", tone(500), 16_000))
    audio = load(path, None)
    assert audio.seconds == pytest.approx(0.5, abs=0.01)
    assert np.frombuffer(audio.pcm, "<i2").max() > 9000


# --- the server of one's own -----------------------------------------------------------------


def test_changed_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNASR_DTYPE", "bf16")
    monkeypatch.setenv("APPTOKEN", "secret")
    config = load_config()
    found = changed(config, {"FUNASR_CHUNK_MS": "300", "FUNASR_DTYPE": "INT8", "ASR_GPUS": "cpu"})
    assert (found.funasr_chunk_ms, found.funasr_dtype, found.asr_gpus) == ("300", "int8", "cpu")
    assert found.apptoken == SecretStr("secret")
    assert changed(config, {"FUNASR_DTYPE": ""}).funasr_dtype == "fp32"
    assert changed(config, {}) == config
    with pytest.raises(ConfigError, match="is not a setting"):
        changed(config, {"funasr_dtype": "int8"})


def test_the_log_is_not_that_of_a_running_server() -> None:
    config = Config.model_validate({"log_file": "logs/mine.log"})
    assert log_file(config) == Path("logs/mine-eval.log")


def test_cpu_time() -> None:
    assert spent({1: 2.0, 2: 1.0}, {1: 2.5, 3: 0.25}) == 0.75
    assert spent(None, {1: 2.0}) is None
