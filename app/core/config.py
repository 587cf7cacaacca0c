"""The server's settings: the only reader of the environment and of ``.env``.

:func:`load` reads both (the environment wins), checks every value and returns a frozen
:class:`Config`, or raises :class:`ConfigError` with one line that names the variable and what it
accepts. Nothing is created, logged or cached. Names, defaults and meanings follow the
earlier FunSpeech (zaigie/FunSpeech), where it has them. The docstring under a field is also its
comment in ``.env.example``.

It is a plain pydantic model and not ``pydantic_settings``: reading the two sources takes a dozen
lines, and then the caller can hand in any environment, unknown names can be reported, and no
message ever repeats a secret.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from annotated_types import Ge, Gt, Le
from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo

from app.core.cpus import usable_cores
from app.core.paths import expanded

DEFAULT_LOG_FILE: Final = Path("logs/funspeech.log")


class ConfigError(Exception):
    """A setting is malformed; the text is one line for the owner of the server."""


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _check_devices(value: str) -> str:
    parse_devices(value)
    return value


def _check_url(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value.rstrip("/")


def _check_file(value: Path | None) -> Path | None:
    if value is None:
        return None
    path = expanded(value)
    if not os.path.isfile(path):
        raise ValueError("must name a file that exists")
    return path


def parse_devices(value: str) -> list[str]:
    """The devices that ``ASR_GPUS`` or ``TTS_GPUS`` names, one per replica.

    An empty value or ``auto`` is ``["auto"]`` (one replica; the worker takes the first card if
    there is one, else the CPU); ``0,1`` is ``["cuda:0", "cuda:1"]``; ``0,0`` is two replicas on
    one card; ``cpu,cpu`` two on the CPU.

    Raises:
        ValueError: something else; the text says what is accepted.
    """
    names = [part.strip().lower() for part in value.split(",")]
    if names in ([""], ["auto"]):
        return ["auto"]
    devices = []
    for name in names:
        if name == "cpu":
            devices.append("cpu")
        elif name.isascii() and name.isdigit():
            devices.append(f"cuda:{int(name)}")
        else:
            raise ValueError("must be empty, auto, cpu, or GPU numbers such as 0 or 0,1")
    return devices


Devices = Annotated[str, AfterValidator(_check_devices)]
HomePath = Annotated[Path, AfterValidator(expanded)]
OptionalFile = Annotated[Path | None, AfterValidator(_check_file)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)
]
AsrModelMode = Annotated[Literal["all", "realtime", "offline"], BeforeValidator(_lower)]
TtsModelMode = Annotated[
    Literal["all", "cosyvoice1", "cosyvoice2", "sft", "clone"], BeforeValidator(_lower)
]
FunasrDtype = Annotated[Literal["fp32", "bf16", "fp16", "int8"], BeforeValidator(_lower)]
FunasrChunk = Literal["600", "480", "300"]
CloneModelVersion = Annotated[Literal["cosyvoice2", "cosyvoice3"], BeforeValidator(_lower)]


class Config(BaseModel):
    """Every setting, by its variable's name in lower case. Immutable."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    # --- server -------------------------------------------------------------------------------
    host: str = "0.0.0.0"  # the default of the earlier FunSpeech
    """Address to listen on. 127.0.0.1 serves this machine only."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes any free port and says which."""

    debug: bool = False
    """Development mode: interactive API documentation at /docs, and /openapi.json."""

    workers: int = Field(default=1, ge=1, le=256)
    """API processes. They share the engine workers: no model is loaded twice."""

    public_url: Annotated[str, AfterValidator(_check_url)] = ""
    """The address under which clients reach this server (behind a proxy, say), as shown to
    people; empty: made from HOST and PORT."""

    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Web pages that may call this server from a browser: origins separated by commas, or *."""

    ssl_certfile: OptionalFile = None
    """TLS certificate (PEM) for https and wss. Needs SSL_KEYFILE."""

    ssl_keyfile: OptionalFile = None
    """Private key (PEM) of SSL_CERTFILE."""

    data_dir: HomePath = Path("data")
    """Folder for what is written at run time: the database, unless DATABASE_URL names another."""

    database_url: SecretStr | None = None
    """Database of projects, vocabularies, tokens and usage: sqlite:///path or
    postgresql://user:password@host/name; empty: the file funspeech.db in DATA_DIR."""

    voices_dir: HomePath = Path("voices")
    """Folder with the owner's aliases.toml, names for voices, and with recordings of voices to
    clone (the sherpa-onnx engine with ZipVoice)."""

    # --- logs ---------------------------------------------------------------------------------
    log_level: LogLevel = "INFO"
    """Least important level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""

    log_file: HomePath = DEFAULT_LOG_FILE
    """Log file; a relative path starts in the working directory, as for the folders above."""

    log_max_bytes: int = Field(default=20_971_520, ge=0)
    """Size in bytes at which the log file is rotated; 0 never rotates."""

    log_backup_count: int = Field(default=50, ge=0)
    """Rotated log files to keep."""

    log_json: bool = False
    """Log one JSON object per line, on the console and in the file."""

    # --- access -------------------------------------------------------------------------------
    apptoken: SecretStr | None = None
    """Token that every request must carry (X-NLS-Token header), except for GET / and health
    checks."""

    appkey: SecretStr | None = None
    """Appkey of this server's clients. It is a credential by itself only where APPTOKEN is
    empty."""

    require_token: bool = False
    """A token is needed even without APPTOKEN: one that `funspeech token create` or the cloud's
    CreateToken has issued."""

    token_hours: float = Field(default=24, ge=1, le=8760)
    """How long a token of CreateToken is valid, in hours."""

    ws_token_in_message: bool = True
    """Accept WebSocket connections without a token if their first message carries it; when
    false they are refused at the handshake."""

    allow_private_urls: bool = False
    """URLs of audio may lead to private, loopback and link-local addresses; when false such URLs
    are refused."""

    # --- engines ------------------------------------------------------------------------------
    asr_engine: Annotated[str, BeforeValidator(_lower)] = "auto"
    """Recognition engine: auto takes the best that is installed and whose models are here or, where
    there is a GPU, can be had; `funspeech doctor` lists them."""

    tts_engine: Annotated[str, BeforeValidator(_lower)] = "auto"
    """Synthesis engine: auto takes the best that is installed and whose models are here."""

    asr_gpus: Devices = ""
    """Devices for recognition, one replica each: empty or auto, cpu, 0, or a list such as 0,1
    (0,0 and cpu,cpu are two replicas on one device)."""

    tts_gpus: Devices = ""
    """Devices for synthesis, written like ASR_GPUS."""

    inference_thread_pool_size: int = Field(default=0, ge=0, le=1024)
    """Texts that a synthesis worker speaks at the same time, threads for speed, pitch, volume and
    encoding in each API process, and threads of the decode process; 0: as many texts as the engine
    allows, and one thread per CPU core, at least 4."""

    asr_model_mode: AsrModelMode = "all"
    """Recognition models to load: all, realtime or offline. Takes effect with the FunASR and
    sherpa-onnx engines."""

    asr_enable_realtime_punc: bool = False
    """Punctuation in interim results. Takes effect with the FunASR and sherpa-onnx
    engines."""

    asr_second_pass_budget_ms: int = Field(default=600, ge=0, le=60_000)
    """Time that the second pass over a finished sentence may take, and a tenth of the sentence's
    length besides; after that the text of the first pass goes out. FunASR and sherpa-onnx
    engines."""

    tts_model_mode: TtsModelMode = "all"
    """Synthesis models to load: all, cosyvoice1 (or sft: presets) or cosyvoice2 (or clone).
    Takes effect with the CosyVoice engine."""

    clone_model_version: CloneModelVersion = "cosyvoice2"
    """Model of cloned voices: cosyvoice2 or cosyvoice3. Takes effect with the CosyVoice engine."""

    cosyvoice3_model_id: str = "FunAudioLLM/Fun-CosyVoice3-0.5B-2512"
    """ModelScope name of the CosyVoice3 model. Takes effect with the CosyVoice engine."""

    # --- model files --------------------------------------------------------------------------
    modelscope_cache: HomePath = Field(default=Path("~/.cache/modelscope"), validate_default=True)
    """Folder of downloaded models."""

    offline: bool = False
    """Never download anything: a model that is not there stops the start."""

    models_file: OptionalFile = None
    """TOML file with further recognition models for projects to choose: a table for each, by its
    label, with the settings that differ from the server's (docs/projects.md)."""

    # --- the FunASR engine --------------------------------------------------------------------
    funasr_streaming_model: str = "paraformer-zh-streaming"
    """Streaming model: a name that `funspeech models list` shows, or a folder."""

    funasr_offline_model: str = "sensevoice-small"
    """Model of the second pass, of files and of REST: sensevoice-small, paraformer-zh, or a
    folder."""

    funasr_offline_model_8k: str = "none"
    """The same for audio that comes at 8 kHz (telephone): paraformer-zh-8k or a folder; none: the
    model above hears that too."""

    funasr_punctuation_model: str = "ct-punc"
    """Punctuation of final results: a name, a folder, or none."""

    funasr_realtime_punctuation_model: str = "ct-punc-realtime"
    """Punctuation of interim results, where ASR_ENABLE_REALTIME_PUNC is set: a name or a folder."""

    funasr_vad_model: str = "auto"
    """Voice activity detection: a name, a folder, none for the server's own, or auto: fsmn-vad on
    GPUs and the server's own on CPUs."""

    funasr_dtype: FunasrDtype = "fp32"
    """Arithmetic of the models: fp32, or bf16 or fp16 (on GPUs) or int8 (on CPUs), which are
    faster and may change results: `funspeech eval` tells how much."""

    funasr_chunk_ms: FunasrChunk = "600"
    """Audio in one step of the streaming model: 600, 480 or 300. Less answers sooner, costs more,
    and recognises worse unless the model was trained for it."""

    funasr_slots: int = Field(default=0, ge=0, le=65_536)
    """Sentences that may be open at once in one replica, 9 MB each with the published model; 0: by
    the device."""

    funasr_max_batch: int = Field(default=0, ge=0, le=4096)
    """Most streams in one step; 0: as many as can be done in time, which is measured at the
    start."""

    funasr_threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of one replica; 0: its share of the CPU cores less one for the rest of the
    server, from 1 to 8."""

    # --- the sherpa-onnx engine ---------------------------------------------------------------
    sherpa_streaming_model: str = "auto"
    """Streaming model: a name that `funspeech models list` shows, a folder (zipformer transducer
    or CTC, Paraformer; ONNX files and tokens.txt), none for no interim results, or auto: the best
    one that is here, else none where an offline model is here, else zh-small."""

    sherpa_offline_model: str = "auto"
    """Model of the second pass, of files and of REST: a name, a folder (SenseVoice or Paraformer),
    none, or auto: sensevoice-int8 if it is here."""

    sherpa_punctuation_model: str = "auto"
    """Punctuation: a name, a folder (ct-transformer), none, or auto: punctuation-int8 if it is
    here."""

    sherpa_voice_model: str = "auto"
    """Model of synthesis: a name, a folder (Kokoro, Matcha, VITS, Melo, ZipVoice), or auto: the
    best one that is here, else voice-zh-en."""

    sherpa_threads: int = Field(default=1, ge=1, le=1024)
    """CPU threads of one recognition model. More replicas (ASR_GPUS=cpu,cpu) carry more streams
    than more threads."""

    sherpa_voice_threads: int = Field(default=2, ge=1, le=1024)
    """CPU threads of a synthesis model."""

    sherpa_mirrors: str = ""
    """Where sherpa-onnx models are downloaded from, in the order of trying, with commas between
    them: hf=URL for a site laid out like Hugging Face, modelscope=URL for one like ModelScope,
    release=URL for one like the releases of sherpa-onnx. Empty: the publishers' own."""

    sherpa_slots: int = Field(default=64, ge=1, le=65_536)
    """Sentences that may be open at once in one replica, 3 MB each with a large zipformer."""

    sherpa_max_batch: int = Field(default=16, ge=1, le=4096)
    """Most streams in one call of the model; more than 16 gain nothing."""

    # --- near-field filter --------------------------------------------------------------------
    asr_enable_nearfield_filter: bool = True
    """Ignore far-away sound (a television, other people) in audio that comes over WebSocket; files
    posted by REST are recognised whole."""

    asr_nearfield_rms_threshold: float = Field(default=0.01, ge=0, le=1)
    """Sound below this RMS level (full scale is 1) counts as far away; 0.005 to 0.05 is usual."""

    asr_nearfield_filter_log_enabled: bool = True
    """Log how much sound the filter took out of each task."""

    # --- limits -------------------------------------------------------------------------------
    max_streams: int = Field(default=0, ge=0)
    """Recognition streams per engine replica; 0: as many as the engine says it can carry, which is
    the most for one that finds its sentences itself, or as its worker measures when it starts
    (funasr, sherpa). Further ones are refused with 40000005."""

    max_connections: int = Field(default=5000, ge=1)
    """Open NLS WebSocket connections per API process. The handshake of a further one is answered
    with HTTP 503 and 40000005. Needs as many file descriptors (ulimit -n)."""

    max_tasks_per_appkey: int = Field(default=0, ge=0)
    """Tasks of one appkey at the same time, recognition and synthesis together, in all API
    processes; 0: no limit. Further ones are refused with 40000005. Requests without an appkey
    count as one."""

    max_text_chars: int = Field(default=1000, ge=1)
    """Longest text of one synthesis request. Longer texts are refused, never cut."""

    max_long_text_chars: int = Field(default=100_000, ge=1)
    """Longest text of one synthesis by SpeechLongSynthesizer or FlowingSpeechSynthesizer."""

    max_audio_bytes: int = Field(default=16_777_216, ge=1)
    """Largest body of a REST recognition request, and largest recording of a format that is decoded
    once it is whole (m4a, flac, amr …) over WebSocket, in bytes. Such a recording waits on disk, in
    TMPDIR: allow so many bytes for each task."""

    max_audio_seconds: int = Field(default=60, ge=1)
    """Longest audio of one-shot recognition (REST and SpeechRecognizer)."""

    max_flash_bytes: int = Field(default=104_857_600, ge=1)
    """Largest recording that FlashRecognizer takes, in bytes. It waits on disk, in TMPDIR."""

    max_flash_seconds: int = Field(default=7200, ge=1)
    """Longest recording that FlashRecognizer takes."""

    max_decode_seconds: float = Field(default=30.0, gt=0)
    """Time that the server may spend on decoding one file (mp3, m4a, flac …); a stream has as long
    as its audio besides."""

    max_message_bytes: int = Field(default=1_048_576, ge=1024)
    """Largest WebSocket message, in bytes."""

    idle_timeout_seconds: float = Field(default=10.0, gt=0)
    """A recognition task whose client is silent for this long fails with 40000004."""

    drain_delay_seconds: float = Field(default=0.0, ge=0)
    """On SIGTERM, time to go on serving while /health/ready says 503, so that load balancers send
    new clients elsewhere."""

    drain_timeout_seconds: float = Field(default=10.0, ge=0)
    """On SIGTERM, after that delay, time for running tasks and requests to complete. What still
    runs then is ended early, within 3 s: recognition delivers what it heard, and the task fails
    with 50000001."""

    start_timeout_seconds: float = Field(default=120.0, gt=0)
    """Time for an engine to load, counted anew at each step of progress that it reports."""

    hang_timeout_seconds: float = Field(default=15.0, ge=2)
    """A process without a sign of life for this long, or with work that does not advance, is
    replaced. Must exceed the longest single step of an engine (a synthesis engine that returns a
    sentence in one piece: the longest sentence); less finds a hang sooner, and kills slow work."""

    # --- the fake engine, for tests and measurements --------------------------------------------
    fake_asr_delay_ms: float = Field(default=0.0, ge=0)
    """Fake recognition: cost of one step in milliseconds, whatever the number of sessions."""

    fake_asr_item_ms: float = Field(default=0.0, ge=0)
    """Fake recognition: further milliseconds for each session in the step."""

    fake_asr_batch: int = Field(default=0, ge=0)
    """Fake recognition: most sessions in one step; 0 for no limit."""

    fake_asr_script: str = ""
    """Fake recognition: file with scripted sentences to report instead of `heard N ms`; its
    format is told in app/engines/fake/script.py."""

    fake_tts_delay_ms: float = Field(default=0.0, ge=0)
    """Fake synthesis: milliseconds before each piece of 400 ms of audio."""

    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What :func:`load` found odd but harmless; one line each, to be logged at the start."""
        return self._warnings

    def asr_devices(self) -> list[str]:
        """``ASR_GPUS`` as a list; see :func:`parse_devices`."""
        return parse_devices(self.asr_gpus)

    def tts_devices(self) -> list[str]:
        """``TTS_GPUS`` as a list; see :func:`parse_devices`."""
        return parse_devices(self.tts_gpus)

    def inference_threads(self) -> int:
        """``INFERENCE_THREAD_POOL_SIZE``, with its default filled in for this machine."""
        return self.inference_thread_pool_size or max(4, usable_cores())

    def engine_settings(self, name: str) -> dict[str, object]:
        """The settings that an engine family is told: its own (for ``fake``, all ``FAKE_*``) and
        those of all engines. Paths are texts: the values travel to the worker as they are."""
        prefix = f"{name.lower()}_"
        found = {
            field.upper(): getattr(self, field)
            for field in type(self).model_fields
            if field.startswith(prefix) or field in _OF_ALL_ENGINES
        }
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in found.items()
        }


def overruled(config: Config, values: Mapping[str, str]) -> Config:
    """The settings with others in the place of some, by their variables' names. An empty value is
    the setting's own default.

    Raises:
        ConfigError: a value is malformed.
    """
    given = {name.lower(): value.strip() for name, value in values.items()}
    kept = {name: value for name, value in config if name not in given}
    try:
        return Config.model_validate({**kept, **{k: v for k, v in given.items() if v}})
    except ValidationError as error:
        raise ConfigError(_explain(error, given)) from None


_OF_ALL_ENGINES: Final = frozenset(
    {"asr_model_mode", "asr_enable_realtime_punc", "modelscope_cache", "offline", "voices_dir"}
)


def changed(before: Config, after: Config) -> list[str]:
    """The variables whose values differ, by name; never the values, which may be secrets."""
    return [name.upper() for name, value in after if value != getattr(before, name)]


def load(env_file: str | Path | None = ".env", environ: Mapping[str, str] | None = None) -> Config:
    """Read the settings from ``env_file`` (if it exists) and ``environ`` (default: the process
    environment), which wins. An empty value counts as not set.

    Raises:
        ConfigError: a value is malformed, or ``env_file`` cannot be read.
    """
    environ = os.environ if environ is None else environ
    from_file, warnings = _read_env_file(Path(env_file)) if env_file else ({}, [])
    values: dict[str, str] = {}
    for source in (from_file, environ):
        for name, value in source.items():
            if name.lower() in Config.model_fields and name.isupper() and value.strip():
                values[name.lower()] = value.strip()
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, values)) from None
    _check_together(config)
    warnings += _unknown(from_file, f"in {env_file}", only_ours=False)
    warnings += _unknown(environ, "in the environment", only_ours=True)
    warnings += _open_to_all(config)
    config._warnings = tuple(warnings)
    return config


def _read_env_file(path: Path) -> tuple[dict[str, str], list[str]]:
    """The names and values of an env file, and a warning for each line that is neither.

    Values are taken literally (no ``${…}`` expansion), so that a token may contain a dollar.
    """
    values: dict[str, str] = {}
    warnings: list[str] = []
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                if binding.error:
                    line = binding.original.line
                    warnings.append(f"{path} line {line} is not NAME=value; it is ignored")
                elif binding.key is not None:
                    values[binding.key] = binding.value or ""
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} cannot be read: {reason}") from None
    return values, warnings


def _explain(error: ValidationError, values: Mapping[str, str]) -> str:
    """One line for the first malformed value."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0])
    field = Config.model_fields[name]
    text = first["msg"].removeprefix("Value error, ")
    accepts = text if first["type"] == "value_error" else f"must be {describe(field)}"
    value = values.get(name, str(field.default))  # a default may need a home directory
    got = "" if SecretStr in get_args(field.annotation) else f", got {value[:80]!r}"
    return f"{name.upper()}: {accepts}{got}"


