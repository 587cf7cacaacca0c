"""Voice names of the cloud, and of the owner's own, for voices that this server has.

Unmodified clients ask for ``xiaoyun`` or ``longxiaochun``. Such a name stands for a language and a
gender here, and the catalogue finds the voice of the running engine that comes closest. So do this
server's own preset names, such as ``中文男``, where the engine has no voice of that name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final, get_args

import msgspec

from app.core.speech import Gender

FILE_NAME: Final = "aliases.toml"
"""The owner's file, in VOICES_DIR."""

_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_CLOUD_VERSION: Final = re.compile(r"_v\d+$")


class Wanted(msgspec.Struct, frozen=True):
    """What an alias asks for: any voice of this language (BCP 47) and gender."""

    language: str
    gender: Gender


Alias = Wanted | str
"""A wish, or the exact name of a voice."""


class AliasFileError(Exception):
    """The owner's alias file cannot be used. The text, for the owner, names file and line."""


class Aliases:
    """The table of aliases: the packaged names of the cloud, and over them the owner's.

    ``voices_dir``: where the owner's ``aliases.toml`` may be; None for none. Nothing of it is read
    before :meth:`refresh`. Readers in other threads see the old table or the new one.
    """

    def __init__(self, voices_dir: Path | None = None) -> None:
        self._path = None if voices_dir is None else voices_dir / FILE_NAME
        packaged = resources.files("app.voices").joinpath("cloud_voices.toml")
        self._cloud = _parse(packaged.read_text("utf-8"), "cloud_voices.toml")
        self._table = self._cloud

    def refresh(self) -> None:
        """Read the owner's file again; the table stays as it was if that fails. Blocking.

        Raises:
            AliasFileError: the file is malformed or cannot be read.
        """
        self._table = {**self._cloud, **self._owners()}

    def find(self, name: str) -> Alias | None:
        """What ``name`` stands for, in any case of letters; None if it is no alias.

        Versions of a cloud voice (``longxiaochun_v2``) are the same voice here.
        """
        key = name.casefold()
        table = self._table
        return table.get(key) or table.get(_CLOUD_VERSION.sub("", key))

    def named(self) -> Mapping[str, str]:
        """The aliases for a voice by its name, in lower case, and those names."""
        return {alias: to for alias, to in self._table.items() if isinstance(to, str)}

    def _owners(self) -> dict[str, Alias]:
        if self._path is None:
            return {}
        try:
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise AliasFileError(f"{FILE_NAME}: cannot be read: {reason}") from error
        return _parse(text, FILE_NAME)


def _parse(text: str, file_name: str) -> dict[str, Alias]:
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AliasFileError(f"{file_name}: {error}") from error
    except RecursionError as error:
        raise AliasFileError(f"{file_name}: nested too deeply") from error
    table: dict[str, Alias] = {}
    for name, value in entries.items():
        try:
            table[name.casefold()] = _alias(value)
        except ValueError as error:
            place = f"{file_name}, line {_line_of(text, name)}"
            raise AliasFileError(f"{place}: {name!r} {error}") from error
    return table


def _alias(value: object) -> Alias:
    """Check one entry; ValueError says, as the end of a sentence, what it must be."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, dict) or set(value) != {"language", "gender"}:
        raise ValueError('must be a voice name or {language = "zh-CN", gender = "female"}')
    language, gender = value["language"], value["gender"]
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        raise ValueError('has a language that is not a tag such as "zh-CN"')
    if gender not in get_args(Gender):
        raise ValueError(f"has a gender that is none of {', '.join(get_args(Gender))}")
    return Wanted(language, gender)


def _line_of(text: str, name: str) -> int:
    """The line where an entry begins (tomllib does not tell): as a key or as a table."""
    key = re.escape(name)
    begins = re.compile(rf"""\s*\[?\s*(?:"{key}"|'{key}'|{key})\s*[\].=]""")
    lines = text.splitlines()
    return next((number for number, line in enumerate(lines, 1) if begins.match(line)), 1)
