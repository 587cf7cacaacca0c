"""What the audio benchmark times is the real work: all of the audio goes through."""

from __future__ import annotations

import pytest

from benchmarks import audio_costs
from benchmarks.audio import RATE
from benchmarks.options import Options
from tests.support.encoded import encoded
from tests.support.sound import tone


@pytest.mark.parametrize(("encoder", "format"), audio_costs.INPUTS)
def test_every_input_is_decoded_to_its_end(encoder: str, format: str) -> None:
    rate = audio_costs.NARROW if encoder == "amr" else RATE
    data = encoded(encoder, tone(1_000, rate), rate)
    samples = audio_costs.decoded(data, format, rate, 1.0)
    # Opus comes out at 48 kHz.
    assert len(samples) / rate == pytest.approx(3 if "op" in encoder else 1, rel=0.2)


def test_every_output_has_bytes_for_all_of_it() -> None:
    voice = tone(2_000, audio_costs.VOICE_RATE)
    for format in audio_costs.OUTPUTS:
        half = audio_costs.encoded_out(voice[: voice.size // 2], format)
        assert len(audio_costs.encoded_out(voice, format)) > 1.5 * len(half) > 0


async def test_every_row_has_a_figure() -> None:
    rows = await audio_costs.measure(Options(seconds=0.001))
    parts = (audio_costs.INPUTS, audio_costs.RESAMPLED, audio_costs.SPOKEN, audio_costs.OUTPUTS)
    assert len(rows) == sum(map(len, parts)) + 2
    assert all(row.value > 0 for row in rows)
    assert len({row.name for row in rows}) == len(rows)
