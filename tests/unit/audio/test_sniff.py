import struct

import numpy as np
import pytest

from app.audio.sniff import FILES, FORMATS, LOCAL, MAX_HEAD_BYTES, STREAMING, Kind, hinted, what_is
from app.core.errors import UnsupportedFormat
from tests.support.encoded import FORMATS as ENCODED
from tests.support.encoded import encoded, opus_packets
from tests.support.sound import tone

KINDS = {
    "pcm": Kind.PCM,
    "wav-adpcm-ms": Kind.WAV_FILE,
    "wav-adpcm-ima": Kind.WAV_FILE,
    "mp3": Kind.MP3,
    "mp3-lame": Kind.MP3,
    "aac": Kind.AAC,
    "m4a": Kind.M4A,
    "flac": Kind.FLAC,
    "ogg-flac": Kind.OGG,
    "ogg-opus": Kind.OGG_OPUS,
    "webm-opus": Kind.WEBM,
    "webm-opus-file": Kind.WEBM,
    "amr": Kind.AMR,
    "wma": Kind.WMA,
    "opu": Kind.OPU,
}
HEADS = {
    name: encoded(name, tone(200, 8_000), 8_000)[:MAX_HEAD_BYTES]
    for name in ENCODED
    if KINDS.get(name, Kind.WAV) is not Kind.PCM
}
SPEEX = b"OggS\0\2" + bytes(20) + b"\1\x50" + b"Speex   1.2" + bytes(30)
OF_4_BYTES = [name for name in HEADS if name not in ("mp3", "aac", "opu")]


def fed_slowly(head: bytes, hint: str) -> tuple[Kind | None, int]:
    """The answer to a growing head, and how many bytes it took."""
    for size in range(len(head) + 1):
        kind = what_is(head[:size], hint)
        if kind is not None:
            return kind, size
    return None, len(head)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_as_it_is_called(name: str) -> None:
    hint = name.split("-")[0]
    assert fed_slowly(HEADS[name], hint)[0] == KINDS.get(name, Kind.WAV)


@pytest.mark.parametrize("hint", FORMATS)
@pytest.mark.parametrize("name", OF_4_BYTES)
def test_content_overrules_every_hint(name: str, hint: str) -> None:
    expected = KINDS.get(name, Kind.WAV)
    if name == "mp3-lame" and hint == "aac":
        expected = Kind.AAC  # a tag may stand in front of both
    assert what_is(HEADS[name], hint) == expected
    assert fed_slowly(HEADS[name], hint)[0] == expected


def test_speex_in_ogg_under_any_hint() -> None:
    assert what_is(SPEEX, "speex") is what_is(SPEEX, "pcm") is Kind.SPEEX


@pytest.mark.parametrize("hint", ["mp3", "aac", "flac", "m4a", "webm"])
def test_frame_headers_overrule_the_names_of_other_codecs(hint: str) -> None:
    assert what_is(HEADS["mp3"], hint) is Kind.MP3
    assert what_is(HEADS["aac"], hint) is Kind.AAC


@pytest.mark.parametrize("hint", ["pcm", "wav", "opu", "opus"])
@pytest.mark.parametrize("name", ["mp3", "aac"])
def test_two_bytes_are_ordinary_samples_of_pcm(name: str, hint: str) -> None:
    assert what_is(HEADS[name], hint) is (Kind.PCM if hint == "wav" else hinted(hint))


@pytest.mark.parametrize("second", range(256))
def test_pcm_that_begins_like_anything_stays_pcm(second: int) -> None:
    rng = np.random.default_rng(second)
    head = bytes([0xFF, second]) + rng.integers(0, 256, 62, dtype=np.uint8).tobytes()
    assert what_is(head, "pcm") is Kind.PCM
    assert what_is(head, "wav") is Kind.PCM  # without a header, it is nothing else


@pytest.mark.parametrize("head", [b"\xff\xfb\xf0\x00", b"\xff\xe8\x90\x00", b"\xff\xfb\x9c\x00"])
def test_impossible_frame_headers_do_not_overrule(head: bytes) -> None:
    assert what_is(head, "flac") is Kind.FLAC


def test_pcm_is_told_by_its_first_byte_but_for_rare_ones() -> None:
    assert what_is(b"\1", "pcm") is Kind.PCM
    assert what_is(b"", "pcm") is None
    assert what_is(b"R", "pcm") is None
    assert what_is(b"Rx", "pcm") is Kind.PCM
    assert what_is(bytes(4), "pcm") is None  # a box of M4A begins with its size
    assert what_is(bytes(5), "pcm") is Kind.PCM


def test_bare_opus_packets_are_told_by_the_first() -> None:
    packets = opus_packets(tone(1_000), 16_000)
    assert {what_is(packet, "opus") for packet in packets} == {Kind.OPUS_PACKETS}


def test_wav_with_chunks_before_its_format() -> None:
    def riff(junk: int) -> bytes:
        chunks = struct.pack("<4sI", b"JUNK", junk) + bytes(junk)
        chunks += struct.pack("<4sIHHIIHH", b"fmt ", 16, 17, 1, 8_000, 4_000, 256, 4)
        return b"RIFF\0\0\0\0WAVE" + chunks

    assert what_is(riff(20)[:MAX_HEAD_BYTES], "wav") is Kind.WAV_FILE
    assert what_is(riff(28)[:MAX_HEAD_BYTES], "wav") is Kind.WAV  # not seen: a guess


def test_extensible_wav_is_told_by_its_sub_format() -> None:
    for codec, kind in ((3, Kind.WAV), (17, Kind.WAV_FILE)):
        fmt = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 8_000, 32_000, 4, 32, 22, 32, 0, codec)
        head = b"RIFF\0\0\0\0WAVE" + struct.pack("<4sI", b"fmt ", 40) + fmt + bytes(14)
        assert fed_slowly(head, "pcm") == (kind, 46)


@pytest.mark.parametrize(
    ("hint", "kind"),
    [
        ("PCM", Kind.PCM),
        (".wav", Kind.WAV),
        (" Mp3 ", Kind.MP3),
        ("mp4", Kind.M4A),
        ("OGG", Kind.OPUS_PACKETS),
        ("amrnb", Kind.AMR),
        ("AMR-WB", Kind.AMR),
        (".spx", Kind.SPEEX),
    ],
)
def test_names_in_any_spelling(hint: str, kind: Kind) -> None:
    assert hinted(hint) is kind
    assert what_is(b"\1", hint) is (Kind.PCM if kind is Kind.WAV else kind)


@pytest.mark.parametrize("hint", ["", "mp3x", "../pcm", "ogg-opus", "concat", "sdp"])
def test_unknown_names(hint: str) -> None:
    with pytest.raises(UnsupportedFormat, match="pcm, wav, mp3"):
        what_is(b"", hint)
    with pytest.raises(UnsupportedFormat):
        what_is(HEADS["flac"], hint)


def test_every_kind_is_decoded_in_exactly_one_way() -> None:
    assert set(Kind) == LOCAL | STREAMING | FILES
    assert len(LOCAL) + len(STREAMING) + len(FILES) == len(Kind)


def test_shown_names_are_known() -> None:
    assert {hinted(name) for name in FORMATS} >= STREAMING - {Kind.OGG_OPUS}
