"""``funspeech say`` and ``funspeech voices`` against a fake server."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from app.audio.encode import ENCODABLE
from app.cli import cli

PCM = bytes(range(256)) * 100


class Synthesizer:
    """Sends ``PCM`` in two frames, or fails between them."""

    def __init__(self, fail: str = "") -> None:
        self.starts: list[dict[str, Any]] = []
        self.fail = fail

    def __call__(self, connection: ServerConnection) -> None:
        start = json.loads(connection.recv())
        self.starts.append(start["payload"])
        header = {**start["header"], "status": 20_000_000, "name": "SynthesisCompleted"}
        connection.send(PCM[:1_001])
        if self.fail:
            header.update(name="TaskFailed", status=40_000_003, status_text=self.fail)
            connection.send(json.dumps({"header": header}))
            return
        connection.send(PCM[1_001:])
        connection.send(json.dumps({"header": header}))
        with pytest.raises(ConnectionClosed):
            connection.recv()


def invoke(server: Any, *arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(cli, ["say", "--url", server.url, *arguments], **options)


def test_a_wav_file_with_a_true_header(server: Any, tmp_path: Path) -> None:
    server.script = heard = Synthesizer()
    result = invoke(server, "你好", "--rate", "24000", "--voice", "aixia", "--speed", "-100")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "say.wav: 0.5 s of audio\n"
    with wave.open(str(tmp_path / "say.wav")) as file:
        assert file.getparams()[:3] == (1, 2, 24_000)
        assert file.readframes(file.getnframes()) == PCM
    assert heard.starts == [
        {
            "text": "你好",
            "voice": "aixia",
            "format": "pcm",
            "sample_rate": 24_000,
            "speech_rate": -100,
            "pitch_rate": 0,
            "volume": 50,
        }
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["say.wav"]


def test_a_pcm_file_has_no_header(server: Any, tmp_path: Path) -> None:
    server.script = Synthesizer()
    assert invoke(server, "x", "-o", "out.PCM").exit_code == 0
    assert (tmp_path / "out.PCM").read_bytes() == PCM


@pytest.mark.parametrize("format", sorted({*ENCODABLE} - {"wav", "pcm"}))
def test_the_suffix_is_the_format(format: str, server: Any, tmp_path: Path) -> None:
    server.script = heard = Synthesizer()
    result = invoke(server, "x", "-o", f"out.{format.upper()}")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"out.{format.upper()}: 25.6 KB of {format}\n"
    assert heard.starts[0]["format"] == format
    assert (tmp_path / f"out.{format.upper()}").read_bytes() == PCM


def test_an_unknown_suffix_is_refused_before_anything_is_spoken(
    server: Any, tmp_path: Path
) -> None:
    server.script = heard = Synthesizer()
    result = invoke(server, "x", "-o", "out.m4a")
    assert result.exit_code == 1
    assert result.stderr == (
        "funspeech: out.m4a: there is no format .m4a; "
        "use one of .pcm, .wav, .mp3, .opus, .ogg, .opu, .aac, .flac\n"
    )
    assert not heard.starts and not list(tmp_path.iterdir())


def test_a_name_without_a_suffix_is_wav(server: Any, tmp_path: Path) -> None:
    server.script = Synthesizer()
    assert invoke(server, "x", "-o", "out").exit_code == 0
    with wave.open(str(tmp_path / "out")) as file:
        assert file.readframes(file.getnframes()) == PCM


def test_standard_output_gets_the_servers_wav(server: Any) -> None:
    server.script = heard = Synthesizer()
    result = invoke(server, "x", "-o", "-")
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == PCM
    assert heard.starts[0]["format"] == "wav"


def test_text_from_standard_input(server: Any) -> None:
    server.script = heard = Synthesizer()
    assert invoke(server, "-", input="from a pipe").exit_code == 0
    assert heard.starts[0]["text"] == "from a pipe"
    assert "voice" not in heard.starts[0]


def test_a_failure_leaves_the_old_file(server: Any, tmp_path: Path) -> None:
    server.script = Synthesizer(fail="Invalid voice name")
    (tmp_path / "say.wav").write_bytes(b"old")
    result = invoke(server, "x")
    assert result.exit_code == 1
    assert result.stderr == "funspeech: Invalid voice name (40000003)\n"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "there is no text to say"),
        (["x", "-o", "nowhere/a.wav"], "nowhere/a.wav cannot be written: No such file"),
        (["x", "-o", "."], ". cannot be written: Is a directory"),
    ],
)
def test_what_cannot_be_done(server: Any, arguments: list[str], message: str) -> None:
    result = invoke(server, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_device_is_written_directly(server: Any) -> None:
    server.script = Synthesizer()
    assert invoke(server, "x", "-o", "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()


VOICES = {
    "中文女": {"type": "preset", "language": "zh-CN", "gender": "female", "description": "标准"},
    "[b]": {"type": "clone", "language": "en-GB", "gender": "male", "description": ""},
}


def test_voices(server: Any) -> None:
    server.pages["/stream/v1/tts/voices/info"] = {"voices": VOICES, "total": 2}
    words = ["voices", "--url", server.url, "--token", "secret"]
    result = CliRunner().invoke(cli, words)
    assert result.stdout == ("中文女\tzh-CN\tfemale\tpreset\t标准\n[b]\ten-GB\tmale\tclone\t\n")
    assert server.tokens == ["secret"]
    rows = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert [row["name"] for row in rows] == ["中文女", "[b]"]


def test_voices_as_a_table(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/stream/v1/tts/voices/info"] = {"voices": VOICES, "total": 2}
    monkeypatch.setattr("app.cli.voices._is_terminal", lambda: True)
    result = CliRunner().invoke(cli, ["voices", "--url", server.url])
    assert "Language" in result.stdout
    assert "[b]" in result.stdout


def test_voices_of_something_else(server: Any) -> None:
    result = CliRunner().invoke(cli, ["voices", "--url", server.url])
    assert result.exit_code == 1
    assert result.stderr == "funspeech: the server answered HTTP 404: not found\n"
