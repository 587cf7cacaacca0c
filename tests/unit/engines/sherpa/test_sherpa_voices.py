"""Names, languages and genders of voices, and what a lexicon is given to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import EngineNotUsable
from app.core.speech import Voice
from app.engines.sherpa.lexicon import Language, Lexicon
from app.engines.sherpa.pronounceable import Reader
from app.engines.sherpa.voice_kinds import VoiceKind, VoiceModel
from app.engines.sherpa.voices import Speaker, is_name, speakers_of, tags_of

KOKORO_V1_1 = ("af_maple", "af_sol", "bf_vale", "zf_001", "zf_002", "zm_009", "zm_010")


def model(
    *names: str,
    kind: VoiceKind = "Kokoro",
    languages: tuple[Language, ...] = ("zh", "en"),
    speakers: int | None = None,
    told_language: str = "",
) -> VoiceModel:
    lexicon = Lexicon((Path("lexicon.txt"),), languages, frozenset(), frozenset())
    count = len(names) if speakers is None else speakers
    return VoiceModel(kind, Path("m"), {}, 24_000, count, lexicon, names, told_language)


def numbers(found: tuple[Speaker, ...]) -> dict[str, int]:
    return {each.voice.name: each.number for each in found}


def voice(found: tuple[Speaker, ...], name: str) -> Voice:
    (one,) = [each.voice for each in found if each.voice.name == name]
    return one


def test_kokoros_names_tell_language_and_gender() -> None:
    found = speakers_of(model(*KOKORO_V1_1))
    told = [(each.voice.name, each.voice.language, each.voice.gender) for each in found[-7:]]
    assert told == [
        ("af_maple", "en-US", "female"),
        ("af_sol", "en-US", "female"),
        ("bf_vale", "en-GB", "female"),
        ("zf_001", "zh-CN", "female"),
        ("zf_002", "zh-CN", "female"),
        ("zm_009", "zh-CN", "male"),
        ("zm_010", "zh-CN", "male"),
    ]


def test_presets_come_first_for_the_speakers_that_fit() -> None:
    found = speakers_of(model(*KOKORO_V1_1))
    assert list(numbers(found).items())[:4] == [
        ("中文女", 3),
        ("中文男", 5),
        ("英文女", 0),
        ("英文男", 5),
    ]
    told = [(each.voice.language, each.voice.gender) for each in found[:4]]
    assert told == [(tag, gender) for tag in ("zh-CN", "en-US") for gender in ("female", "male")]
    assert voice(found, "英文男").description == "Kokoro, the same as zm_009"


def test_british_english_is_nearer_than_chinese() -> None:
    assert numbers(speakers_of(model("zm_010", "bm_george")))["英文男"] == 1


def test_a_gender_that_there_is_not_has_no_preset() -> None:
    found = numbers(speakers_of(model("zf_001", "af_sol")))
    assert found == {"中文女": 0, "英文女": 1, "zf_001": 0, "af_sol": 1}


def test_voices_of_languages_that_cannot_be_read_are_left_out() -> None:
    names = ("jf_alpha", "zf_001", "em_alex", "af_sol", "zm_010")
    found = numbers(speakers_of(model(*names, languages=("zh",))))
    assert found == {"中文女": 1, "中文男": 4, "zf_001": 1, "zm_010": 4}


def test_no_voice_that_can_be_read_is_refused() -> None:
    with pytest.raises(EngineNotUsable, match="no voice"):
        speakers_of(model("jf_alpha"))


@pytest.mark.parametrize("kind", ["Melo", "Matcha"])
def test_the_one_voice_of_a_kind_is_a_womans(kind: VoiceKind) -> None:
    found = speakers_of(model(kind=kind, speakers=1))
    assert numbers(found) == {"中文女": 0, "英文女": 0}
    assert [each.voice.gender for each in found] == ["female", "female"]


def test_speakers_without_names_have_numbers_and_no_gender() -> None:
    found = speakers_of(model(kind="VITS", speakers=3))
    assert numbers(found) == {"speaker-0": 0, "speaker-1": 1, "speaker-2": 2}
    assert {each.voice.gender for each in found} == {"unknown"}


def test_only_kokoros_names_are_read() -> None:
    (first,) = speakers_of(model("af_bella", kind="VITS", languages=("zh",)))
    assert (first.voice.language, first.voice.gender) == ("zh-CN", "unknown")


def test_cantonese_is_told() -> None:
    cantonese = model(kind="Matcha", speakers=1, languages=("zh",), told_language="Cantonese")
    assert tags_of(cantonese) == ("zh-HK",)
    assert numbers(speakers_of(cantonese)) == {"粤语女": 0}


HOSTILE = ["", " ", "../x", "a/b", "a\\b", ".hidden", "a..b", "a\nb", "a\0b", "a\x1b[31m", "x" * 65]


@pytest.mark.parametrize("name", [*HOSTILE, "\u202eabc", "half\ud83d", "a\u2028b", " a", "a "])
def test_hostile_names_are_none(name: str) -> None:
    assert not is_name(name)
    found = speakers_of(model(name, "zf_001"))
    assert numbers(found)["speaker-0"] == 0
    assert name not in numbers(found)


@pytest.mark.parametrize("name", ["anna", "小明", "Anna B.", "zf_001", "x" * 64, "1"])
def test_usual_names_are_names(name: str) -> None:
    assert is_name(name)


def test_the_same_name_twice_is_one_voice_and_a_number() -> None:
    assert numbers(speakers_of(model("One", "one", "speaker-1"))) == {
        "One": 0,
        "speaker-1": 1,
        "speaker-2": 2,
    }


def test_a_speaker_may_have_the_name_of_a_preset() -> None:
    found = numbers(speakers_of(model("中文女", "zf_001")))
    assert found == {"英文女": 1, "中文女": 0, "zf_001": 1}


# Reading

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("fun", "speech", "hello", "don't", "ice", "cream", "john", "cafe")


def reader(words: str = LETTERS) -> Reader:
    known = frozenset([*words, *WORDS])
    return Reader(Lexicon((Path("lexicon.txt"),), ("zh", "en"), known, frozenset("你好")))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("你好，hello!", "你好，hello!"),
        ("Hello HELLO", "hello hello"),
        ("API", "a p i"),
        ("你API好", "你a p i好"),
        ("P，q", "p，q"),
        ("FunSpeech", "fun speech"),
        ("HTTPSpeech", "h t t p speech"),
        ("myFun", "m y fun"),
        ("Don't don’t", "don't don't"),
        ("John's", "john s"),
        ("ice-cream", "ice cream"),
        ("Café", "cafe"),
        ("U.S. hello", "u s hello"),
        ("the U.S.A.", "t h e u s a."),
        ("GPT4o", "g p t 4 o"),
        ("ＯＫ", "o k"),
        ("x" * 20, " ".join("x" * 20)),
        ("x" * 21, "x" * 21),
        ("ß", "ß"),
        ("a\0b\x1b\ud83dc", "a b  c"),
        ("Привет", "Привет"),
    ],
)
def test_words_are_read_or_spelled(text: str, read: str) -> None:
    assert reader().readable(text) == read


def test_letters_that_the_lexicon_lacks_are_not_spelled() -> None:
    assert reader("ap").readable("API pa") == "api p a"


def test_what_is_known() -> None:
    known = reader("")
    assert [known.knows(text) for text in ("你", "hello", "x 好", "say don't")] == [True] * 4
    assert [known.knows(text) for text in ("", "...", "x", "ello", "世", "don")] == [False] * 6
