"""What ``funspeech doctor`` looks at. Each check returns findings and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from app.cli.address import host_and_port, own_tls
from app.cli.better import ROLES, better_engine, choose_engine, program, wanted
from app.cli.target import served_at
from app.client.errors import ClientError
from app.client.rest import RestClient
from app.core.config import Config, ConfigError, load
from app.core.errors import EngineNotUsable
from app.core.speech import Role
from app.engines.models import Model
from app.engines.registry import (
    ENGINES,
    missing,
    model_files,
    models_folder,
    uses_card,
)

Level = Literal["OK", "WARN", "FAIL"]

MIB: Final = 1024 * 1024
LITTLE_DISK_BYTES: Final = 2 * 1024 * MIB
"""Below this, logs at their default sizes (20 MiB × 51) may fill the disk."""
NO_DISK_BYTES: Final = 100 * MIB

OLDEST_PYTHON: Final = (3, 11)

GPU_QUERY: Final = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
GPU_QUERY_TIMEOUT_S: Final = 10.0
HEALTH_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``remedy`` says what to do, where ``text`` does not."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """All checks, in the order of a start; without usable settings only those that need none."""
    yield check_python()
    try:
        config = load()
    except ConfigError as error:
        yield Finding("FAIL", "Settings", str(error), "correct it in .env or in the environment")
        return
    yield from check_settings(config)
    yield check_engine(config, "asr")
    yield check_engine(config, "tts")
    yield from check_models(config)
    yield from check_gpus(config, query_gpus())
    yield check_port(config)
    for name, folder in folders(config):
        yield check_folder(name, folder)
    yield check_disk(config.data_dir)


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Whether this Python can run the server."""
    if version < OLDEST_PYTHON:
        text = f"{version[0]}.{version[1]} is too old"
        return Finding("FAIL", "Python", text, "install Python 3.11 or newer")
    text = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding("OK", "Python", text)


def check_settings(config: Config) -> Iterator[Finding]:
    """What loading the settings found odd, an open door among them."""
    try:
        own_tls(config)
    except ConfigError as error:
        yield Finding("FAIL", "Settings", str(error), "the server cannot start with this one")
    if not config.warnings:
        yield Finding("OK", "Settings", "every name and value is understood")
    for warning in config.warnings:
        yield Finding("WARN", "Settings", warning)


def check_engine(config: Config, role: Role) -> Finding:
    """Which engine the settings take for a role, and which are installed."""
    variable, subject = ("ASR_ENGINE", "Recognition") if role == "asr" else ("TTS_ENGINE", "Speech")
    named, _ = wanted(config, role)
    installed = [name for name in ENGINES if missing(name, role) == []]
    try:
        chosen = choose_engine(config, role)
    except EngineNotUsable as error:
        remedy = f"install it, or set {variable}=auto" if named != "auto" else ""
        return Finding("FAIL", subject, str(error), remedy)
    text = f"{variable}={named} takes {chosen}; installed: {', '.join(installed)}"
    better = better_engine(config, role, chosen)
    return Finding("OK", subject, text, f"better: {better}" if better else "")


def check_models(config: Config) -> Iterator[Finding]:
    """Whether the models of the engines are here, or can be downloaded."""
    for role in ROLES:
        yield from _check_models(config, role)
    yield from _left_out(config)


def _left_out(config: Config) -> Iterator[Finding]:
    """Models that are damaged and not needed: the server does without them, and is worse for it."""
    needed = dict[str, set[str]]()
    for role in ROLES:
        with contextlib.suppress(EngineNotUsable):  # the checks before have told
            engine = choose_engine(config, role)
            if files := model_files(engine):
                card = uses_card(wanted(config, role)[1])
                names = files.needed(config.engine_settings(engine), role, on_card=card)
                needed.setdefault(engine, set()).update(names)
    for engine, of_engine in needed.items():
        if files := model_files(engine):
            cache = models_folder(config.engine_settings(engine))
            for name in (each.name for each in files.models() if each.name not in of_engine):
                verdict = files.inspect(name, cache)
                if verdict.damaged:
                    text = f"{name} is damaged and left out: {', '.join(verdict.faults)}"
                    yield Finding("WARN", "Models", text, f"{program()} models pull {name}")


