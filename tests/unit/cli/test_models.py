"""``funspeech models``, with a hub on this machine; models in ``doctor`` and in the banner."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import checks, cli
from app.cli.better import ROLES
from app.cli.serve import banner, check_engines
from app.core.config import Config, ConfigError, load
from app.engines import registry
from app.engines.funasr.catalogue import MODELS
from app.serving.supervisor import Running
from tests.support.model_hub import ModelHub, running
from tests.support.sherpa.placed import put, put_damaged

ROOT = Path(__file__).parents[3]
DEFAULT = ["paraformer-zh-streaming", "sensevoice-small", "ct-punc"]
"""What a CPU needs."""
PULLED = [*DEFAULT, "fsmn-vad"]
"""What any machine needs."""


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelHub]:
    repositories = {
        model.source: {name: f"{model.name} {name}".encode() * 100 for name in model.files}
        for model in MODELS
    }
    with running(repositories) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HOST", "127.0.0.1")
        monkeypatch.setenv("ASR_ENGINE", "funasr")
        monkeypatch.setenv("TTS_ENGINE", "fake")
        monkeypatch.setattr(registry, "has_nvidia_card", lambda: False)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engines.registry.importlib.util.find_spec", lambda name: object())


def funspeech(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", *arguments])


def states() -> dict[str, tuple[bool, str]]:
    rows = json.loads(funspeech("list", "--json").stdout)
    return {row["name"]: (row["needed"], row["state"]) for row in rows if row["engine"] == "funasr"}


def test_list_tells_what_is_needed_and_what_is_here(cache: Path) -> None:
    assert states() == {model.name: (model.name in DEFAULT, "absent") for model in MODELS}
    funspeech("pull", "ct-punc")
    assert states()["ct-punc"] == (True, "here")
    folder = cache / "models" / next(m.source for m in MODELS if m.name == "ct-punc")
    (folder / "tokens.json").unlink()
    assert states()["ct-punc"] == (True, "damaged")


def test_list_for_people_and_scripts(cache: Path) -> None:
    lines = [line.split("\t") for line in funspeech("list").stdout.splitlines()]
    sherpa = registry.model_files("sherpa")
    assert sherpa is not None
    assert [line[0] for line in lines] == [model.name for model in (*sherpa.models(), *MODELS)]
    vad = lines[-1]
    assert vad == ["fsmn-vad", "voice activity detection", "zh", "1.8 MB", "-", "absent"]


def test_list_on_a_narrow_terminal_breaks_no_name(cache: Path) -> None:
    funspeech("pull", "fsmn-vad")
    shown = on_a_terminal(["models", "list"], columns=100)
    assert shown.code == 0
    for model in MODELS:
        assert f"│ {model.name} " in shown.text
    (source,) = (model.source for model in MODELS if model.name == "fsmn-vad")
    assert shown.text.splitlines()[-1] == f"fsmn-vad: {cache / 'models' / source}"


def test_a_card_needs_the_vad_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    assert [name for name, (needed, _) in states().items() if needed] == PULLED
    monkeypatch.setenv("ASR_GPUS", "cpu")
    assert [name for name, (needed, _) in states().items() if needed] == DEFAULT


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, PULLED),
        ({"ASR_MODEL_MODE": "offline"}, PULLED[1:]),
        ({"ASR_ENGINE": "embedded"}, []),
    ],
)
def test_pull_fetches_what_the_settings_need(
    settings: dict[str, str], names: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    done = funspeech("pull")
    assert done.exit_code == 0
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if ": " in line] == names
    assert ("need no models" in done.stdout) == (not names)
    found = {path.parent.name for path in cache.rglob("model.pt")}
    wanted = {m.source.partition("/")[2] for m in MODELS if m.name in names}
    assert found == wanted


@pytest.mark.usefixtures("installed")
def test_where_the_server_may_choose_a_cpu_needs_the_small_models_of_sherpa(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASR_ENGINE", "auto")
    monkeypatch.setenv("TTS_ENGINE", "auto")
    rows = json.loads(funspeech("list", "--json").stdout)
    assert [row["name"] for row in rows if row["needed"]] == ["zh-small", "voice-zh-en"]
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    rows = json.loads(funspeech("list", "--json").stdout)
    assert [row["name"] for row in rows if row["needed"]] == ["voice-zh-en", *PULLED]


WRONG = [
    ({"SHERPA_STREAMING_MODEL": "voice-zh-en"}, "SHERPA_STREAMING_MODEL: voice-zh-en is a model"),
    ({"SHERPA_STREAMING_MODEL": "zh-smal"}, "SHERPA_STREAMING_MODEL: there is no folder zh-smal"),
    ({"SHERPA_STREAMING_MODEL": "none", "SHERPA_OFFLINE_MODEL": "none"}, "nothing would recognise"),
    ({"SHERPA_VOICE_MODEL": "none", "TTS_ENGINE": "sherpa"}, "nothing would speak"),
    ({"SHERPA_MIRRORS": "elsewhere"}, "SHERPA_MIRRORS: 'elsewhere' is not hf=URL"),
]
"""Settings of an owner's that cannot be, and what is said of them."""


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("settings", "reason"), WRONG)
def test_settings_that_cannot_be_are_told_and_no_error_of_ours(
    settings: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASR_ENGINE", "sherpa")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    listed = funspeech("list", "--json")
    assert listed.exit_code == 0 and reason in listed.stderr
    names = {row["name"]: row["needed"] for row in json.loads(listed.stdout)}
    assert "zh-small" in names and not any(names.values())
    for command in ("pull", "verify"):
        refused = funspeech(command)
        assert refused.exit_code == 1 and isinstance(refused.exception, SystemExit)
        assert refused.stderr.startswith(f"funspeech: {reason}")
    assert funspeech("pull", "fsmn-vad").exit_code == 0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("settings", "reason"), WRONG)
