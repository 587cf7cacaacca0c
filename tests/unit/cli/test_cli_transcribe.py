"""``funspeech transcribe`` against a fake server."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from app.audio.wav import make_header
from app.cli import cli
from app.cli.recording import NotUsable, open_recording

SUCCESS = 20_000_000


class Transcriber:
    """Hears one sentence per task: the number of bytes it got."""

    def __init__(self, fail: str = "") -> None:
        self.starts: list[dict[str, Any]] = []
        self.audio: list[bytes] = []
        self.fail = fail

    def __call__(self, connection: ServerConnection) -> None:
        start = json.loads(connection.recv())
        self.starts.append(start["payload"])
        header = {**start["header"], "status": SUCCESS}

        def event(name: str, payload: dict[str, Any] | None = None, **fields: object) -> None:
            message = {"header": {**header, "name": name, **fields}, "payload": payload or {}}
            connection.send(json.dumps(message))

        event("TranscriptionStarted")
        if self.fail:
            event("TaskFailed", status=41_010_101, status_text=self.fail)
            return
        audio = b""
        while isinstance(message := connection.recv(), bytes):
            audio += message
        self.audio.append(audio)
        event("SentenceBegin", {"index": 1, "time": 90})
        event("TranscriptionResultChanged", {"index": 1, "time": 500, "result": "he"})
        result = {"index": 1, "begin_time": 90, "time": 61_500, "result": f"got {len(audio)}"}
        event("SentenceEnd", result)
        event("TranscriptionCompleted")
        with pytest.raises(ConnectionClosed):
            connection.recv()


def wav(path: Path, samples: int = 5_000, rate: int = 16_000, tail: bytes = b"") -> Path:
    path.write_bytes(make_header(rate, samples) + bytes(2 * samples) + tail)
    return path


def invoke(server: Any, *arguments: object) -> Any:
    words = ["transcribe", "--url", server.url, *map(str, arguments)]
    return CliRunner().invoke(cli, words)


def test_sentences_with_times(server: Any, tmp_path: Path) -> None:
    server.script = heard = Transcriber()
    result = invoke(server, wav(tmp_path / "a.wav", tail=b"LIST...."))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "[00:00.090 - 01:01.500] got 10000\n"
    assert result.stderr == ""
    assert heard.audio == [bytes(10_000)]
    assert heard.starts[0]["format"] == "pcm"
    assert heard.starts[0]["sample_rate"] == 16_000
    assert heard.starts[0]["enable_punctuation_prediction"] is True
    assert "max_sentence_silence" not in heard.starts[0]


def test_options_reach_the_server(server: Any, tmp_path: Path) -> None:
    server.script = heard = Transcriber()
    options = ["--no-punctuation", "--no-itn", "--max-sentence-silence", 3000, "--token", "secret"]
    result = invoke(server, wav(tmp_path / "a.wav", rate=8_000), *options)
    assert result.exit_code == 0, result.stderr
    assert heard.starts[0]["sample_rate"] == 8_000
    assert heard.starts[0]["enable_punctuation_prediction"] is False
    assert heard.starts[0]["enable_inverse_text_normalization"] is False
    assert heard.starts[0]["max_sentence_silence"] == 3000
    assert server.tokens == ["secret"]


def test_json_is_one_line_per_file(server: Any, tmp_path: Path) -> None:
    server.script = Transcriber()
    files = [wav(tmp_path / "a.wav"), wav(tmp_path / "b.wav", 10)]
    result = invoke(server, "--json", *files)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(file) for file in files]
    assert lines[1]["sentences"] == [
        {"index": 1, "begin_time": 90, "end_time": 61_500, "text": "got 20"}
    ]


def test_raw_pcm_in_real_time(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def spy(seconds: float) -> None:
        if seconds > 1:  # another's, such as the wait for the next ping
            await sleep(seconds)
        else:
            delays.append(seconds)
            await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", spy)
    server.script = heard = Transcriber()
    path = tmp_path / "a.pcm"
    path.write_bytes(bytes(range(200)) * 10)
    result = invoke(server, "--sample-rate", 8000, "--realtime", path)
    assert result.exit_code == 0, result.stderr
    assert heard.audio == [path.read_bytes()]
    assert heard.starts[0]["sample_rate"] == 8_000
    # Two pieces of 100 ms; each wait goes to a point of the same clock, so time taken is made up.
    assert len(delays) == 2
    assert all(0.0 <= delay <= 0.2 for delay in delays)
    assert invoke(server, "--sample-rate", 8000, path).exit_code == 0
    assert len(delays) == 2


def test_several_files_are_named_and_one_failure_does_not_stop_the_rest(
    server: Any, tmp_path: Path
) -> None:
    server.script = Transcriber()
    good, bad = wav(tmp_path / "good.wav"), tmp_path / "bad.txt"
    bad.write_bytes(b"text")
    result = invoke(server, bad, good, tmp_path / "missing.wav")
    assert result.exit_code == 1
    assert result.stdout == f"{good}:\n[00:00.090 - 01:01.500] got 10000\n"
    assert "bad.txt is not in a known format; convert it" in result.stderr
    assert "missing.wav: No such file or directory" in result.stderr


@pytest.mark.parametrize(
    ("name", "head", "format"),
    [
        ("a.mp3", b"ID3\4\0", "mp3"),
        ("a.M4A", b"\0\0\0 ftyp", "m4a"),
        ("a.opu", b"\x03abc", "opu"),
        ("a.ogg", b"OggS", "ogg"),
        # No name of a format, but unmistakable; the server looks at the content, too.
        ("a.bin", b"fLaC", "pcm"),
    ],
)
def test_other_formats_are_sent_as_they_are(
    name: str, head: bytes, format: str, server: Any, tmp_path: Path
) -> None:
    server.script = heard = Transcriber()
    path = tmp_path / name
    path.write_bytes(head + bytes(range(250)) * 40)
    result = invoke(server, path)
    assert result.exit_code == 0, result.stderr
    assert heard.audio == [path.read_bytes()]
    assert heard.starts[0]["format"] == format


def test_only_what_tells_its_time_is_sent_in_real_time(server: Any, tmp_path: Path) -> None:
    server.script = heard = Transcriber()
    path = tmp_path / "a.mp3"
    path.write_bytes(b"ID3\4\0" + bytes(1_000))
    result = invoke(server, "--realtime", path)
    assert result.exit_code == 1
    assert "--realtime is for WAV and raw PCM" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not heard.starts


def test_wav_whose_codec_only_the_server_reads(tmp_path: Path) -> None:
    gsm = bytearray(make_header(8_000, 100) + bytes(200))
    gsm[20:22], gsm[34:36] = (0x31).to_bytes(2, "little"), bytes(2)  # codec, bits
    path = tmp_path / "gsm.wav"
    path.write_bytes(gsm)
    recording = open_recording(path, None)
    assert (recording.format, recording.bytes_per_second) == ("wav", None)
    assert b"".join(recording.pieces()) == bytes(gsm)


def test_a_failed_task_is_one_line(server: Any, tmp_path: Path) -> None:
    server.script = Transcriber(fail="use 8000 or 16000 Hz")
    result = invoke(server, wav(tmp_path / "a.wav"))
    assert result.exit_code == 1
    message = f"funspeech: {tmp_path / 'a.wav'}: use 8000 or 16000 Hz (41010101)\n"
    assert result.stderr == message


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    arguments = ["transcribe", "--url", url, str(wav(tmp_path / "a.wav"))]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "start the server with 'funspeech serve'" in result.stderr


def test_a_terminal_shows_a_bar_and_partials(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = heard = Transcriber()
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the captured output for a terminal
    monkeypatch.setattr("app.cli.transcribe._is_terminal", lambda: True)
    result = invoke(server, wav(tmp_path / "[a].wav"))
    assert result.exit_code == 0, result.stderr
    assert heard.starts[0]["enable_intermediate_result"] is True
    assert "[a].wav" in result.stderr
    assert "100%" in result.stderr
    assert result.stdout == "[00:00.090 - 01:01.500] got 10000\n"


def test_other_wav_files_are_sent_whole(tmp_path: Path) -> None:
    stereo = bytearray(make_header(16_000, 100) + bytes(200))
    stereo[22:24] = (2).to_bytes(2, "little")  # channels
    path = tmp_path / "stereo.wav"
    path.write_bytes(stereo)
    recording = open_recording(path, None)
    assert (recording.format, recording.bytes_per_second) == ("wav", 64_000)
    assert b"".join(recording.pieces()) == bytes(stereo)


def test_a_stream_of_unknown_length_goes_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(make_header(16_000, None) + bytes(8_001))
    recording = open_recording(path, None)
    assert [len(piece) for piece in recording.pieces()] == [3_200, 3_200, 1_601]
    assert (recording.size, recording.bytes_per_second) == (8_001, 32_000)


@pytest.mark.parametrize("size", [12, 20, 30])
def test_a_damaged_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(make_header(16_000, 100)[:size])
    with pytest.raises(NotUsable, match="damaged WAV header"):
        open_recording(path, None)


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(NotUsable, match="Is a directory"):
        open_recording(tmp_path, 16_000)
