"""What every front door is given: the services it calls and the few settings it needs.

``app/main.py`` fills it in once; the route modules take it as the argument of ``router(doors)``, so
that no door reads a global.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.access.policy import AccessPolicy
from app.api.drain import Drain
from app.audio.encode import ENCODABLE
from app.audio.sniff import FORMATS
from app.services.fetch import FetchLimits

if TYPE_CHECKING:
    from app.access.projects import Projects
    from app.access.store import Store
    from app.jobs.runner import Runner
    from app.services.recognition import RecognitionService
    from app.services.synthesis import SynthesisService
    from app.serving.pool import Pool
    from app.voices.catalogue import VoiceCatalogue


FETCH_TIMEOUT_S: Final = 60.0
"""For audio that a client names by a URL, from the look-up to the last byte."""

FETCH_LIMITS: Final = FetchLimits(max_bytes=16 * 1024 * 1024, timeout_s=FETCH_TIMEOUT_S)
"""Of the body of one REST recognition, whose limit is the same by default."""

MAX_FETCHES: Final = 32
"""Such files that one API process has at the same time: they take room on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and times that a front door enforces itself.

    ``max_text_chars``: characters of text in one short synthesis; ``max_long_text_chars``: in one
    that may be long or comes in pieces. ``max_audio_bytes``: body of one REST recognition;
    ``max_flash_bytes``, ``max_flash_ms``: body and audio of FlashRecognizer. ``max_json_bytes``:
    body of any JSON request. ``max_audio_ms``: audio of one short recognition (60 s at the cloud,
    nls-protocol.md 8.3). ``idle_timeout_s``: a client that sends nothing for so long, while we wait
    for it, has failed. ``max_connections``: NLS WebSocket connections that are open at the same
    time.
    """

    max_text_chars: int = 1_000
    max_long_text_chars: int = 100_000
    max_audio_bytes: int = 16 * 1024 * 1024
    max_json_bytes: int = 256 * 1024
    max_audio_ms: int = 60_000
    max_flash_bytes: int = 100 * 1024 * 1024
    max_flash_ms: int = 7_200_000
    idle_timeout_s: float = 10.0
    max_connections: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The services behind the doors, and the doors' settings.

    ``debug`` opens ``/docs`` and ``/openapi.json``. ``cors_origins``: web origins that may call us
    from a browser; none by default. ``token_in_message``: a WebSocket handshake may lack the token
    if a message brings it. ``asr_model_mode``: only shown, where the earlier FunSpeech
    (zaigie/FunSpeech) shows it.
    ``recognition_formats``: of audio that clients send; ``synthesis_formats``: of audio that they
    get; names in lower case. ``drain``: whether this process is about to end.
    ``metrics_directory``: of all processes' figures; None for this one's only.
    ``store`` and ``projects``: for what is changed in the database by HTTP; None where there is no
    database. ``jobs``: None where none are run. ``token_s``: how long a token of CreateToken is
    valid, in seconds. ``fetch``: what a URL of one REST recognition may cost; ``fetch_folder``:
    where the file lies meanwhile; ``fetches``: hold it while there is one.
    """

    recognition: RecognitionService
    synthesis: SynthesisService
    pool: Pool
    voices: VoiceCatalogue
    access: AccessPolicy
    limits: Limits = Limits()
    debug: bool = False
    cors_origins: tuple[str, ...] = ()
    token_in_message: bool = True
    asr_model_mode: str = "all"
    recognition_formats: tuple[str, ...] = FORMATS
    synthesis_formats: tuple[str, ...] = ENCODABLE
    drain: Drain = field(default_factory=Drain)
    metrics_directory: Path | None = None
    store: Store | None = None
    projects: Projects | None = None
    jobs: Runner | None = None
    token_s: int = 86_400
    fetch: FetchLimits = FETCH_LIMITS
    fetch_folder: Path = Path(tempfile.gettempdir())
    fetches: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_FETCHES))
