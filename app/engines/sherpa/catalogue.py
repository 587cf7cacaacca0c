"""The models that we recommend, by the names that the settings use: ``models.toml``, typed.

A file of a model comes alone, from a site like Hugging Face (``hf``) or a release of sherpa-onnx
(``release``), or out of the model's archive there, in whose outermost folder it has the same name.
The publisher's speaker models and ZipVoice are not in the list: nothing that we have seen tells
their files for certain. Nor is Fun-ASR-Nano, which is too large and decodes one by one.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Final

import msgspec

from app.engines.models import Model
from app.engines.sherpa.kinds import ModelRole

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w.-]*$")]
"""Also the name of a folder, or of a file in it."""
Sum = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")]
"""SHA-256 in hexadecimal digits; empty: it is not known."""
Size = Annotated[int, msgspec.Meta(ge=0)]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model. ``hf``: ``OWNER/REPOSITORY/PATH``; ``release``: ``TAG/NAME``; with
    neither it comes out of the archive only. ``size`` in bytes, roughly; 0: it is not known.
    ``optional``: the model works without it."""

    name: Name
    hf: str = ""
    release: str = ""
    size: Size = 0
    sha256: Sum = ""
    optional: bool = False


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tar file of a release, at ``path``, which is ``TAG/NAME``."""

    path: str
    size: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Sum = ""

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"files": "file"}):
    """A model with where its files come from. ``sample_rate`` in Hz; None for models of text."""

    name: Name
    purpose: str
    role: ModelRole
    languages: tuple[str, ...]
    licence: str
    files: tuple[Item, ...]
    sample_rate: int | None = None
    archive: Archive | None = None

    @property
    def model(self) -> Model:
        """As the commands see it."""
        hf = self.files[0].hf.split("/")
        source = f"k2-fsa/sherpa-onnx/{self.archive.path}" if self.archive else self.name
        return Model(
            name=self.name,
            purpose=self.purpose,
            languages=self.languages,
            sample_rate=self.sample_rate,
            source="/".join(hf[:2]) if hf[0] else source,
            revision="main" if hf[0] else "releases",
            files=tuple(item.name for item in self.files if not item.optional),
            extra_files=tuple(item.name for item in self.files if item.optional),
            size_bytes=self._download_bytes(),
            licence=self.licence,
        )

    def _download_bytes(self) -> int:
        packed = any(not item.hf and not item.release for item in self.files)
        if packed and self.archive:
            alone = sum(item.size for item in self.files if item.release)
            return self.archive.size + alone
        return sum(item.size for item in self.files)


def read(text: str) -> tuple[Entry, ...]:
    """The models of a catalogue in TOML.

    Raises:
        ValueError: it is none; the text says where.
    """
    try:
        tables = tomllib.loads(text)
        return tuple(msgspec.convert(tables.get("model", []), list[Entry]))
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from None


ENTRIES: tuple[Entry, ...] = read(
    resources.files(__package__).joinpath("models.toml").read_text("utf-8")
)


def find(name: str) -> Entry | None:
    """The model of this name, in upper or lower case."""
    wanted = name.strip().lower()
    return next((entry for entry in ENTRIES if entry.name == wanted), None)


def of_role(role: ModelRole) -> tuple[Entry, ...]:
    """The models for a role, the best first."""
    return tuple(entry for entry in ENTRIES if entry.role == role)


STREAMING_MODEL: Final = "zh-small"
"""What is downloaded for a start where no streaming model is here: the quickest step up."""
OFFLINE_MODEL: Final = "sensevoice-int8"
VOICE_MODEL: Final = "voice-zh-en"
