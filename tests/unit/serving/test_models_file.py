"""MODELS_FILE: what may stand in it, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.core.config import Config, ConfigError
from app.serving.models_file import recognition_models
from app.serving.supervisor import Supervisor


def models(folder: Path, text: str, **settings: object) -> dict[str, Config]:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return recognition_models(Config.model_validate({"models_file": path, **settings}))


def test_without_a_file_there_is_the_servers_own_model() -> None:
    config = Config()
    assert recognition_models(config) == {"": config}


def test_a_model_has_the_servers_settings_but_for_its_own(tmp_path: Path) -> None:
    found = models(
        tmp_path,
        """
        [telephone]
        ASR_ENGINE = "Fake"
        ASR_GPUS = 1
        ASR_ENABLE_REALTIME_PUNC = true
        FUNASR_CHUNK_MS = 480
        FAKE_ASR_DELAY_MS = 2.5
        MAX_STREAMS = 7

        [plain]
        """,
        asr_engine="funasr",
        apptoken="a-secret",
        funasr_chunk_ms="300",
        sherpa_threads=3,
    )
    assert list(found) == ["", "telephone", "plain"]
    own, telephone, plain = found.values()
    assert plain == own
    assert (own.asr_engine, own.funasr_chunk_ms, own.max_streams) == ("funasr", "300", 0)
    assert (telephone.asr_engine, telephone.funasr_chunk_ms) == ("fake", "480")
    assert telephone.asr_devices() == ["cuda:1"]
    assert telephone.asr_enable_realtime_punc
    assert (telephone.fake_asr_delay_ms, telephone.max_streams) == (2.5, 7)
    assert (telephone.sherpa_threads, telephone.apptoken) == (3, own.apptoken)


def test_an_empty_value_is_the_settings_default(tmp_path: Path) -> None:
    found = models(tmp_path, "[a]\nASR_GPUS = ''\nASR_ENGINE = ''", asr_gpus="cpu,cpu")
    assert found["a"].asr_devices() == ["auto"]
    assert found["a"].asr_engine == "auto"
    assert found[""].asr_devices() == ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a", "is not TOML"),
        ("ASR_ENGINE = 'fake'", "ASR_ENGINE is outside of a table"),
        ("['']", r"\[\] is no label"),
        ("[Telephone]", r"\[Telephone\] is no label"),
        ("[a_b]", "is no label"),
        ("[-a]", "is no label"),
        (f"[{'a' * 33}]", "is no label"),
        ("[a]\nPORT = 1", "PORT cannot differ"),
        ("[a]\nAPPTOKEN = 'x'", "APPTOKEN cannot differ"),
        ("[a]\nTTS_ENGINE = 'fake'", "TTS_ENGINE cannot differ"),
        ("[a]\nASR_NEARFIELD_RMS_THRESHOLD = 0.1", "cannot differ"),
        ("[a]\nASR_ENABLE_NEARFIELD_FILTER = false", "cannot differ"),
        ("[a]\nasr_engine = 'fake'", "asr_engine cannot differ"),
        ("[a]\nFUNASR_NONSENSE = 1", "FUNASR_NONSENSE cannot differ"),
        ("[a]\nASR_ENGINE = ['fake']", "must be a text, a number, or true or false"),
        ("[a.b]", "b cannot differ"),
        ("[a]\nASR_GPUS = 'two'", r"\[a\]: ASR_GPUS: must be empty, auto, cpu, or GPU numbers"),
        ("[a]\nFUNASR_SLOTS = -1", r"FUNASR_SLOTS: must be a whole number .*got '-1'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        models(tmp_path, text)
    assert str(error.value).startswith("MODELS_FILE: ")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(b"[a]\nASR_ENGINE = '\xff'")
    with pytest.raises(ConfigError, match="is not TOML"):
        recognition_models(Config(models_file=path))
    config = Config(models_file=path)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        recognition_models(config)


# The workers of the models


def workers(folder: Path, text: str, **settings: object) -> list[Mapping[str, Any]]:
    """What a server's workers would be told."""
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    config = Config.model_validate(
        {"models_file": path, "asr_engine": "fake", "tts_engine": "fake", **settings}
    )
    serving = Supervisor(config, lambda source, line: None, lambda running: None)
    with ExitStack() as stack:
        replicas = serving._make_workers(folder, stack)
    told = [child.spec.config for child in serving.workers]
    assert [(each["name"], each["role"], each["model"]) for each in replicas] == [
        (each["name"], each["role"], each["model"]) for each in told
    ]
    return told


def test_each_model_has_its_workers_and_all_share_the_machine(tmp_path: Path) -> None:
    text = "[a]\nASR_GPUS = 'cpu,cpu'\nFAKE_ASR_DELAY_MS = 3\nMAX_STREAMS = 5"
    told = workers(tmp_path, text, tts_gpus="cpu", max_streams=9)
    assert [
        (
            each["name"],
            each["model"],
            each["max_streams"],
            each["settings"]["FAKE_ASR_DELAY_MS"],
            each["settings"]["REPLICAS"],
        )
        for each in told
    ] == [
        ("asr-0", "", 9, 0.0, 3),
        ("asr-a-0", "a", 5, 3.0, 3),
        ("asr-a-1", "a", 5, 3.0, 3),
        ("tts-0", "", 9, 0.0, 1),
    ]


def test_a_model_whose_engine_cannot_be_had_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MODELS_FILE: \[a\]: unknown engine 'nonsense'"):
        workers(tmp_path, "[a]\nASR_ENGINE = 'nonsense'")
