"""A text that comes in pieces: which sentences it has, and when they are ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidSsml, UnknownVoice
from app.core.speech import SynthesisRequest, Voice
from app.services import passages
from app.services.passages import Passage, PieceScript, plain_passages
from app.text.sentences import split_sentences
from app.text.ssml import Manner, parse

VOICE = Voice(name="v", language="zh-CN", gender="female")
REQUEST = SynthesisRequest(text="", voice="v", speed=1.5)
NEVER_S = 1e9


def resolve(name: str) -> Voice:
    if name == "nobody":
        raise UnknownVoice
    return VOICE


def script(settle_s: float = NEVER_S, ssml: bool | None = None) -> PieceScript:
    request = SynthesisRequest(text="", voice="v", speed=1.5, ssml=ssml)
    return PieceScript(request, resolve, settle_s)


async def rest(found: PieceScript) -> list[str]:
    taken = list[Passage]()
    while (passage := await found.take()) is not None:
        taken.append(passage)
    return [passage.text for passage in taken]


texts = st.text(st.sampled_from(list("你好，。！？…”\n.!? ab3")), max_size=60)


@settings(max_examples=200)
@given(text=texts, cuts=st.lists(st.integers(0, 60), max_size=10))
async def test_the_sentences_are_those_of_the_whole_text(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = script()
    for first, last in pairwise(edges):
        pieces.say(text[first:last])
    pieces.finish()
    assert await rest(pieces) == split_sentences(text, passages.MAX_SENTENCE_CHARS)
    assert pieces.characters == len(text)


@given(text=texts.map(lambda text: text * 40))
def test_places_in_a_whole_text(text: str) -> None:
    found = list(plain_passages(text, REQUEST, VOICE))
    assert [each.text for each in found] == split_sentences(text, passages.MAX_SENTENCE_CHARS)
    at = 0
    for each in found:
        assert text[each.text_index :].startswith(each.text)
        assert not any(map(str.isalnum, text[at : each.text_index]))
        at = each.text_index + len(each.text)
        assert each.speed == 1.5


async def test_whoever_waits_gets_the_next_sentence_when_it_is_there() -> None:
    pieces = script()
    waiting = asyncio.create_task(pieces.take())
    for character in "你好。":
        pieces.say(character)
        await asyncio.sleep(0)
    assert not waiting.done() and pieces.began_at is None
    pieces.say("世")
    first = await waiting
    assert first is not None and first.text == "你好。"
    assert pieces.began_at is not None
    waiting = asyncio.create_task(pieces.take())
    await asyncio.sleep(0)
    pieces.finish()
    last = await waiting
    assert last is not None and last.text == "世"
    assert await pieces.take() is None


class Timers:
    """In place of the event loop's clock: a timer runs when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", self._call_later)
        monkeypatch.setattr(loop, "time", lambda: self.now)

    def _call_later(
        self, delay: float, work: Callable[..., None], *arguments: object
    ) -> Callable[[], None]:
        entry = (self.now + delay, work, arguments)
        self.due.append(entry)

        class Handle:
            def cancel(handle) -> None:
                if entry in self.due:
                    self.due.remove(entry)

        return Handle()  # type: ignore[return-value]  # all of it that is used

    def run(self, until: float) -> None:
        self.now = until
        for entry in [entry for entry in self.due if entry[0] <= until]:
            self.due.remove(entry)
            entry[1](*entry[2])


async def test_a_complete_sentence_waits_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = script(0.3)
    with monkeypatch.context() as patch:
        timers = Timers(patch)
        pieces.say("你好！")
        timers.run(0.29)
        assert pieces.began_at is None
        pieces.say("！")  # the client is still at it
        timers.run(0.31)
        assert pieces.began_at is None
        timers.run(0.6)
        assert pieces.began_at is not None
        assert timers.due == []
    pieces.finish()
    assert await rest(pieces) == ["你好！！"]


async def test_a_process_that_was_held_up_waits_for_what_may_have_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces = script(0.3)
    with monkeypatch.context() as patch:
        timers = Timers(patch)
        pieces.say("你好！")
        timers.run(1.0)
        assert pieces.began_at is None
        timers.run(1.31)
        assert pieces.began_at is not None


@pytest.mark.parametrize("text", ["3.", "你好", "Yes!", "他说"])
async def test_nothing_waits_where_the_sentence_may_go_on(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with monkeypatch.context() as patch:
        timers = Timers(patch)
        script(0.3).say(text)
        assert timers.due == []


@pytest.mark.parametrize("end", [PieceScript.flush, PieceScript.finish, PieceScript.close])
async def test_no_timer_outlives_its_text(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[PieceScript], None]
) -> None:
    pieces = script(0.3)
    with monkeypatch.context() as patch:
        timers = Timers(patch)
        pieces.say("你好。")
        assert len(timers.due) == 1
        end(pieces)
        assert timers.due == []
        pieces.say("x" if end is PieceScript.flush else "。")
        assert timers.due == []


async def test_ssml_is_read_when_it_is_flushed() -> None:
    pieces = script(ssml=True)
    for character in "<speak>a<break/>b。</speak>":
        pieces.say(character)
    pieces.flush()
    pieces.say("plain. text")
    pieces.flush()
    pieces.say("  ")
    pieces.finish()
    assert await rest(pieces) == ["a", "b。", "plain.", "text"]
    assert pieces.characters == len("ab。" + "plain. text")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<speak>", InvalidSsml),
        ("a < b", InvalidSsml),
        ('<speak voice="nobody">1</speak>', UnknownVoice),
    ],
)
async def test_ssml_that_cannot_be_spoken_fails_whoever_takes(
    text: str, error: type[Exception]
) -> None:
    pieces = script(ssml=True)
    pieces.say(text)
    pieces.finish()
    with pytest.raises(error):
        await pieces.take()


def test_places_in_ssml_are_those_in_what_is_said() -> None:
    """An element that ends a sentence adds nothing that the client could count."""
    base = Manner(voice="v")
    text = "<speak><s>一二</s><s>三</s><prosody rate='fast'><s>四五</s><s>六</s></prosody></speak>"
    document = parse(text, base, lambda voice: "zh-CN")
    found = list(passages.passages_of(document, resolve))
    assert [(each.text, each.text_index) for each in found] == [
        ("一二", 0),
        ("三", 2),
        ("四五", 3),
        ("六", 5),
    ]
