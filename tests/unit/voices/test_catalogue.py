from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.core.errors import UnknownVoice
from app.core.speech import Gender, Voice
from app.voices.aliases import FILE_NAME, Aliases, AliasFileError
from app.voices.catalogue import VoiceCatalogue


def voice(name: str, language: str, gender: Gender) -> Voice:
    return Voice(name=name, language=language, gender=gender)


PRESETS = [
    voice("中文女", "zh-CN", "female"),
    voice("中文男", "zh-CN", "male"),
    voice("日语男", "ja-JP", "male"),
    voice("粤语女", "zh-HK", "female"),
    voice("英文女", "en-US", "female"),
    voice("Alice", "en-US", "female"),
]


def catalogue(
    presets: list[Voice] = PRESETS, any_voice: bool = False, directory: Path | None = None
) -> VoiceCatalogue:
    made = VoiceCatalogue(Aliases(directory))
    made.set_engine(presets, any_voice)
    return made


@pytest.mark.parametrize("name", ["中文女", "Alice", "alice", "ALICE"])
def test_presets(name: str) -> None:
    assert catalogue().resolve(name).name.lower() == name.lower()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xiaoyun", "中文女"),
        ("xiaogang", "中文男"),
        ("longxiaochun_v2", "中文女"),
        ("shanshan", "粤语女"),
        ("tomoka", "日语男"),  # the right language before the right gender
        ("andy", "英文女"),
        ("emily", "英文女"),  # en-GB: another tag of the same family
        ("hanna", "中文女"),  # German, of which there is none: the first of the gender
    ],
)
def test_aliases_find_the_closest(name: str, expected: str) -> None:
    assert catalogue().resolve(name).name == expected


WOMAN = voice("speaker-0", "zh-CN", "female")


@pytest.mark.parametrize("name", ["中文男", "英文女", "日语男", "narrator", "deep", "NARRATOR"])
def test_presets_of_another_engine_find_the_closest(name: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('narrator = "中文男"\ndeep = "xiaogang"\n', "utf-8")
    made = catalogue([WOMAN], directory=tmp_path)
    made.refresh()
    assert made.resolve(name) == WOMAN


def test_an_alias_finds_the_closest_by_language_and_gender(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('narrator = "英文男"\n', "utf-8")
    made = catalogue(directory=tmp_path)
    made.refresh()
    assert made.resolve("narrator").name == made.resolve("英文男").name == "英文女"


def test_aliases_in_a_circle_are_unknown(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('a = "b"\nb = "a"\nc = "c"\n', "utf-8")
    made = catalogue(directory=tmp_path)
    made.refresh()
    for name in "abc":
        with pytest.raises(UnknownVoice):
            made.resolve(name)


def test_aliases_for_lost_voices_are_told_once(tmp_path: Path) -> None:
    text = 'narrator = "中文男"\ngone = "nobody"\nmine = "中文女"\n'
    (tmp_path / FILE_NAME).write_text(text, "utf-8")
    made = VoiceCatalogue(Aliases(tmp_path))
    with capture_logs() as logs:
        made.refresh()  # before the engine is there
        assert not logs
        made.set_engine([PRESETS[0]], any_voice=False)
        made.set_engine([PRESETS[0]], any_voice=False)  # of a second worker
    told = [(entry["alias"], entry["voice"], entry["instead"]) for entry in logs]
    assert told == [
        ("gone", "nobody", "none: requests for it fail"),
        ("narrator", "中文男", "the closest one"),
    ]
    (tmp_path / FILE_NAME).write_text(text + 'new = "somebody"\n', "utf-8")
    with capture_logs() as logs:
        made.refresh()
    assert [entry["alias"] for entry in logs] == ["new"]


def test_nothing_is_lost_to_an_engine_that_takes_any_voice(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('gone = "nobody"\n', "utf-8")
    made = catalogue(any_voice=True, directory=tmp_path)
    with capture_logs() as logs:
        made.refresh()
    assert not logs
    assert made.resolve("gone").name == "nobody"


def test_a_preset_comes_before_an_alias_of_its_name() -> None:
    mine = voice("xiaoyun", "en-US", "male")
    assert catalogue([*PRESETS, mine]).resolve("xiaoyun") == mine


@pytest.mark.parametrize("tag", ["yue", "yue-HK", "zh-HK", "zh-yue", "zh_HK"])
def test_cantonese_under_any_of_its_tags(tag: str) -> None:
    cantonese = voice("c", tag, "male")
    assert catalogue([PRESETS[0], cantonese]).resolve("shanshan") == cantonese


def test_mandarin_before_cantonese_for_a_mandarin_name() -> None:
    presets = [voice("c", "zh-HK", "female"), voice("m", "cmn-CN", "male")]
    assert catalogue(presets).resolve("xiaoyun").name == "c"
    assert catalogue([*presets, voice("z", "zh-CN", "male")]).resolve("xiaoyun").name == "z"


def test_gender_then_anything() -> None:
    presets = [voice("m", "fr-FR", "male"), voice("f", "fr-FR", "female")]
    assert catalogue(presets).resolve("xiaoyun").name == "f"
    assert catalogue(presets[:1]).resolve("xiaoyun").name == "m"


def test_unknown_name() -> None:
    with pytest.raises(UnknownVoice):
        catalogue().resolve("somebody")


def test_any_voice() -> None:
    found = catalogue(any_voice=True).resolve("somebody")
    assert (found.name, found.language, found.gender) == ("somebody", "zh-CN", "unknown")
    assert catalogue(any_voice=True).resolve("xiaogang").name == "中文男"
    alone = catalogue([], any_voice=True).resolve("harry")
    assert (alone.name, alone.language, alone.gender) == ("harry", "en-GB", "male")
    assert catalogue([], any_voice=True).resolve("somebody").language == "zh-CN"


def test_no_voices_at_all() -> None:
    with pytest.raises(UnknownVoice):
        catalogue([]).resolve("xiaoyun")


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a" * 65,
        "../../etc/passwd",
        "a/b",
        "a\\b",
        ".hidden",
        "a..b",
        "a\nb",
        "a\x00b",
        "a\x85b",
        "a\ud800",
    ],
)
def test_names_that_no_voice_can_have(name: str) -> None:
    with pytest.raises(UnknownVoice) as caught:
        catalogue(any_voice=True).resolve(name)
    assert caught.value.text == UnknownVoice.default_text


def test_longest_name() -> None:
    assert catalogue(any_voice=True).resolve("名" * 64).name == "名" * 64


def test_list_is_the_engines_own() -> None:
    made = catalogue()
    made.list().clear()
    assert made.list() == PRESETS
    made.set_engine(PRESETS[:1], any_voice=False)
    assert made.list() == PRESETS[:1]
    with pytest.raises(UnknownVoice):
        made.resolve("Alice")


def test_refresh_reads_the_owners_file(tmp_path: Path) -> None:
    made = catalogue(directory=tmp_path)
    (tmp_path / FILE_NAME).write_text('xiaoyun = "Alice"\ngone = "removed voice"\n')
    assert made.resolve("xiaoyun").name == "中文女"
    made.refresh()
    assert made.resolve("xiaoyun").name == "Alice"
    with pytest.raises(UnknownVoice):
        made.resolve("gone")
    (tmp_path / FILE_NAME).write_text("broken")
    with pytest.raises(AliasFileError):
        made.refresh()
    assert made.resolve("xiaoyun").name == "Alice"
