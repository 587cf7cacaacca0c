"""The list of models, where their files are, and which of them the settings stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines import registry
from app.engines.downloads import State
from app.engines.sherpa import catalogue
from app.engines.sherpa.catalogue import ENTRIES, Archive, Item, read
from app.engines.sherpa.choice import chosen
from app.engines.sherpa.mirrors import Mirror, parse
from app.engines.sherpa.settings import SherpaOptions

# The list


def test_names_are_unique_over_all_engines() -> None:
    names = [
        model.name
        for engine in registry.ENGINES
        if (files := registry.model_files(engine)) is not None
        for model in files.models()
    ]
    assert len(names) == len(set(names))
    assert {"zh-small", "zh-large", "sensevoice-int8", "punctuation-int8", "voice-zh-en"} <= {
        *names
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_file_can_be_had(entry: catalogue.Entry) -> None:
    assert entry.languages and entry.licence and entry.purpose
    assert (entry.sample_rate is None) == (entry.role == "punctuation")
    assert len({item.name for item in entry.files}) == len(entry.files)
    for item in entry.files:
        assert item.hf or item.release or entry.archive or item.optional
        assert not item.hf or (item.size and item.hf.count("/") >= 2)
        assert item.name == (item.hf or item.release or item.name).rpartition("/")[2]
        assert item.release.count("/") in (0, 1)
    model = entry.model
    assert model.files and model.size_bytes > 10_000_000
    if entry.archive:
        assert entry.archive.path.count("/") == 1
        assert entry.archive.size > 10_000_000


def test_there_is_one_for_every_role() -> None:
    assert [entry.name for entry in catalogue.of_role("streaming")] == ["zh-large", "zh-small"]
    assert catalogue.find(" ZH-Small ") is not None
    for name in (catalogue.STREAMING_MODEL, catalogue.OFFLINE_MODEL, catalogue.VOICE_MODEL):
        assert catalogue.find(name) is not None


@pytest.mark.parametrize(
    "text, says",
    [
        ("[[model]", "line 1"),
        ('[[model]]\nname = "../x"', "matching regex"),
        ("[[model]]\nsurprise = 1", "unknown field|missing required"),
    ],
)
def test_a_list_that_is_none(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(text)


# Mirrors


def test_addresses_of_the_layouts() -> None:
    single = Item("e.onnx", hf="owner/repo/exp/32/e.onnx")
    released = Item("v.onnx", release="vocoder-models/v.onnx")
    archive = Archive("asr-models/x.tar.bz2", 1)
    hf, release, modelscope = (
        Mirror(layout, "https://h/b") for layout in ("hf", "release", "modelscope")
    )
    assert hf.file_url(single) == "https://h/b/owner/repo/resolve/main/exp/32/e.onnx"
    assert hf.file_url(released) is hf.archive_url(archive) is hf.checksums_url("a/b") is None
    assert release.file_url(single) is None
    assert release.file_url(released) == "https://h/b/vocoder-models/v.onnx"
    assert release.archive_url(archive) == "https://h/b/asr-models/x.tar.bz2"
    assert release.checksums_url(archive.path) == "https://h/b/asr-models/checksum.txt"
    assert modelscope.file_url(single) == "https://h/b/owner/repo/resolve/master/exp/32/e.onnx"
    of_modelscope = "https://h/b/csukuangfj/asr-models/resolve/master/x.tar.bz2"
    assert modelscope.archive_url(archive) == of_modelscope


def test_mirrors_are_those_of_the_setting_in_its_order() -> None:
    assert parse(" release=http://10.0.0.1:80/x/ , HF = https://h,") == (
        Mirror("release", "http://10.0.0.1:80/x"),
        Mirror("hf", "https://h"),
    )
    assert [mirror.layout for mirror in parse("  ")] == ["hf", "release", "modelscope"]


@pytest.mark.parametrize(
    "text",
    [
        "https://h",
        "ftp=https://h",
        "hf=",
        "hf=h",
        "hf=ftp://h",
        "hf=file:///x",
        "hf=https://",
        "hf=https://h:x",
        "hf=https://h/?a=b",
        "hf=https://h/a b",
        "hf=https://h/\x01",
        "hf=https://[",
    ],
)
def test_mirrors_that_are_none(text: str) -> None:
    with pytest.raises(EngineNotUsable, match=r"^SHERPA_MIRRORS: ") as raised:
        parse(text)
    assert "\n" not in str(raised.value)


# Which models


def choose(here: Mapping[str, State], half: Role = "asr", **options: Any) -> dict[Any, str]:
    return chosen(SherpaOptions(**options), half, lambda name: here.get(name, "absent"))


@pytest.mark.parametrize(
    "here, options, expected",
    [
        # Nothing is here: what it takes, no more.
        ("", {}, "zh-small - -"),
        ("", {"mode": "realtime"}, "zh-small - -"),
        ("", {"mode": "offline"}, "- sensevoice-int8 -"),
        ("", {"streaming_model": "none"}, "- sensevoice-int8 -"),
        ("", {"offline_model": "none"}, "zh-small - -"),
        # What is here is used.
        ("zh-small", {}, "zh-small - -"),
        ("zh-small zh-large", {}, "zh-large - -"),
        ("zh-small zh-large", {"streaming_model": "ZH-Small"}, "zh-small - -"),
        ("sensevoice-int8", {}, "- sensevoice-int8 -"),
        ("sensevoice-int8", {"mode": "realtime"}, "zh-small - -"),
        ("zh-small punctuation-int8", {}, "zh-small - punctuation-int8"),
        ("zh-small sensevoice-int8", {}, "zh-small sensevoice-int8 -"),
        ("zh-small sensevoice-int8", {"offline_model": " None "}, "zh-small - -"),
        ("zh-small sensevoice-int8", {"mode": "offline"}, "- sensevoice-int8 -"),
        ("punctuation-int8", {"punctuation_model": "none"}, "zh-small - -"),
        # Named models are always needed.
        ("", {"streaming_model": "zh-large"}, "zh-large - -"),
        ("", {"offline_model": "sensevoice-int8"}, "zh-small sensevoice-int8 -"),
        ("", {"punctuation_model": "punctuation-int8"}, "zh-small - punctuation-int8"),
        ("", {"streaming_model": "/my/model"}, "/my/model - -"),
        ("", {"offline_model": "/my/model"}, "- /my/model -"),
        ("zh-small", {"offline_model": "/my/model"}, "zh-small /my/model -"),
    ],
)
def test_recognition(here: str, options: dict[str, Any], expected: str) -> None:
    found = choose(dict.fromkeys(here.split(), "complete"), **options)
    order = ("streaming", "offline", "punctuation")
    assert " ".join(found.get(role, "-") for role in order) == expected


@pytest.mark.parametrize(
    "here, expected",
    [
        ("", "voice-zh-en"),
        ("voice-melo", "voice-melo"),
        ("voice-melo voice-zh-en", "voice-zh-en"),
        ("voice-melo voice-zh-en voices-zh-en", "voices-zh-en"),
    ],
)
def test_synthesis(here: str, expected: str) -> None:
    assert choose(dict.fromkeys(here.split(), "complete"), "tts") == {"voice": expected}


def test_a_damaged_model_is_better_than_a_download_but_not_than_a_whole_one() -> None:
    assert choose({"zh-large": "damaged"})["streaming"] == "zh-large"
    assert choose({"zh-large": "damaged", "zh-small": "complete"})["streaming"] == "zh-small"
    assert choose({"zh-large": "unfinished"})["streaming"] == "zh-small"


@pytest.mark.parametrize(
    "half, options, says",
    [
        ("asr", {"streaming_model": "sensevoice-int8"}, "SHERPA_STREAMING_MODEL: .*zh-large"),
        ("asr", {"offline_model": "zh-small"}, "SHERPA_OFFLINE_MODEL: zh-small is a model for str"),
        ("tts", {"voice_model": "zh-small"}, "SHERPA_VOICE_MODEL: .*voices-zh-en"),
        ("tts", {"voice_model": "none"}, "nothing would speak: set SHERPA_VOICE_MODEL"),
        (
            "asr",
            {"streaming_model": "none", "offline_model": "none"},
            "set SHERPA_STREAMING_MODEL or SHERPA_OFFLINE_MODEL",
        ),
        ("asr", {"offline_model": "none", "mode": "offline"}, "set SHERPA_OFFLINE_MODEL"),
    ],
)
def test_what_makes_no_sense(half: Role, options: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineNotUsable, match=says):
        choose({}, half, **options)
