"""A mark in the file's metadata: FFmpeg finds it, and the audio is the same."""

from __future__ import annotations

import io
import json
import wave

import av
import numpy as np
import pytest

from app.audio.encode import ENCODABLE, SAMPLE_RATES, open_encoder
from app.audio.sniff import what_is
from app.audio.wav import HeaderReader
from tests.support.decoded import CONTAINERS, decoded
from tests.support.sound import tone

MARK = json.dumps(
    {"Label": "1", "ProduceID": "7c", "ContentPropagator": "某人 é"}, ensure_ascii=False
)
MARKED = ["wav", "mp3", "flac", "opus"]
KEYS = {"wav": "comment"}


def encoded(format: str, rate: int, mark: str, *, whole: bool) -> bytes:
    encoder = open_encoder(format, rate, mark)
    samples = tone(700, rate=rate) if rate != 16_000 else tone(700)
    header = b"" if whole else encoder.header(None)
    body = encoder.encode(samples) + encoder.finish()
    return (encoder.header(len(samples)) if whole else header) + body


def metadata(format: str, data: bytes) -> dict[str, str]:
    with av.open(io.BytesIO(data), "r", format=CONTAINERS[format]) as container:
        return {**container.metadata, **container.streams.audio[0].metadata}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("format", MARKED)
def test_the_mark_is_found_and_the_audio_is_the_same(format: str, whole: bool) -> None:
    marked = encoded(format, 16_000, MARK, whole=whole)
    found = metadata(format, marked)
    if format == "wav":
        assert json.loads(found["comment"]) == {"AIGC": json.loads(MARK)}
    else:
        assert found["AIGC"] == MARK
    plain = encoded(format, 16_000, "", whole=whole)
    assert "AIGC" not in metadata(format, plain) and "comment" not in metadata(format, plain)
    assert np.array_equal(decoded(format, marked, 16_000)[0], decoded(format, plain, 16_000)[0])


@pytest.mark.parametrize("format", ["pcm", "opu", "aac"])
def test_formats_without_a_place_stay_as_they_are(format: str) -> None:
    assert encoded(format, 16_000, MARK, whole=True) == encoded(format, 16_000, "", whole=True)
    assert {*MARKED, "ogg", "pcm", "opu", "aac"} == {*ENCODABLE}


@pytest.mark.parametrize("length", range(3))
def test_a_marked_wav_has_true_lengths(length: int) -> None:
    mark = json.dumps({"Label": "x" * length})
    data = encoded("wav", 16_000, mark, whole=True)
    assert data.count(b"RIFF") == data.count(b"WAVE") == 1
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    with wave.open(io.BytesIO(data)) as audio:
        assert audio.getnframes() == 700 * 16
    header = HeaderReader().feed(data)
    assert header is not None and header.data_bytes == len(data) - header.size


@pytest.mark.parametrize("format", MARKED)
def test_our_own_recognition_reads_what_is_marked(format: str) -> None:
    plain, marked = (encoded(format, 16_000, mark, whole=False) for mark in ("", MARK))
    assert what_is(marked, format) == what_is(plain, format) is not None


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_at_every_rate(rate: int) -> None:
    for format in MARKED:
        encoder = open_encoder(format, rate, MARK)
        assert MARK.encode() in encoder.header(None)