def _check_models(config: Config, role: Role) -> Iterator[Finding]:
    subject = "Models"
    try:
        engine = choose_engine(config, role)
    except EngineNotUsable:
        return  # check_engine has told
    files, settings = model_files(engine), config.engine_settings(engine)
    if files is None:
        return
    try:
        needed = files.needed(settings, role, on_card=uses_card(wanted(config, role)[1]))
    except EngineNotUsable as error:
        yield Finding("FAIL", subject, str(error))
        return
    cache, published = models_folder(settings), {model.name: model for model in files.models()}
    found = {name: files.inspect(name, cache) for name in needed}
    for name, verdict in found.items():
        if verdict.damaged:
            remedy = f"{program()} models pull {name}" if name in published else ""
            text = f"{name} in {verdict.folder}: {', '.join(verdict.faults)}"
            yield Finding("FAIL", subject, text, remedy)
    absent = [published[name] for name, v in found.items() if v.faults and not v.damaged]
    if absent and config.offline:
        names = ", ".join(model.name for model in absent)
        text = f"not in {cache}, and OFFLINE forbids to download them: {names}"
        yield Finding("FAIL", subject, text, f"OFFLINE=false {program()} models pull")
    elif absent:
        yield from _check_download(cache, absent)
    if found and not any(verdict.faults for verdict in found.values()):
        yield Finding("OK", subject, _places(list(found), published, cache))


def _places(names: Sequence[str], published: Mapping[str, Model], cache: Path) -> str:
    """Where models are: those that are downloaded together, folders of the owner's as named."""
    downloaded = [name for name in names if name in published]
    own = [name for name in names if name not in published]
    parts = [f"{', '.join(downloaded)}: here, in {cache}"] if downloaded else []
    return "; ".join((*parts, *(f"{name}: here" for name in own)))


def _check_download(cache: Path, absent: Sequence[Model]) -> Iterator[Finding]:
    size = sum(model.size_bytes for model in absent)
    free = shutil.disk_usage(nearest(cache)).free
    names = ", ".join(model.name for model in absent)
    text = f"the first start downloads {names}: {size / 1e9:.1f} GB, into {cache}"
    yield Finding("WARN", "Models", text, f"to have them before: {program()} models pull")
    yield check_folder("MODELSCOPE_CACHE", cache)
    if size > free:
        text = f"{free / 1e9:.1f} GB free for {cache}, the models need {size / 1e9:.1f} GB"
        yield Finding("FAIL", "Disk", text, "free some space, or set MODELSCOPE_CACHE elsewhere")


def query_gpus(command: Sequence[str] = GPU_QUERY) -> list[str] | str:
    """Names of the NVIDIA cards, empty without a driver; or what is wrong with the driver."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=GPU_QUERY_TIMEOUT_S, check=True
        )
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired:
        return f"{command[0]} does not answer"
    except (subprocess.CalledProcessError, OSError) as error:
        output = error.stdout if isinstance(error, subprocess.CalledProcessError) else ""
        return f"{command[0]} fails: {(output or str(error)).strip().splitlines()[0]}"
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def check_gpus(config: Config, found: list[str] | str) -> Iterator[Finding]:
    """Whether the cards that the settings name are there. ``found``: from :func:`query_gpus`."""
    if isinstance(found, str):
        yield Finding("WARN", "GPU", found, "repair the NVIDIA driver; until then use the CPU")
        cards = []
    else:
        cards = found
        text = "; ".join(cards) or "no NVIDIA card: engines run on the CPU"
        yield Finding("OK", "GPU", text)
    for variable, devices in (
        ("ASR_GPUS", config.asr_devices()),
        ("TTS_GPUS", config.tts_devices()),
    ):
        numbers = {int(device.removeprefix("cuda:")) for device in devices if ":" in device}
        absent = sorted(number for number in numbers if number >= len(cards))
        if absent:
            names = ", ".join(map(str, absent))
            remedy = f"set {variable} to auto, cpu, or the number of a card that is there"
            text = f"{variable} names card {names}, there are {len(cards)} cards"
            yield Finding("FAIL", "GPU", text, remedy)


def check_port(config: Config) -> Finding:
    """Whether the server can listen, or is the one that listens already."""
    subject = "Port"
    if config.port == 0:
        return Finding("OK", subject, "PORT=0: any free one is taken")
    where = host_and_port(config.host, config.port)
    problem = bind_problem(config.host, config.port)
    if problem is None:
        return Finding("OK", subject, f"{where} is free")
    if problem == errno.EADDRINUSE:
        health = asyncio.run(ask_health(config))
        if health is None:
            remedy = "stop it, or set PORT to another number"
            return Finding("FAIL", subject, f"{where} is used by another program", remedy)
        return _running(config, where, health)
    if problem == errno.EACCES:
        remedy = "set PORT to a number above 1023"
        return Finding("FAIL", subject, f"{where} needs administrator rights", remedy)
    remedy = "set HOST to 127.0.0.1 (this machine only) or 0.0.0.0 (every network)"
    return Finding("FAIL", subject, f"{where}: {os.strerror(problem)}", remedy)


def bind_problem(host: str, port: int) -> int | None:
    """The errno of trying to listen there; None if one can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections that have ended but linger are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return None


