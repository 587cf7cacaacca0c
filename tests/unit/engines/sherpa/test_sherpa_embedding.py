"""Speaker embeddings on the real runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.audio.pcm import Float32
from app.core.errors import BadAudio, EngineNotUsable
from app.engines.sherpa.embedding import SherpaEmbedder, load_embedder
from app.engines.sherpa.onnx_file import read_onnx
from tests.support.sherpa import speaker, zipformer2
from tests.support.sherpa.metadata import set_metadata
from tests.support.sherpa.tones import LETTERS, RATE, silence, spoken


def load(folder: Path) -> SherpaEmbedder:
    return load_embedder(folder, 1, lambda doing: None)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> SherpaEmbedder:
    return load(speaker.speaker(tmp_path_factory.mktemp("speaker")))


def refused(folder: Path) -> str:
    with pytest.raises(EngineNotUsable) as caught:
        load(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def test_capabilities(embedder: SherpaEmbedder) -> None:
    assert embedder.capabilities.sample_rate == RATE
    assert embedder.capabilities.dimension == len(LETTERS)


def test_an_embedding_has_length_one(embedder: SherpaEmbedder) -> None:
    found = embedder.embed(spoken("你好世界"))
    assert found.dtype == np.float32
    assert found.shape == (len(LETTERS),)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_the_same_speaker_is_near_and_others_are_far(embedder: SherpaEmbedder) -> None:
    first, again, other = (
        embedder.embed(spoken(text)) for text in ("你你你", "你你你你你", "明明明")
    )
    assert first @ again > 0.99
    assert first @ other < 0.5


def test_what_one_gives_does_not_depend_on_others(embedder: SherpaEmbedder) -> None:
    sounds: list[Float32] = [
        spoken(text) for text in ("你好世", "天气今明", "你你你你你", "明世界")
    ]
    alone = [embedder.embed(sound) for sound in sounds]
    for order in ((3, 1, 0, 2), (2, 2, 1, 3)):
        for place in order:
            np.testing.assert_array_equal(embedder.embed(sounds[place]), alone[place])


@pytest.mark.parametrize("ms", [0, 1, 100, 499])
def test_too_short_audio_is_refused(ms: int, embedder: SherpaEmbedder) -> None:
    with pytest.raises(BadAudio, match="too short"):
        embedder.embed(spoken("你好世界")[: RATE * ms // 1000])


def test_half_a_second_is_enough(embedder: SherpaEmbedder) -> None:
    assert embedder.embed(spoken("你好世界")[: RATE // 2]).size


def test_silence_is_refused(embedder: SherpaEmbedder) -> None:
    with pytest.raises(BadAudio, match="silent"):
        embedder.embed(silence(2000))


def test_samples_that_are_no_numbers_are_refused(embedder: SherpaEmbedder) -> None:
    samples = spoken("你好世界")
    samples[100] = np.nan
    with pytest.raises(ValueError, match="no numbers"):
        embedder.embed(samples)


@pytest.mark.parametrize("value", [None, "", "nonsense", "-1", "999999999"])
@pytest.mark.parametrize("key", ["framework", "output_dim", "sample_rate", "normalize_samples"])
def test_every_metadatum_is_checked(key: str, value: str | None, tmp_path: Path) -> None:
    folder = speaker.speaker(tmp_path)
    set_metadata(folder / "model.onnx", **{key: value})
    if (key, value) == ("normalize_samples", "999999999"):
        load(folder)
    else:
        assert key in refused(folder)


def test_a_model_without_a_language_is_refused(tmp_path: Path) -> None:
    folder = speaker.speaker(tmp_path)
    set_metadata(folder / "model.onnx", language=None)
    assert "language" in refused(folder)


def test_all_metadata_that_must_be_there_are_checked(tmp_path: Path) -> None:
    checked = {"framework", "output_dim", "sample_rate", "normalize_samples", "language"}
    folder = speaker.speaker(tmp_path)
    assert read_onnx(folder / "model.onnx").metadata.keys() == checked | {"model_type"}


def test_other_files_are_refused(tmp_path: Path) -> None:
    assert "no folder" in refused(tmp_path / "none")
    assert "has no *.onnx" in refused(tmp_path)
    path = tmp_path / "model.onnx"
    for content in (b"", b"<html>404</html>"):
        path.write_bytes(content)
        refused(tmp_path)
    zipformer2.ctc(tmp_path)
    assert "framework" in refused(tmp_path)