def test_doctor_fails_over_settings_that_cannot_be(settings: dict[str, str], reason: str) -> None:
    found = findings(**{"ASR_ENGINE": "sherpa", **settings})
    assert reason in found["FAIL"][0].text


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("settings", "reason"), [case for case in WRONG if not case[1].startswith("nothing")]
)
def test_a_start_stops_over_them_where_the_server_chooses(
    settings: dict[str, str], reason: str
) -> None:
    cache = os.environ["MODELSCOPE_CACHE"]
    config = load(None, {"MODELSCOPE_CACHE": cache, **settings})
    levels = [checks.check_engine(config, role).level for role in ROLES]
    assert "FAIL" in levels
    with pytest.raises(ConfigError, match=reason.partition(" is")[0]):
        check_engines(config)


def test_list_has_a_folder_of_the_owner_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_ENGINE", "sherpa")
    monkeypatch.setenv("SHERPA_STREAMING_MODEL", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.onnx").write_text("x")
    lines = [line.split("\t") for line in funspeech("list").stdout.splitlines()]
    (own,) = (line for line in lines if line[0] == str(tmp_path / "mine"))
    assert own[1:] == ["a folder of yours", "", "-", "needed", f"here: {own[0]}"]


@pytest.mark.usefixtures("installed")
def test_a_voice_that_is_switched_off_is_nobody_s_mistake_where_the_server_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTS_ENGINE", "auto")
    monkeypatch.setenv("SHERPA_VOICE_MODEL", "none")
    listed = funspeech("list", "--json")
    assert listed.stderr == ""
    assert [row["name"] for row in json.loads(listed.stdout) if row["needed"]] == DEFAULT


@pytest.mark.parametrize("called", ["bin/funspeech", "funspeech"])
def test_commands_are_told_as_the_shell_knows_them(
    called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setenv("PATH", "")
    assert f"mend it with: {called} models pull fsmn-vad" in funspeech("verify", "fsmn-vad").stderr


def test_pull_says_what_it_did(cache: Path) -> None:
    (folder,) = (cache / "models" / m.source for m in MODELS if m.name == "fsmn-vad")
    assert funspeech("pull", "fsmn-vad").stdout == f"fsmn-vad: 0.1 MB downloaded to {folder}\n"
    # Without a terminal there are lines in place of the bar, beside the results.
    again = funspeech("pull", "FSMN-VAD")
    assert again.stderr.startswith("funspeech: checking fsmn-vad: ")
    assert again.stdout == f"fsmn-vad: nothing to do, it is whole, in {folder}\n"


def test_pull_goes_on_with_the_others_when_one_cannot_be_had(hub: ModelHub) -> None:
    del hub.repositories[next(m.source for m in MODELS if m.name == "ct-punc")]
    done = funspeech("pull", "ct-punc", "fsmn-vad")
    assert done.exit_code == 1
    assert "model ct-punc could not be downloaded" in done.stderr
    assert done.stdout.startswith("fsmn-vad: ")


def test_unknown_names_and_offline_are_refused(
    hub: ModelHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = funspeech("pull", "fsmn-vad", "ct-pun")
    assert done.exit_code == 1
    assert "there is no model ct-pun; the models are: zh-large, " in done.stderr
    monkeypatch.setenv("OFFLINE", "true")
    done = funspeech("pull")
    assert done.exit_code == 1 and "OFFLINE=true forbids downloads" in done.stderr
    assert hub.requests == []


def test_verify(cache: Path) -> None:
    missing = funspeech("verify")
    assert missing.exit_code == 1
    assert missing.stdout.splitlines() == [f"{name}: it is not here" for name in DEFAULT]
    assert "funspeech models pull ct-punc" in missing.stderr

    funspeech("pull", *DEFAULT, "ct-punc-realtime")
    whole = funspeech("verify")
    assert whole.exit_code == 0
    assert len(whole.stdout.splitlines()) == 4 and whole.stdout.count(": whole, in ") == 4

    weights = next(cache.glob("models/iic/SenseVoiceSmall/model.pt"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    damaged = funspeech("verify", "sensevoice-small")
    assert damaged.exit_code == 1
    assert damaged.stdout.startswith("sensevoice-small: model.pt is damaged")
    assert "funspeech models pull sensevoice-small" in damaged.stderr
    assert funspeech("pull").exit_code == 0
    assert funspeech("verify").exit_code == 0


def test_verify_of_a_folder_that_modelscope_made_says_what_it_cannot(cache: Path) -> None:
    funspeech("pull", "fsmn-vad")
    next(cache.rglob(".funspeech.json")).unlink()
    done = funspeech("verify", "fsmn-vad")
    assert done.exit_code == 0 and "their checksums are not known" in done.stdout


def test_ctrl_c_on_a_terminal_shows_a_bar_and_leaves_what_has_come(
    hub: ModelHub, cache: Path
) -> None:
    source = next(m.source for m in MODELS if m.name == "fsmn-vad")
    weights = b"w" * 2_000_000
    hub.repositories[source]["model.pt"] = weights
    hub.held, hub.cut_at["model.pt"] = threading.Event(), 1_000_000
    shown = on_a_terminal(["models", "pull", "fsmn-vad"], interrupt_at="1.0/2.0 MB")
    assert shown.code == 130
    assert "downloading fsmn-vad" in shown.text and "━" in shown.text
    assert "broken off; the same command goes on from here" in shown.text

    assert funspeech("pull", "fsmn-vad").exit_code == 0
    assert (cache / "models" / source / "model.pt").read_bytes() == weights
    assert hub.ranges["model.pt"] == [0, 1_000_000]


class Shown:
    def __init__(self, text: str, code: int) -> None:
        self.text = text
        self.code = code


def on_a_terminal(
    arguments: list[str], interrupt_at: str | None = None, columns: int = 120
) -> Shown:
    """Run ``funspeech`` on a terminal, with a Ctrl-C once it shows ``interrupt_at``."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    text, interrupted = "", False
    with process:
        while select.select([ours], [], [], 60)[0]:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # the last of the other end's users has gone
                break
            if not data:
                break
            text += data.decode(errors="replace")
            if interrupt_at is not None and interrupt_at in text and not interrupted:
                interrupted = True
                os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
    os.close(ours)
    return Shown(text, process.returncode)


# The doctor, and the banner


def findings(**environ: str) -> dict[str, list[checks.Finding]]:
    cache = os.environ["MODELSCOPE_CACHE"]
    settings = {"MODELSCOPE_CACHE": cache, "ASR_ENGINE": "funasr", "TTS_ENGINE": "fake"}
    config = load(None, {**settings, **environ})
    found: dict[str, list[checks.Finding]] = {}
    for finding in checks.check_models(config):
        found.setdefault(finding.level, []).append(finding)
    return found


@pytest.mark.usefixtures("installed")
def test_doctor_tells_what_the_first_start_downloads() -> None:
    found = findings()
    (download,) = found["WARN"]
    assert "downloads paraformer-zh-streaming, sensevoice-small, ct-punc: 2.1 GB" in download.text
    assert "funspeech models pull" in download.remedy
    assert [finding.subject for finding in found["OK"]] == ["Folder"]


@pytest.mark.usefixtures("installed")
def test_doctor_fails_where_nothing_may_be_downloaded() -> None:
    found = findings(OFFLINE="true")
    assert list(found) == ["FAIL"]
    assert found["FAIL"][0].remedy == "OFFLINE=false funspeech models pull"


@pytest.mark.usefixtures("installed")
def test_doctor_sees_what_is_here_and_what_is_damaged(cache: Path) -> None:
    funspeech("pull")
    assert [finding.subject for finding in findings()["OK"]] == ["Models"]
    next(cache.glob("models/iic/SenseVoiceSmall/model.pt")).write_bytes(b"")
    (damaged,) = findings()["FAIL"]
    assert "sensevoice-small" in damaged.text and "instead of" in damaged.text
    assert damaged.remedy == "funspeech models pull sensevoice-small"


@pytest.mark.usefixtures("installed")
def test_doctor_fails_over_a_damaged_model_that_auto_takes(cache: Path) -> None:
    put_damaged(cache, "zh-small")
    (damaged,) = findings(ASR_ENGINE="auto")["FAIL"]
    assert "zh-small" in damaged.text and "is missing" in damaged.text
    assert damaged.remedy == "funspeech models pull zh-small"


@pytest.mark.usefixtures("installed")
def test_doctor_warns_of_a_damaged_part_that_is_left_out(cache: Path) -> None:
    put(cache, "zh-small")
    put_damaged(cache, "punctuation-int8")
    found = findings(ASR_ENGINE="auto")
    (left_out,) = found.pop("WARN")
    assert "punctuation-int8 is damaged and left out" in left_out.text
    assert left_out.remedy == "funspeech models pull punctuation-int8"
    assert list(found) == ["OK"]


@pytest.mark.usefixtures("installed")
def test_doctor_on_a_cpu_misses_nothing_that_only_cards_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    funspeech("pull", *DEFAULT)
    assert list(findings(OFFLINE="true")) == ["OK"]
    monkeypatch.setattr(registry, "has_nvidia_card", lambda: True)
    assert list(findings(OFFLINE="true")) == ["FAIL"]


@pytest.mark.usefixtures("installed")
def test_doctor_counts_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert [finding.subject for finding in findings()["FAIL"]] == ["Disk"]


def test_doctor_is_silent_about_engines_without_models() -> None:
    assert findings(ASR_ENGINE="fake") == {}


@pytest.mark.usefixtures("installed")
def test_the_banner_tells_how_to_recognise_better(cache: Path) -> None:
    running_now = Running("127.0.0.1", 8000, (("asr", "embedded", "commands"),))
    text = banner(Config(modelscope_cache=cache), running_now)
    advice = "for better recognition: funspeech models pull zh-small, then restart"
    assert f"  recognition  embedded: commands\n{'':<15}{advice}\n" in text
    chosen = banner(Config(modelscope_cache=cache, asr_engine="embedded"), running_now)
    assert "better" not in chosen
