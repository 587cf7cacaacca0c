"""``funspeech doctor``: each check with what it should and should not find."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import checks, cli
from app.cli.checks import Finding
from app.core.config import Config, load
from app.engines.registry import how_to_install

HEALTH = {"status": "healthy", "version": "9.9", "engines": {}}


def test_python() -> None:
    assert checks.check_python().level == "OK"
    assert checks.check_python((3, 10)).level == "FAIL"


def test_settings_pass_on_the_warnings() -> None:
    environ = {"HOST": "0.0.0.0", "ASR_ENGIN": "x"}
    found = list(checks.check_settings(load(None, environ)))
    assert {finding.level for finding in found} == {"WARN"}
    assert any("did you mean ASR_ENGINE" in finding.text for finding in found)
    assert any("HOST=0.0.0.0 without APPTOKEN" in finding.text for finding in found)
    quiet = load(None, {"HOST": "127.0.0.1"})
    assert [finding.level for finding in checks.check_settings(quiet)] == ["OK"]


def test_engine_auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("app.engines.registry.has_nvidia_card", lambda: False)
    finding = checks.check_engine(Config(modelscope_cache=tmp_path), "asr")
    assert finding.level == "OK"
    assert finding.text.startswith("ASR_ENGINE=auto takes embedded; installed: ")
    assert "fake" in finding.text
    assert finding.remedy == "better: funspeech models pull zh-small, then restart"


def test_engine_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: None)
    automatic = checks.check_engine(Config(), "tts")
    assert automatic.level == "FAIL"
    assert how_to_install("embedded") in automatic.text
    named = checks.check_engine(Config(tts_engine="embedded"), "tts")
    assert "TTS_ENGINE=auto" in named.remedy
    assert checks.check_engine(Config(asr_engine="nothing"), "asr").level == "FAIL"


def test_engine_that_a_wrong_setting_keeps_from_being_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("app.engines.registry.has_nvidia_card", lambda: False)
    config = Config(modelscope_cache=tmp_path, sherpa_streaming_model="zh-smal")
    finding = checks.check_engine(config, "asr")
    assert finding.level == "FAIL"
    assert "there is no folder zh-smal" in finding.text


def gpu_levels(found: list[str] | str, **settings: str) -> list[str]:
    config = Config.model_validate(settings)
    return [finding.level for finding in checks.check_gpus(config, found)]


def test_gpus() -> None:
    assert gpu_levels([]) == ["OK"]
    assert gpu_levels(["H200, 143771 MiB"], asr_gpus="0", tts_gpus="cpu") == ["OK"]
    assert gpu_levels(["H200, 143771 MiB"], asr_gpus="0,1") == ["OK", "FAIL"]
    assert gpu_levels([], tts_gpus="0") == ["OK", "FAIL"]
    assert gpu_levels("nvidia-smi does not answer") == ["WARN"]


def test_query_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def python(code: str) -> list[str] | str:
        return checks.query_gpus([sys.executable, "-c", code])

    assert checks.query_gpus(["no-such-program-anywhere"]) == []
    assert python("print('A, 1 MiB'); print(); print('B, 2 MiB')") == ["A, 1 MiB", "B, 2 MiB"]
    broken = python("print('no driver'); raise SystemExit(9)")
    assert isinstance(broken, str)
    assert broken.endswith("fails: no driver")
    monkeypatch.setattr(checks, "GPU_QUERY_TIMEOUT_S", 0.01)
    hung = python("import time; time.sleep(60)")
    assert isinstance(hung, str)
    assert hung.endswith("does not answer")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something else listens, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def port_config(port: int, host: str = "127.0.0.1") -> Config:
    return Config(host=host, port=port)


def test_port_free(taken: int) -> None:
    assert checks.check_port(port_config(0)).level == "OK"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    assert checks.check_port(port_config(free)).text == f"127.0.0.1:{free} is free"


def test_port_taken(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HEALTH_TIMEOUT_S", 0.05)
    finding = checks.check_port(port_config(taken))
    assert finding.level == "FAIL"
    assert "used by another program" in finding.text


def test_port_taken_by_us(server: Any) -> None:
    server.pages["/health"] = HEALTH
    finding = checks.check_port(port_config(server.port))
    assert finding.level == "OK"
    assert "FunSpeech 9.9 runs" in finding.text
    server.pages["/health"] = {**HEALTH, "status": "unhealthy"}
    assert checks.check_port(port_config(server.port)).level == "WARN"
    server.pages["/health"] = {"status": "up"}  # some other program's
    assert checks.check_port(port_config(server.port)).level == "FAIL"


def test_port_taken_by_us_with_other_engines(server: Any) -> None:
    """After a pull the old server still runs, and nobody hears of what came."""
    server.pages["/health"] = {**HEALTH, "engines": {"asr": ["embedded"], "tts": ["fake"]}}
    old = Config(host="127.0.0.1", port=server.port, asr_engine="fake", tts_engine="fake")
    finding = checks.check_port(old)
    assert (finding.level, finding.remedy) == ("WARN", "restart it")
    assert finding.text.endswith("with embedded where a start would take fake")
    server.pages["/health"] = {**HEALTH, "engines": {"asr": ["fake"], "tts": ["fake"]}}
    assert checks.check_port(old).level == "OK"


def test_port_of_another_machine() -> None:
    finding = checks.check_port(port_config(8000, "192.0.2.1"))
    assert finding.level == "FAIL"
    assert "set HOST" in finding.remedy


def test_port_without_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "bind_problem", lambda host, port: errno.EACCES)
    assert "administrator" in checks.check_port(port_config(80)).text


def test_folders(tmp_path: Path) -> None:
    assert checks.check_folder("DATA_DIR", tmp_path).text.endswith("can be written")
    later = checks.check_folder("DATA_DIR", tmp_path / "a" / "b")
    assert (later.level, later.text.endswith("will be made")) == ("OK", True)
    (tmp_path / "file").touch()
    assert checks.check_folder("DATA_DIR", tmp_path / "file" / "b").level == "FAIL"
    assert [name for name, _ in checks.folders(Config())] == ["DATA_DIR", "VOICES_DIR", "LOG_FILE"]
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("app.cli.checks.tempfile.TemporaryFile", refuse)
    finding = checks.check_folder("VOICES_DIR", tmp_path)
    assert finding.level == "FAIL"
    assert "Permission denied" in finding.text
    assert "VOICES_DIR" in finding.remedy


@pytest.mark.parametrize(("free", "level"), [(50, "FAIL"), (500, "WARN"), (5_000, "OK")])
def test_disk(free: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=free * checks.MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert checks.check_disk(Path("data")).level == level


def test_the_whole_report(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/health"] = HEALTH
    monkeypatch.setattr(checks, "query_gpus", lambda: [])
    Path(".env").write_text(f"HOST=127.0.0.1\nPORT={server.port}\nASR_ENGINE=fake\n")
    result = CliRunner().invoke(cli, ["doctor"])
    for subject in ("Python", "Settings", "Recognition", "Speech", "GPU", "Port", "Disk"):
        assert f"  {subject} " in result.stdout
    assert "ASR_ENGINE=fake takes fake" in result.stdout


def test_malformed_settings_fail_the_report() -> None:
    Path(".env").write_text("PORT=many\n")
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "FAIL  Settings    PORT: must be a whole number" in result.stdout
    assert "-> correct it in .env" in result.stdout


@pytest.mark.parametrize(("level", "code"), [("OK", 0), ("WARN", 0), ("FAIL", 1)])
def test_the_exit_code(level: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(level, "Subject", "text", "remedy")
    monkeypatch.setattr("app.cli.doctor.examine", lambda: iter([finding]))
    assert CliRunner().invoke(cli, ["doctor"]).exit_code == code
