"""The settings: defaults, both sources, every kind of malformed value, warnings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.core import config as config_module
from app.core.config import Config, ConfigError, changed, load, parse_devices


def read(environ: dict[str, str] | None = None) -> Config:
    return load(None, environ or {})


def test_defaults_are_those_of_the_deployment_guide() -> None:
    config = read()
    assert (config.host, config.port, config.debug, config.workers) == ("0.0.0.0", 8000, False, 1)
    assert config.log_level == "INFO"
    assert config.log_file == Path("logs/funspeech.log")
    assert (config.log_max_bytes, config.log_backup_count) == (20 * 1024 * 1024, 50)
    assert config.apptoken is None and config.appkey is None
    assert (config.asr_model_mode, config.tts_model_mode) == ("all", "all")
    assert config.clone_model_version == "cosyvoice2"
    assert config.cosyvoice3_model_id == "FunAudioLLM/Fun-CosyVoice3-0.5B-2512"
    assert config.asr_enable_realtime_punc is False
    assert config.asr_enable_nearfield_filter is True
    assert config.asr_nearfield_rms_threshold == 0.01
    assert config.asr_nearfield_filter_log_enabled is True
    assert config.inference_threads() >= 4
    assert config.asr_devices() == config.tts_devices() == ["auto"]


def test_values_are_typed() -> None:
    config = read(
        {
            "PORT": " 9000 ",
            "DEBUG": "true",
            "LOG_LEVEL": "warning",
            "APPTOKEN": "s3cret",
            "CORS_ORIGINS": "https://a.example, https://b.example",
            "PUBLIC_URL": "https://speech.example/",
            "INFERENCE_THREAD_POOL_SIZE": "2",
        }
    )
    assert config.port == 9000
    assert config.debug is True
    assert config.log_level == "WARNING"
    assert config.apptoken is not None and config.apptoken.get_secret_value() == "s3cret"
    assert config.cors_origins == ("https://a.example", "https://b.example")
    assert config.public_url == "https://speech.example"
    assert config.inference_threads() == 2


def test_config_cannot_be_changed() -> None:
    config = read()
    with pytest.raises(ValidationError, match="frozen"):
        config.port = 1


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "abc", "PORT: must be a whole number from 0 to 65535, got 'abc'"),
        ("PORT", "65536", "PORT: must be a whole number from 0 to 65535, got '65536'"),
        ("PORT", "-1", "PORT: must be a whole number from 0 to 65535, got '-1'"),
        ("WORKERS", "0", "WORKERS: must be a whole number from 1 to 256, got '0'"),
        ("LOG_BACKUP_COUNT", "x", "LOG_BACKUP_COUNT: must be a whole number, 0 or more, got 'x'"),
        ("DEBUG", "maybe", "DEBUG: must be true or false, got 'maybe'"),
        (
            "LOG_LEVEL",
            "loud",
            "LOG_LEVEL: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, got 'LOUD'",
        ),
        ("ASR_MODEL_MODE", "1", "ASR_MODEL_MODE: must be one of all, realtime, offline, got '1'"),
        (
            "ASR_NEARFIELD_RMS_THRESHOLD",
            "2",
            "ASR_NEARFIELD_RMS_THRESHOLD: must be a number from 0 to 1, got '2'",
        ),
        (
            "IDLE_TIMEOUT_SECONDS",
            "0",
            "IDLE_TIMEOUT_SECONDS: must be a number above 0, got '0'",
        ),
        (
            "HANG_TIMEOUT_SECONDS",
            "1",
            "HANG_TIMEOUT_SECONDS: must be a number, 2 or more, got '1'",
        ),
        (
            "START_TIMEOUT_SECONDS",
            "inf",
            "START_TIMEOUT_SECONDS: must be a number above 0, got 'inf'",
        ),
        (
            "ASR_GPUS",
            "0;1",
            "ASR_GPUS: must be empty, auto, cpu, or GPU numbers such as 0 or 0,1, got '0;1'",
        ),
        (
            "PUBLIC_URL",
            "example.org",
            "PUBLIC_URL: must begin with http:// or https://, got 'example.org'",
        ),
        (
            "SSL_CERTFILE",
            "/no/such.pem",
            "SSL_CERTFILE: must name a file that exists, got '/no/such.pem'",
        ),
        *(
            (
                name,
                "~nobody-of-this-name/x",
                f"{name}: must be a path, and ~nobody-of-this-name is no home directory here, "
                "got '~nobody-of-this-name/x'",
            )
            for name in ("MODELSCOPE_CACHE", "DATA_DIR", "VOICES_DIR", "LOG_FILE", "SSL_KEYFILE")
        ),
        (
            "SSL_CERTFILE",
            "x" * 5000,
            f"SSL_CERTFILE: must be a path, and this is longer than one can be, got '{'x' * 80}'",
        ),
    ],
)
def test_malformed_value_stops_the_start_with_one_line(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({name: value})
    assert str(caught.value).lower() == says.lower()
    assert str(caught.value).startswith(says.split(" got ")[0])


def test_a_user_without_a_home_directory_has_to_set_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", none)
    with pytest.raises(ConfigError, match=r"^MODELSCOPE_CACHE: must be a path, and ~ is no home"):
        read({})
    assert read({"MODELSCOPE_CACHE": "/cache"}).modelscope_cache == Path("/cache")


def test_certificate_needs_its_key(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.touch()
    with pytest.raises(ConfigError, match=r"^SSL_KEYFILE: must be set too"):
        read({"SSL_CERTFILE": str(pem)})
    with pytest.raises(ConfigError, match=r"^SSL_CERTFILE: must be set too"):
        read({"SSL_KEYFILE": str(pem)})
    assert read({"SSL_CERTFILE": str(pem), "SSL_KEYFILE": str(pem)}).ssl_keyfile == pem


@pytest.mark.parametrize("name", ["PORT", "APPTOKEN", "SSL_CERTFILE", "LOG_LEVEL", "DATA_DIR"])
@pytest.mark.parametrize("empty", ["", "   "])
def test_empty_means_unset(name: str, empty: str) -> None:
    assert read({name: empty}) == read()


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("", ["auto"]),
        ("auto", ["auto"]),
        ("cpu", ["cpu"]),
        ("CPU, cpu", ["cpu", "cpu"]),
        ("0", ["cuda:0"]),
        ("0,1", ["cuda:0", "cuda:1"]),
        ("0,0", ["cuda:0", "cuda:0"]),
    ],
)
def test_devices(value: str, devices: list[str]) -> None:
    assert parse_devices(value) == devices
    assert read({"ASR_GPUS": value}).asr_devices() == devices
    assert read({"TTS_GPUS": value}).tts_devices() == devices


@pytest.mark.parametrize("value", ["0,,1", "0,auto", "-1", "cuda:0", "²"])
def test_devices_that_are_none(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^TTS_GPUS: must be empty, auto, cpu"):
        read({"TTS_GPUS": value})


OF_ALL_ENGINES = {
    "ASR_MODEL_MODE": "all",
    "ASR_ENABLE_REALTIME_PUNC": False,
    "MODELSCOPE_CACHE": str(Path("~/.cache/modelscope").expanduser()),
    "OFFLINE": False,
    "VOICES_DIR": "voices",
}


def test_engine_settings_are_those_of_its_name_and_those_of_all() -> None:
    settings = read({"FAKE_ASR_DELAY_MS": "1.5"}).engine_settings("fake")
    assert settings == OF_ALL_ENGINES | {
        "FAKE_ASR_DELAY_MS": 1.5,
        "FAKE_ASR_ITEM_MS": 0.0,
        "FAKE_ASR_BATCH": 0,
        "FAKE_ASR_SCRIPT": "",
        "FAKE_TTS_DELAY_MS": 0.0,
    }
    assert read().engine_settings("embedded") == OF_ALL_ENGINES


def test_env_file_and_the_environment_wins(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(
        '# 注释\nexport PORT=9000\nHOST="127.0.0.1"\nAPPTOKEN=a$b${HOME}c\nWORKERS=\n',
        encoding="utf-8",
    )
    config = load(env_file, {"PORT": "9001", "HOST": ""})
    assert config.port == 9001
    assert config.host == "127.0.0.1"
    assert config.apptoken is not None
    assert config.apptoken.get_secret_value() == "a$b${HOME}c"
    assert config.workers == 1
    assert config.warnings == ()


def test_reads_the_process_environment_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9123")
    assert load(None).port == 9123


def test_missing_env_file_is_fine(tmp_path: Path) -> None:
    assert load(tmp_path / "none", {}) == read()


def test_unreadable_env_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})
    latin = tmp_path / ".env"
    latin.write_bytes(b"HOST=\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(latin, {})


def test_malformed_line_of_the_env_file_warns_without_showing_it(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("APPTOKEN=ok\n'= hidden-secret\n")
    config = load(env_file, {})
    assert len(config.warnings) == 1
    assert "line 2 is not NAME=value" in config.warnings[0]
    assert "hidden-secret" not in config.warnings[0]


def test_unknown_names_warn(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("APPTOKN=secret-value\nSOMETHING=1\n")
    environ = {
        "HOST": "127.0.0.1",
        "WORKER": "2",
        "ASR_DEVICES": "0",
        "HOSTNAME": "box",
        "SSL_CERT_FILE": "/etc/ssl/cert.pem",
        "PATH": "/bin",
    }
    warnings = load(env_file, environ).warnings
    assert warnings == (
        f"APPTOKN in {env_file} is not a setting; did you mean APPTOKEN?",
        f"SOMETHING in {env_file} is not a setting",
        "ASR_DEVICES in the environment is not a setting",
        "WORKER in the environment is not a setting; did you mean WORKERS?",
    )


def test_a_variable_of_a_library_is_for_the_environment(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("HOST=127.0.0.1\nMODELSCOPE_ENDPOINT=https://mirror.example\n")
    told = f"MODELSCOPE_ENDPOINT in {env_file} is not read there; set it in the environment"
    assert load(env_file, {}).warnings == (told,)
    there = {"HOST": "127.0.0.1", "MODELSCOPE_ENDPOINT": "https://mirror.example"}
    assert load(None, there).warnings == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_open_server_warns(host: str) -> None:
    assert "set APPTOKEN" in read({"HOST": host}).warnings[0]
    assert read({"HOST": host, "APPTOKEN": "x"}).warnings == ()
    assert read({"HOST": host, "APPKEY": "x"}).warnings == ()
    assert read({"HOST": host, "REQUIRE_TOKEN": "true"}).warnings == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_local_server_does_not_warn(host: str) -> None:
    assert read({"HOST": host}).warnings == ()


def test_secrets_are_not_shown() -> None:
    config = read({"APPTOKEN": "s3cret", "APPKEY": "k3y"})
    assert "s3cret" not in repr(config) and "k3y" not in repr(config)


def test_every_field_is_documented() -> None:
    lacking = [name for name, field in Config.model_fields.items() if not field.description]
    assert lacking == []


def test_import_has_no_side_effects(tmp_path: Path) -> None:
    path = str(Path(config_module.__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {path!r}); import app.core.config"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_what_changed_is_named_without_its_value() -> None:
    before = read({"PORT": "9000", "APPTOKEN": "old"})
    after = read({"PORT": "9000", "APPTOKEN": "new", "LOG_LEVEL": "debug"})
    assert changed(before, before) == []
    assert changed(before, after) == ["LOG_LEVEL", "APPTOKEN"]