async def ask_health(config: Config) -> dict[str, Any] | None:
    """What a FunSpeech with these settings says of itself; None if none answers."""
    try:
        tls = own_tls(config)
        async with RestClient(served_at(config), timeout_s=HEALTH_TIMEOUT_S, ssl=tls) as rest:
            health = await rest.health()
    except (ClientError, ConfigError):
        return None
    return health if {"status", "version", "engines"} <= health.keys() else None


def _running(config: Config, where: str, health: dict[str, Any]) -> Finding:
    text = f"FunSpeech {health['version']} runs at {where} and is {health['status']}"
    if health["status"] != "healthy":
        return Finding("WARN", "Port", text, "wait until its engines are loaded; see its log")
    if changes := list(_other_engines(config, health["engines"])):
        return Finding("WARN", "Port", f"{text}, {'; '.join(changes)}", "restart it")
    return Finding("OK", "Port", text)


def _other_engines(config: Config, running: object) -> Iterator[str]:
    """Where the server that runs has not the engine that these settings take now. ``running``: its
    own list, by role."""
    if not isinstance(running, dict):
        return
    for role in ROLES:
        engines = running.get(role)
        with contextlib.suppress(EngineNotUsable):  # check_engine has told
            chosen = choose_engine(config, role)
            if isinstance(engines, list) and engines and chosen not in engines:
                yield f"with {', '.join(map(str, engines))} where a start would take {chosen}"


def folders(config: Config) -> Iterator[tuple[str, Path]]:
    """The folders that the server writes to, by the variable that names them."""
    yield "DATA_DIR", config.data_dir
    yield "VOICES_DIR", config.voices_dir
    yield "LOG_FILE", config.log_file.parent


def check_folder(name: str, folder: Path) -> Finding:
    """Whether the server can write there, or can make the folder."""
    subject = "Folder"
    remedy = f"change its owner or its rights, or set {name} to another place"
    there = nearest(folder)
    if not there.is_dir():
        return Finding("FAIL", subject, f"{name}: {there} is not a folder", remedy)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("FAIL", subject, f"{name}: {there}: {error.strerror}", remedy)
    state = "can be written" if there == folder else "will be made"
    return Finding("OK", subject, f"{name}: {folder} {state}")


def check_disk(folder: Path) -> Finding:
    """Whether there is room for what the server writes."""
    free = shutil.disk_usage(nearest(folder)).free
    text = f"{free / MIB / 1024:.1f} GiB free for {folder}"
    remedy = "free some space, or set DATA_DIR to another disk"
    if free < NO_DISK_BYTES:
        return Finding("FAIL", "Disk", text, remedy)
    if free < LITTLE_DISK_BYTES:
        return Finding("WARN", "Disk", text, remedy)
    return Finding("OK", "Disk", text)


def nearest(path: Path) -> Path:
    """``path``, or the closest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
