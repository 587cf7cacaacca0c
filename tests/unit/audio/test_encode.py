import io
import subprocess
import sys
import wave

import numpy as np
import pytest

from app.audio import encode
from app.audio.decode import open_decoder
from app.audio.encode import ENCODABLE, SAMPLE_RATES, open_encoder
from app.core.errors import UnsupportedFormat, UnsupportedSampleRate
from app.nls.parameters import SYNTHESIS_RATES

SAMPLES = np.array([0, 1, -1, 32_767, -32_768, 258], np.int16)


def test_pcm_is_little_endian_and_bare() -> None:
    encoder = open_encoder("pcm", 16_000)
    assert encoder.header(None) == b""
    assert encoder.encode(SAMPLES[-1:]) == b"\x02\x01"


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_wav_of_known_length_is_a_true_file(rate: int) -> None:
    encoder = open_encoder("wav", rate)
    header = encoder.header(SAMPLES.size)
    data = header + encoder.encode(SAMPLES[:2]) + encoder.encode(SAMPLES[2:]) + encoder.finish()
    assert len(header) == 44
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    with wave.open(io.BytesIO(data)) as file:
        assert file.getparams()[:4] == (1, 2, rate, SAMPLES.size)
        assert file.readframes(100) == SAMPLES.tobytes()


def test_wav_of_unknown_length() -> None:
    encoder = open_encoder("WAV", 24_000)
    header = encoder.header(None)
    assert len(header) == 44
    assert header[4:8] == header[40:44] == b"\xff" * 4
    decoder = open_decoder("wav", 8_000)
    assert decoder.feed(header + encoder.encode(SAMPLES)).tolist() == SAMPLES.tolist()
    assert decoder.sample_rate == 24_000


def test_empty_wav() -> None:
    header = open_encoder("wav", 16_000).header(0)
    with wave.open(io.BytesIO(header)) as file:
        assert file.getnframes() == 0


@pytest.mark.parametrize("name", ["PCM", ".wav", "Wav", " .MP3 ", "OGG"])
def test_names_in_any_spelling(name: str) -> None:
    open_encoder(name, 16_000)


def test_the_rates_are_those_that_clients_may_ask_for() -> None:
    assert SAMPLE_RATES == SYNTHESIS_RATES


@pytest.mark.parametrize("format", ENCODABLE)
@pytest.mark.parametrize("rate", [0, 7_999, 12_345, 96_000])
def test_other_rates_are_refused(format: str, rate: int) -> None:
    with pytest.raises(UnsupportedSampleRate) as caught:
        open_encoder(format, rate)
    assert "8000, 11025" in caught.value.text


@pytest.mark.parametrize("format", ENCODABLE)
def test_what_takes_work_says_so(format: str) -> None:
    assert open_encoder(format, 16_000).blocking is (format not in ("pcm", "wav"))


def test_pyav_is_not_imported_before_it_is_used() -> None:
    code = (
        f"import sys; from {encode.__name__} import ENCODABLE, open_encoder;"
        "[open_encoder(name, 16000) for name in ENCODABLE]; sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_api_process_starts_without_pyav() -> None:
    code = "import sys, app.main; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_format_says_what_there_is() -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        open_encoder("xyz", 16_000)
    assert caught.value.text.startswith("Invalid format 'xyz'!")
    assert "pcm, wav, mp3, opus, ogg, opu, aac, flac" in caught.value.text


def test_a_hostile_format_name_is_not_echoed_whole() -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        open_encoder("a\r\nSet-Cookie: x" + "y" * 10_000, 16_000)
    assert len(caught.value.text) < 150
    assert "\n" not in caught.value.text