def describe(field: FieldInfo) -> str:
    """What a field accepts, in words: ``a whole number from 0 to 65535``."""
    kind = field.annotation
    if kind is bool:
        return "true or false"
    if kind is int or kind is float:
        return ("a whole number" if kind is int else "a number") + _bounds(field)
    choices = get_args(kind)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(choices)
    return "a text"


def _bounds(field: FieldInfo) -> str:
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    above = next((item.gt for item in field.metadata if isinstance(item, Gt)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f", {low} or more"
    if above is not None:
        return f" above {above}"
    return ""


def _check_together(config: Config) -> None:
    if (config.ssl_certfile is None) != (config.ssl_keyfile is None):
        lacking = "SSL_KEYFILE" if config.ssl_keyfile is None else "SSL_CERTFILE"
        raise ConfigError(f"{lacking}: must be set too, TLS needs SSL_CERTFILE and SSL_KEYFILE")


# The environment holds other programs' variables: only names of these families, or ones that
# almost spell a name of ours, are worth a warning.
_OF_ENGINES: Final = ("COSYVOICE3_", "FAKE_", "FUNASR_", "SHERPA_")
_OUR_FAMILIES: Final = ("ASR_", "TTS_", "LOG_", "CLONE_", "INFERENCE_", *_OF_ENGINES)
_NOT_OURS: Final = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR"})  # OpenSSL's
_OF_LIBRARIES: Final = frozenset({"MODELSCOPE_ENDPOINT", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"})
"""What libraries read from the environment themselves. Docker Compose makes an environment of .env,
a server without it does not."""
_CLOSE: Final = 0.86
"""Similarity at which an unknown variable of the environment is taken for a misspelling: one
letter wrong in eight."""


def _unknown(names: Mapping[str, str], where: str, *, only_ours: bool) -> list[str]:
    known = [name.upper() for name in Config.model_fields]
    warnings = []
    for name in sorted(names):
        if name in known or (only_ours and name in _NOT_OURS):
            continue
        if name in _OF_LIBRARIES:
            if not only_ours:
                warnings.append(f"{name} {where} is not read there; set it in the environment")
            continue
        cutoff = _CLOSE if only_ours else 0.6
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=cutoff)
        if only_ours and not close and not name.startswith(_OUR_FAMILIES):
            continue
        hint = f"; did you mean {close[0]}?" if close else ""
        warnings.append(f"{name} {where} is not a setting{hint}")
    return warnings


def _open_to_all(config: Config) -> list[str]:
    local = config.host in ("localhost", "::1") or config.host.startswith("127.")
    closed = config.require_token or config.apptoken is not None or config.appkey is not None
    if local or closed:
        return []
    return [
        f"HOST={config.host} without APPTOKEN or APPKEY: anyone who can reach this machine can "
        "use the server; set APPTOKEN, or HOST=127.0.0.1"
    ]
