from pathlib import Path

import pytest

from app.voices.aliases import FILE_NAME, Aliases, AliasFileError, Wanted


def owner(tmp_path: Path, text: str) -> Aliases:
    (tmp_path / FILE_NAME).write_text(text, "utf-8")
    return Aliases(tmp_path)


@pytest.mark.parametrize(
    ("name", "language", "gender"),
    [
        ("xiaoyun", "zh-CN", "female"),
        ("xiaogang", "zh-CN", "male"),
        ("aixia", "zh-CN", "female"),
        ("longxiaochun", "zh-CN", "female"),
        ("longcheng", "zh-CN", "male"),
        ("loongbella", "zh-CN", "female"),
        ("harry", "en-GB", "male"),
        ("abby", "en-US", "female"),
        ("shanshan", "zh-HK", "female"),
        ("tomoya", "ja-JP", "male"),
        ("zhimi_emo", "zh-CN", "female"),
        ("jielidou", "zh-CN", "male"),
    ],
)
def test_names_of_the_cloud(name: str, language: str, gender: str) -> None:
    found = Aliases().find(name)
    assert isinstance(found, Wanted)
    assert (found.language, found.gender) == (language, gender)


def test_spelling_and_versions() -> None:
    aliases = Aliases()
    assert aliases.find("XiaoYun") == aliases.find("xiaoyun")
    assert aliases.find("longxiaochun_v2") == aliases.find("longxiaochun")
    assert aliases.find("nobody") is None
    assert aliases.find("_v2") is None


def test_the_owners_file_adds_and_overrules(tmp_path: Path) -> None:
    aliases = owner(
        tmp_path,
        'xiaoyun = "中文女"\n"我的声音" = { language = "en-GB", gender = "male" }\n',
    )
    assert isinstance(aliases.find("xiaoyun"), Wanted)
    aliases.refresh()
    assert aliases.find("xiaoyun") == "中文女"
    assert aliases.find("我的声音") == Wanted("en-GB", "male")
    assert isinstance(aliases.find("aixia"), Wanted)


def test_a_refresh_forgets_what_was_removed(tmp_path: Path) -> None:
    aliases = owner(tmp_path, 'mine = "a"\n')
    aliases.refresh()
    (tmp_path / FILE_NAME).unlink()
    aliases.refresh()
    assert aliases.find("mine") is None


def test_tables_are_written_either_way(tmp_path: Path) -> None:
    aliases = owner(tmp_path, '[mine]\nlanguage = "ja"\ngender = "unknown"\n')
    aliases.refresh()
    assert aliases.find("mine") == Wanted("ja", "unknown")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('a = "x"\nb = \n', 2, "value"),
        ('a = "x"\n中文 = "x"\n', 2, "statement"),
        ('a = "x"\n\nb = 3\n', 3, "must be a voice name"),
        ('a = ""\n', 1, "must be a voice name"),
        ('# c\n"a b" = { language = "zh-CN" }\n', 2, "must be a voice name"),
        ('a = { language = "zh-CN", gender = "female", extra = 1 }\n', 1, "must be a voice name"),
        ('\na = { language = "中文", gender = "female" }\n', 2, "language"),
        ('\na = { language = 3, gender = "female" }\n', 2, "language"),
        ('[b]\nlanguage = "zh"\ngender = "woman"\n', 1, "female, male, unknown"),
        ('x = "y"\na.b = "c"\n', 2, "must be a voice name"),
    ],
)
def test_a_malformed_file_names_the_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    aliases = owner(tmp_path, text)
    with pytest.raises(AliasFileError, match=f"line {line}.*{reason}|{reason}.*line {line}"):
        aliases.refresh()


def test_a_failed_refresh_keeps_the_old_table(tmp_path: Path) -> None:
    aliases = owner(tmp_path, 'mine = "a"\n')
    aliases.refresh()
    (tmp_path / FILE_NAME).write_text("mine = \n")
    with pytest.raises(AliasFileError):
        aliases.refresh()
    assert aliases.find("mine") == "a"


@pytest.mark.parametrize("content", [b"a = '\xff'", None])
def test_an_unreadable_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / FILE_NAME
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(AliasFileError, match="cannot be read") as caught:
        Aliases(tmp_path).refresh()
    assert str(tmp_path) not in str(caught.value)
