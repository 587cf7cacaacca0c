"""From nothing to Chinese in two commands: ``funspeech models pull zh-small``, broken off half way
once, and a start without any setting, which recognises with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from app.client.nls import NlsClient
from app.engines import registry
from app.engines.sherpa import catalogue
from benchmarks.server import launch
from tests.support.model_mirror import ModelMirror, mirroring
from tests.support.process import serving
from tests.support.sherpa import published, tones

NAME = "zh-small"
TEXT = "今天天气好"
SOUND = (np.clip(tones.hummed(TEXT), -1, 1) * 32_767).astype("<i2").tobytes()


@pytest.fixture(params=["hf", "release"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, ModelMirror]]:
    """A tiny model, as one kind of site has published ones."""
    entry = published.entry_of(NAME)
    content = published.content(NAME, tmp_path / "built")
    release = published.released(entry, content)
    assert entry.archive is not None
    entry = published.with_sums(entry, content, release[f"/{entry.archive.path}"])
    entries = tuple(entry if each.name == NAME else each for each in catalogue.ENTRIES)
    (tmp_path / "list.json").write_bytes(msgspec.json.encode(entries))
    files = published.singles(entry, content) if request.param == "hf" else release
    with mirroring(files) as site:
        yield f"{request.param}={site.url}", site


async def pull(folder: Path, mirror: str) -> tuple[int | None, str]:
    """The command, as its users run it: exit code and output."""
    process = await launch(
        *("tests.support.tiny_catalogue", str(folder / "list.json"), "models", "pull", NAME),
        folder=folder,
        variables={"HOME": str(folder / "home"), "SHERPA_MIRRORS": mirror, "NO_PROXY": "127.0.0.1"},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


@pytest.mark.slow
async def test_pull_and_start(tmp_path: Path, mirror: tuple[str, ModelMirror]) -> None:
    setting, site = mirror
    first = max(site.files, key=lambda path: len(site.files[path]))
    half = len(site.files[first]) // 2
    site.cut_at[first], site.goes_down = half, True
    code, output = await pull(tmp_path, setting)
    assert code == 1
    assert output.splitlines()[-1].endswith("go on with the same command")

    site.down = False
    site.asked.clear()
    code, output = await pull(tmp_path, setting)
    assert code == 0, output
    assert "zh-small: " in output and " downloaded to " in output
    assert site.asked_for(first) == [half]
    assert all(asked.begin == 0 for asked in site.asked if asked.path != first)

    # As `make run` starts it: what serving() sets of its own is taken back.
    variables = {"ASR_ENGINE": "", "TTS_ENGINE": "", "HOME": str(tmp_path / "home")}
    if registry.has_nvidia_card():
        variables["ASR_GPUS"] = "cpu"  # with a card, FunASR is the better one
    async with serving(tmp_path, **variables) as server:
        assert "recognition  sherpa" in server.banner
        async with httpx.AsyncClient(base_url=server.http, timeout=60) as http:
            answer = await http.post("/stream/v1/asr", params={"format": "pcm"}, content=SOUND)
        assert answer.json()["result"] == TEXT
        events = await NlsClient(server.ws).transcribe(SOUND, enable_intermediate_result=True)
    ends = [event.payload["result"] for event in events if event.name == "SentenceEnd"]
    assert ends == [TEXT]
    assert any(event.name == "TranscriptionResultChanged" for event in events)
