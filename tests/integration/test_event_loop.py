"""Nothing that takes long runs on the event loop: models, grammars, filters and files have threads.

The server is the only one on the loop that is watched; its clients run in another thread.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import wave
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # the package has no py.typed marker
import pytest

from app.api import rest_asr
from app.audio.prosody import Prosody
from app.client.nls import NlsClient
from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Hypothesis, RecognizerCapabilities, SynthesizerCapabilities
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.synthesizer import FakeSynthesizer
from app.text.normalise import Normalizer
from app.voices.aliases import Aliases
from app.voices.catalogue import VoiceCatalogue
from tests.support.live import Live, live_server
from tests.support.sound import Int16, joined, silence, tone

FILE_EVENTS = frozenset(
    {
        "open",
        "os.listdir",
        "os.scandir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "sqlite3.connect",
        "subprocess.Popen",
        "time.sleep",
    }
)
"""What blocks, by the names under which the interpreter tells its audit hooks."""


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROUTES = str(Path(rest_asr.__file__).parent)
SPEECH_OPTIONS: list[dict[str, Any]] = [
    {},
    {"speech_rate": 300},
    {"pitch_rate": -300, "volume": 80, "sample_rate": 8_000},
    {"format": "wav", "volume": 10, "sample_rate": 48_000},
]


class Watch:
    """In which threads something was called."""

    def __init__(self) -> None:
        self.threads: defaultdict[str, set[int]] = defaultdict(set)

    def note(self, name: str) -> None:
        """``name`` runs here."""
        self.threads[name].add(threading.get_ident())

    def method(self, patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        """Note each call of a method from now on."""
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.note(f"{owner.__name__}.{name}")
            return original(*args, **kwargs)

        patch.setattr(owner, name, noted)

    def never_on(self, thread: int, *names: str) -> None:
        """Fail unless all of ``names`` were called, and nothing at all was on ``thread``."""
        assert set(names) <= set(self.threads)
        assert [name for name, threads in self.threads.items() if thread in threads] == []


class FileWatch:
    """Blocking calls on one thread, while it is set. An audit hook stays for good: there is one."""

    thread: int | None = None
    seen: list[str]
    _installed = False

    @classmethod
    def begin(cls) -> None:
        """Watch the calling thread."""
        if not cls._installed:
            sys.addaudithook(cls._hook)
            cls._installed = True
        cls.seen = []
        cls.thread = threading.get_ident()

    @classmethod
    def end(cls) -> list[str]:
        """What was seen."""
        cls.thread = None
        return cls.seen

    @classmethod
    def _hook(cls, event: str, args: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and threading.get_ident() == cls.thread:
            # FastAPI reads the source of a route once, at its first request, for its own errors.
            if event == "open" and str(args[0]).startswith(ROUTES):
                return
            cls.seen.append(f"{event} {args[:1]!r}")


class Sentences:
    """A recogniser of sentences, which leaves the endpointing to the server and its VAD."""

    capabilities = RecognizerCapabilities(
        sample_rate=16_000,
        languages=("en-US",),
        step_ms=200,
        partials=True,
        word_times=False,
        own_endpointing=False,
        max_sessions=100,
        max_sentences=100,
    )

    def open(self, options: RecognitionOptions) -> object:
        """A new sentence."""
        return object()

    def step(self, batch: Sequence[Feed]) -> Sequence[Hypothesis]:
        """Every sentence is the same."""
        return [Hypothesis("something") for _ in batch]

    def close(self, stream: object) -> None:
        """Nothing to forget."""


class Reader(FakeSynthesizer):
    """The fake one, which leaves numbers to the server."""

    @property
    def capabilities(self) -> SynthesizerCapabilities:
        """As of an engine with a plain text front end."""
        return msgspec.structs.replace(super().capabilities, normalizes_text=False)


def _spoken(name: str) -> Int16:
    """An example: a VAD does not take tones for speech."""
    with wave.open(str(EXAMPLES / f"{name}.wav")) as audio:
        return np.frombuffer(audio.readframes(audio.getnframes()), dtype=np.int16)


async def _load(live: Live) -> None:
    """Everything that clients do, several at a time."""
    client = NlsClient(live.ws)
    speech = joined(tone(500), silence(900), _spoken("hello"))

    async def rest() -> None:
        async with httpx.AsyncClient(base_url=live.http, verify=False) as http:
            for answer in (
                await http.post("/stream/v1/asr", content=speech.tobytes()),
                await http.get("/stream/v1/tts", params={"text": "room 7", "speech_rate": 100}),
                await http.post("/stream/v1/tts", json={"text": "1 " * 200, "format": "wav"}),
                await http.post("/stream/v1/tts/voices/refresh"),
                await http.get("/stream/v1/tts/voices/info"),
                await http.get("/stream/v1/asr/models"),
                await http.get("/health"),
            ):
                assert answer.status_code == 200, answer.text

    await asyncio.gather(
        *(client.transcribe(speech.tobytes(), enable_words=True) for _ in range(4)),
        client.transcribe(joined(tone(500, 44_100)).tobytes(), sample_rate=44_100),
        *(
            client.synthesize(f"It costs {number} euros, 20% less.", voice="英文女", **options)
            for number, options in enumerate(SPEECH_OPTIONS)
        ),
        rest(),
    )


async def _under_load(live: Live) -> None:
    await asyncio.to_thread(asyncio.run, _load(live))


async def test_models_grammars_and_filters_have_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    for owner, name in (
        (Prosody, "feed"),
        (Prosody, "flush"),
        (Normalizer, "normalize"),
        (VoiceCatalogue, "refresh"),
        (Aliases, "refresh"),
        (onnxruntime.InferenceSession, "run"),
        (Sentences, "step"),
        (FakeSynthesizer, "synthesize"),
    ):
        watch.method(monkeypatch, owner, name)
    async with live_server(tmp_path, asr=Sentences(), tts=Reader(FakeOptions())) as live:
        await _under_load(live)
    watch.never_on(
        threading.get_ident(),
        "Prosody.feed",
        "Prosody.flush",
        "Normalizer.normalize",
        "VoiceCatalogue.refresh",
        "Aliases.refresh",
        "InferenceSession.run",
        "Sentences.step",
        "FakeSynthesizer.synthesize",
    )


async def test_an_engine_with_its_own_endpointing_has_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    watch.method(monkeypatch, FakeRecognizer, "step")
    async with live_server(tmp_path) as live:
        await _under_load(live)
    watch.never_on(threading.get_ident(), "FakeRecognizer.step")


async def test_no_file_is_opened_on_the_event_loop(tmp_path: Path) -> None:
    """Nor a name looked up, nor slept; modules that a first request needs are loaded in threads,
    or at the start."""
    async with live_server(tmp_path, asr=Sentences(), tts=Reader(FakeOptions())) as live:
        FileWatch.begin()
        try:
            (tmp_path / "probe").touch()
            assert len(FileWatch.seen) == 1  # so the watch sees what it must
            await _under_load(live)
        finally:
            seen = FileWatch.end()
    assert seen[1:] == []
