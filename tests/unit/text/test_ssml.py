"""SSML: what is said, how, and the pauses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidSsml, UnknownVoice
from app.text.ssml import MAX_DEPTH, MAX_ELEMENTS, Document, Manner, is_ssml, parse

BASE = Manner("siyue", speed=1.5, pitch=1.0, volume=0.5)


def read(text: str, base: Manner = BASE, language: str = "zh-CN") -> Document:
    return parse(text, base, lambda voice: language)


def spans(text: str) -> list[tuple[str, int]]:
    return [(span.text.strip(), span.pause_ms) for span in read(f"<speak>{text}</speak>").spans]


def manner(text: str, base: Manner | None = None) -> Manner:
    """That of what says "x"."""
    (span,) = [s for s in read(text, base or Manner("v")).spans if "x" in s.text]
    return span.manner


@pytest.mark.parametrize(
    "text", ["<speak>", " \n<speak a='b'>", "<speak/>", '<?xml v="1"?><speak>']
)
def test_what_begins_like_ssml_is_meant_as_such(text: str) -> None:
    assert is_ssml(text)


@pytest.mark.parametrize("text", ["", "a<speak>", "<speaker>", "<p>", "speak", "<spea"])
def test_what_does_not_is_not(text: str) -> None:
    assert not is_ssml(text)


def test_plain_text_in_the_manner_of_the_request() -> None:
    (span,) = read("<speak>你好 &amp; &lt;再见&gt; &quot;&apos;</speak>").spans
    assert span.text == "你好 & <再见> \"'\n"
    assert span.manner == BASE
    assert (span.pause_ms, span.start) == (0, 0)


@pytest.mark.parametrize(
    ("attributes", "pause_ms"),
    [
        ('time="500ms"', 500), ('time="1s"', 1_000), ('time=" 0.25 s "', 250),
        ('time="11s"', 10_000), ('time="999999999s"', 10_000), ('strength="strong"', 750),
        ('strength="none"', 0), ("", 500), ('time="soon"', 500), ('time="-1s"', 500),
    ],
)  # fmt: skip
def test_breaks(attributes: str, pause_ms: int) -> None:
    found = spans(f"a<break {attributes}/>b")
    assert found == ([("a", pause_ms), ("b", 0)] if pause_ms else [("ab", 0)])


def test_breaks_add_up_and_may_come_first() -> None:
    found = spans('<break time="1s"/><break time="2s"/>a<break/>')
    assert found == [("", 3_000), ("a", 500), ("", 0)]


def test_speak_overrules_the_request() -> None:
    document = read(
        '<speak voice="w" rate="-500" pitch="500" volume="100" encodeType="MP3" sampleRate="8000"'
        ' bgm="http://x/y.wav" effect="robot">x</speak>'
    )
    assert document.spans[0].manner == Manner("w", 0.5, 2.0, 2.0)
    assert (document.format, document.sample_rate) == ("MP3", 8_000)


def test_attributes_that_make_no_sense_count_as_not_given() -> None:
    document = read('<speak rate="fast" volume="" sampleRate="8k" voice="">x</speak>')
    assert document.spans[0].manner == BASE
    assert (document.format, document.sample_rate) == (None, None)


@pytest.mark.parametrize(
    ("attributes", "factors"),
    [
        ('rate="fast"', (1.5, 1, 1)), ('rate="150%"', (1.5, 1, 1)), ('rate="+50%"', (1.5, 1, 1)),
        ('rate="-20%"', (0.8, 1, 1)), ('rate="1.5"', (1.5, 1, 1)), ('rate="500"', (2, 1, 1)),
        ('rate="-500"', (0.5, 1, 1)), ('rate="900%"', (2, 1, 1)), ('rate="what"', (1, 1, 1)),
        ('pitch="+12st"', (1, 2, 1)), ('pitch="low"', (1, 0.85, 1)), ('pitch="0%"', (1, 0.5, 1)),
        ('volume="-6.0206dB"', (1, 1, 0.5)), ('volume="100"', (1, 1, 2)),
        ('volume="silent"', (1, 1, 0)), ('volume="-200%"', (1, 1, 0)),
    ],
)  # fmt: skip
def test_prosody(attributes: str, factors: tuple[float, float, float]) -> None:
    found = manner(f"<speak><prosody {attributes}>x</prosody>y</speak>")
    assert (found.speed, found.pitch, found.volume) == pytest.approx(factors, abs=1e-5)


def test_nested_prosody_multiplies_within_bounds() -> None:
    inner = '<prosody rate="150%" volume="50%">x</prosody>'
    found = manner(f'<speak rate="-250"><prosody rate="110%">{inner}</prosody></speak>')
    assert found.speed == pytest.approx(1 / 1.5 * 1.1 * 1.5)
    assert found.volume == 0.5
    assert manner(f"<speak>{inner}</speak>", Manner("v", speed=2.0)).speed == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<sub alias="万维网">W3C<break/></sub>好', "万维网好"),
        ('<phoneme alphabet="py" ph="dian3">典</phoneme>', "典"),
        ("<w>长江</w>大桥", "长江大桥"),
        ('<soundEvent src="http://x/y.wav">ding</soundEvent>a', "a"),
        ('<emotion category="happy" intensity="1.0">好</emotion>', "好"),
        ("<what><ever>a</ever>b</what>", "ab"),
        ('<say-as interpret-as="digits">12<w>3</w></say-as>', "一二三"),
        ('<say-as interpret-as="digits"><sub alias="45">x</sub></say-as>', "四五"),
        ('<say-as interpret-as="cardinal">12</say-as>', "12"),
        ("<say-as>12</say-as>", "12"),
        ("a<!-- 1 -->b<?php c ?>d<![CDATA[<e>]]>", "abd<e>"),
        ("a\n   b", "a b"),
    ],
)
def test_what_is_said(text: str, said: str) -> None:
    assert "".join(part for part, _ in spans(text)) == said


def test_paragraphs_and_sentences_end_lines() -> None:
    (span,) = read("<speak><p><s>a</s><s>b</s></p>c</speak>").spans
    assert [line for line in span.text.split("\n") if line] == ["a", "b", "c"]


def test_several_documents_in_a_row() -> None:
    document = read(
        '<speak sampleRate="8000">a</speak>\n<speak voice="w" sampleRate="16000">b</speak>'
    )
    assert [(s.text, s.manner.voice) for s in document.spans] == [("a\n", "siyue"), ("b\n", "w")]
    assert document.sample_rate == 8_000
    assert [span.start for span in document.spans] == [0, 2]


def test_an_own_namespace_is_none() -> None:
    text = '<?xml version="1.0"?><speak xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="zh">'
    assert read(f"{text}a</speak>").text == "a\n"


BOMB = "".join(f'<!ENTITY {b} "{"&" + a + ";" * 10}">' for a, b in pairwise("abcdefgh"))


@pytest.mark.parametrize(
    "text",
    [
        "", "你好", "<speak>", "<speak>a</speak", "<speak>a</p></speak>", "<speak>a & b</speak>",
        "<speak>&nbsp;</speak>", "a<speak/>", "<speak/>a", "<p>a</p>", "<speak><speak/></speak>",
        "<speak/></documents><documents>", "<speak a=b/>", "<speak>\0</speak>",
        "<speak>\ud800</speak>", f"<!DOCTYPE x [{BOMB}]><speak>&h;</speak>",
        '<!DOCTYPE x SYSTEM "http://127.0.0.1/x"><speak/>', "<x:speak/>",
        "<speak>" + "<p>" * MAX_DEPTH + "</p>" * MAX_DEPTH + "</speak>",
        "<speak>" + "<w/>" * MAX_ELEMENTS + "</speak>", "<speak>" + "<p>" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_ssml(text: str) -> None:
    with pytest.raises(InvalidSsml):
        read(text)


def test_a_voice_that_there_is_not() -> None:
    def unknown(voice: str) -> str:
        raise UnknownVoice

    with pytest.raises(UnknownVoice):
        parse('<speak><say-as interpret-as="digits">1</say-as></speak>', BASE, unknown)


pieces = st.sampled_from(
    [
        "<speak>", "</speak>", "<speak ", 'rate="200"', ">", "<p>", "</p>", "<break", "/>", "<w/>",
        'time="1s"', '<say-as interpret-as="digits">', "</say-as>", "12", "你好。", "&amp;", "&x;",
        "&#65;", "&#0;", "<!--", "-->", "<![CDATA[", "]]>", "<!DOCTYPE a>", "<?x ?>", "\n", "'",
        '<sub alias="b">', "</sub>", '<prosody rate="1e9" pitch="+99999st">', "</prosody>",
    ]
) | st.text(max_size=5)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(pieces, max_size=20).map("".join))
def test_any_text_is_a_document_or_is_refused(text: str) -> None:
    for candidate in (text, f"<speak>{text}</speak>"):
        try:
            document = read(candidate)
        except InvalidSsml:
            continue
        starts = [span.start for span in document.spans]
        lengths = [len(span.text) for span in document.spans]
        assert starts == [sum(lengths[:index]) for index in range(len(lengths))]
        for span in document.spans:
            assert 0.5 <= span.manner.speed <= 2 and 0.5 <= span.manner.pitch <= 2
            assert 0 <= span.manner.volume <= 2
            assert span.pause_ms >= 0


def test_breaks_of_more_than_half_an_hour_are_refused() -> None:
    """Few characters would be gigabytes of silence."""
    breaks = '<break time="10s"/>' * 180
    assert sum(span.pause_ms for span in read(f"<speak>x{breaks}y</speak>").spans) == 1_800_000
    with pytest.raises(InvalidSsml, match="30 minutes"):
        read(f'<speak>x{breaks}<break time="1ms"/>y</speak>')
