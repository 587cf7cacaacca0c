"""Many streams through the runtime's streaming recognisers, on tiny models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.audio.pcm import Float32
from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Hypothesis
from app.engines.sherpa.kinds import find_model
from app.engines.sherpa.settings import SherpaOptions
from app.engines.sherpa.streaming import StreamingRecognizer, load_streaming
from tests.support.sherpa import paraformer, zipformer1, zipformer2
from tests.support.sherpa.tones import GAP_MS, LEAD_MS, LETTERS, TONE_MS, silence, spoken, tones

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "zipformer2": zipformer2.transducer,
    "zipformer1": zipformer1.transducer,
    "ctc": zipformer2.ctc,
    "paraformer": paraformer.streaming,
}
OPTIONS = RecognitionOptions(words=True)
AMBIGUOUS = tones([0, (1, 2), 3])
"""你, then 好 and 世 at once, then 界."""


class Counting:
    """A recogniser's runtime that notes how many streams each call has."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def decode_streams(self, streams: list[Any]) -> None:
        assert streams
        assert all(self._runtime.is_ready(stream) for stream in streams)
        self.calls.append(len(streams))
        self._runtime.decode_streams(streams)


@pytest.fixture(scope="module", params=BUILDERS)
def recognizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> StreamingRecognizer:
    return loaded(BUILDERS[request.param](tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def transducer(tmp_path_factory: pytest.TempPathFactory) -> StreamingRecognizer:
    return loaded(zipformer2.transducer(tmp_path_factory.mktemp("model")))


def loaded(folder: Path, **options: Any) -> StreamingRecognizer:
    model = find_model(folder, "streaming")
    return load_streaming(model, SherpaOptions(**options), lambda doing: None)


def counting(recognizer: StreamingRecognizer, monkeypatch: pytest.MonkeyPatch) -> Counting:
    runtime = Counting(recognizer._recognizer)
    monkeypatch.setattr(recognizer, "_recognizer", runtime)
    return runtime


def feeds(recognizer: StreamingRecognizer, stream: object, audio: Float32) -> list[Feed]:
    step = 16 * recognizer.capabilities.step_ms
    return [
        Feed(stream, audio[begin : begin + step], begin + step >= audio.size)
        for begin in range(0, max(audio.size, 1), step)
    ]


def run(
    recognizer: StreamingRecognizer,
    audios: Sequence[Float32],
    options: Sequence[RecognitionOptions] = (),
    *,
    late: int = 0,
) -> list[list[Hypothesis]]:
    """All hypotheses of each audio's stream; the i-th begins ``i % (late + 1)`` steps later."""
    chosen = options or [OPTIONS] * len(audios)
    plans: list[list[Feed | None]] = [
        [None] * (i % (late + 1)) + feeds(recognizer, recognizer.open(option), audio)
        for i, (audio, option) in enumerate(zip(audios, chosen, strict=True))
    ]
    found: list[list[Hypothesis]] = [[] for _ in plans]
    for step in range(max(map(len, plans))):
        now = [i for i, plan in enumerate(plans) if step < len(plan) and plan[step] is not None]
        batch = [feed for i in now if (feed := plans[i][step]) is not None]
        for i, answer in zip(now, recognizer.step(batch), strict=True):
            assert isinstance(answer, Hypothesis)
            found[i].append(answer)
    return found


def text_of(hypotheses: Sequence[Hypothesis]) -> str:
    return hypotheses[-1].text


@pytest.mark.parametrize("cut_ms", range(0, 320, 37))
def test_a_sentence_is_heard_to_its_end(recognizer: StreamingRecognizer, cut_ms: int) -> None:
    # Ends with the last tone wherever that lies in a chunk.
    sound = np.concatenate([silence(cut_ms), spoken(LETTERS)[: -16 * GAP_MS]])
    assert text_of(run(recognizer, [sound])[0]) == LETTERS


def test_partials_grow(recognizer: StreamingRecognizer) -> None:
    [found] = run(recognizer, [spoken(LETTERS * 2)])
    texts = [hypothesis.text for hypothesis in found]
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert 0 < len(texts[len(texts) // 2]) < 2 * len(LETTERS)


def test_twenty_streams_share_calls_and_give_what_they_give_alone(
    recognizer: StreamingRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    said = ["".join(rng.choice(list(LETTERS), 1 + i % 8)) for i in range(20)]
    sounds = [np.concatenate([silence(17 * i), spoken(text)]) for i, text in enumerate(said)]
    alone = [run(recognizer, [sound])[0] for sound in sounds]
    runtime = counting(recognizer, monkeypatch)
    together = run(recognizer, sounds, late=3)
    assert together == alone
    assert [text_of(found) for found in together] == said
    assert max(runtime.calls) > 5
    assert max(runtime.calls) <= 16


def test_int8_scaled_by_call_is_decoded_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = zipformer2.ctc(tmp_path)
    model = folder / "model.onnx"
    # A field that the runtime does not know, with the name of the operator.
    model.write_bytes(model.read_bytes() + b"\x32\x15DynamicQuantizeLinear")
    recognizer = loaded(folder)
    runtime = counting(recognizer, monkeypatch)
    found = run(recognizer, [spoken("你好"), spoken("世界")])
    assert [text_of(each) for each in found] == ["你好", "世界"]
    assert set(runtime.calls) == {1}


def test_words_have_the_times_of_the_tones(recognizer: StreamingRecognizer) -> None:
    [found] = run(recognizer, [spoken(LETTERS)])
    if not recognizer.capabilities.word_times:
        assert found[-1].words == ()
        return
    assert [word.text for word in found[-1].words] == list(LETTERS)
    for index, word in enumerate(found[-1].words):
        assert abs(word.start_ms - LEAD_MS - index * (TONE_MS + GAP_MS)) <= 60
        assert word.start_ms <= word.end_ms <= LEAD_MS + len(LETTERS) * (TONE_MS + GAP_MS)


def test_words_only_where_they_are_asked_for(transducer: StreamingRecognizer) -> None:
    [found] = run(transducer, [spoken("你好")], [RecognitionOptions(words=False)])
    assert found[-1] == Hypothesis("你好")


@pytest.mark.parametrize("samples", [0, 1, 79, 400, 1601])
def test_tiny_streams_have_no_text(recognizer: StreamingRecognizer, samples: int) -> None:
    [found] = run(recognizer, [np.zeros(samples, np.float32)])
    assert [each.text for each in found] == [""]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_audio_fails_alone(recognizer: StreamingRecognizer, bad: float) -> None:
    streams = [recognizer.open(OPTIONS) for _ in range(3)]
    plans = [feeds(recognizer, stream, spoken(LETTERS)) for stream in streams]
    damaged = plans[1][1].samples.copy()
    damaged[7] = bad
    plans[1][1] = Feed(streams[1], damaged, False)
    recognizer.step([plan[0] for plan in plans])
    found = recognizer.step([plan[1] for plan in plans])
    assert [isinstance(each, Exception) for each in found] == [False, True, False]
    for feed_0, feed_2 in zip(plans[0][2:], plans[2][2:], strict=True):
        last = recognizer.step([feed_0, feed_2])
    assert [each.text for each in last if isinstance(each, Hypothesis)] == [LETTERS, LETTERS]


def test_what_fails_in_a_call_fails_that_calls_streams_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = loaded(zipformer2.ctc(tmp_path), max_batch=1)
    runtime = counting(recognizer, monkeypatch)
    streams = [recognizer.open(OPTIONS) for _ in range(2)]
    plans = [feeds(recognizer, stream, spoken(LETTERS)) for stream in streams]
    recognizer.step([plan[0] for plan in plans])
    decode = runtime.decode_streams

    def failing(native: list[Any]) -> None:
        if native[0] is streams[0].native:  # type: ignore[attr-defined]  # the engine's own
            raise RuntimeError("broken")
        decode(native)

    monkeypatch.setattr(runtime, "decode_streams", failing)
    found = recognizer.step([plan[1] for plan in plans])
    assert [isinstance(each, Exception) for each in found] == [True, False]
    assert isinstance(recognizer.step([plans[0][2]])[0], RuntimeError)


def test_slots_are_counted(tmp_path: Path) -> None:
    recognizer = loaded(zipformer2.ctc(tmp_path), slots=2)
    first, _ = recognizer.open(OPTIONS), recognizer.open(OPTIONS)
    with pytest.raises(RuntimeError):
        recognizer.open(OPTIONS)
    recognizer.close(first)
    recognizer.close(first)
    recognizer.step([Feed(recognizer.open(OPTIONS), silence(20), True)])
    recognizer.open(OPTIONS)
    with pytest.raises(RuntimeError):
        recognizer.open(OPTIONS)


def test_a_step_of_the_wrong_length_is_refused(transducer: StreamingRecognizer) -> None:
    stream = transducer.open(OPTIONS)
    assert isinstance(transducer.step([Feed(stream, silence(100), False)])[0], ValueError)
    transducer.close(stream)


def test_hotwords_are_each_streams_own(transducer: StreamingRecognizer) -> None:
    wanted = [
        RecognitionOptions(hotwords=(("世界", 5.0),) if index % 2 else ()) for index in range(20)
    ]
    found = run(transducer, [AMBIGUOUS] * 20, wanted)
    assert [text_of(each) for each in found] == ["你好界", "你世界"] * 10


@pytest.mark.parametrize(
    "word",
    ["世界", "世界 :nan", "世/界", ":x", "世界 :x", "#a @b", "\0", "hello", "☃", "世界" * 500],
)
@pytest.mark.parametrize("weight", [2.0, -6.0, 0.0, float("nan"), float("inf"), 1e30])
def test_no_hotword_breaks_a_stream(
    transducer: StreamingRecognizer, word: str, weight: float, capfd: pytest.CaptureFixture[str]
) -> None:
    options = RecognitionOptions(hotwords=((word, weight),))
    assert text_of(run(transducer, [spoken("你好今天")], [options])[0]) == "你好今天"
    assert capfd.readouterr() == ("", "")


def test_latin_hotwords_are_cut_by_the_models_vocabulary(tmp_path: Path) -> None:
    folder = zipformer2.transducer(tmp_path)
    tokens = folder / "tokens.txt"
    renamed = tokens.read_text("utf-8").replace("世", "▁HE").replace("界", "LLO")
    tokens.write_text(renamed, "utf-8")
    (folder / "bpe.vocab").write_text("▁HE\t-1.0\nLLO\t-2.0\n", "utf-8")
    recognizer = loaded(folder)
    wanted = RecognitionOptions(hotwords=(("Hello", 5.0),), words=True)
    plain, helped = run(recognizer, [AMBIGUOUS] * 2, [OPTIONS, wanted])
    assert text_of(plain) == "你好LLO"
    assert text_of(helped) == "你 HELLO"
    assert [word.text for word in helped[-1].words] == ["你", "HELLO"]


def test_models_without_that_search_take_no_hotwords(tmp_path: Path) -> None:
    recognizer = loaded(zipformer2.ctc(tmp_path))
    assert not recognizer.capabilities.hotwords
    options = RecognitionOptions(hotwords=(("世界", 5.0),))
    assert text_of(run(recognizer, [spoken("你好")], [options])[0]) == "你好"
