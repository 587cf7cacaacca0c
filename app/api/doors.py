"""What every front door is given: the services it calls and the few settings it needs.

``app/main.py`` fills it in once; the route modules take it as the argument of ``router(doors)``, so
that no door reads a global.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.access.tokens import AccessPolicy
from app.api.drain import Drain
from app.audio.encode import ENCODABLE
from app.audio.sniff import FORMATS

if TYPE_CHECKING:
    from app.services.recognition import RecognitionService
    from app.services.synthesis import SynthesisService
    from app.serving.pool import Pool
    from app.voices.catalogue import VoiceCatalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and times that a front door enforces itself.

    ``max_text_chars``: characters of text in one REST synthesis. ``max_audio_bytes``: body of one
    REST recognition. ``max_json_bytes``: body of any JSON request. ``max_audio_ms``: audio of one
    short recognition (60 s at the cloud, nls-protocol.md 8.3). ``idle_timeout_s``: a client that
    sends nothing for so long, while we wait for it, has failed. ``max_connections``: NLS WebSocket
    connections that are open at the same time.
    """

    max_text_chars: int = 1_000
    max_audio_bytes: int = 16 * 1024 * 1024
    max_json_bytes: int = 256 * 1024
    max_audio_ms: int = 60_000
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
