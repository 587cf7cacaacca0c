"""Where the models' files are on the sites that have them.

Three layouts are known: Hugging Face's (single files), that of the releases of sherpa-onnx
(archives, with a ``checksum.txt`` in most), and ModelScope's, which has both in the publisher's
repositories, the archives in one by the name of the release (``csukuangfj/asr-models``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import quote, urlsplit

import httpx

from app.core.errors import EngineNotUsable
from app.engines.sherpa.catalogue import Archive, Item

Layout = Literal["hf", "release", "modelscope"]

PUBLISHERS: Final = (
    "hf=https://huggingface.co,"
    "release=https://github.com/k2-fsa/sherpa-onnx/releases/download,"
    "modelscope=https://modelscope.cn/models"
)
"""What an empty setting stands for."""

_OWNER: Final = "csukuangfj"
_CHECKSUMS: Final = "checksum.txt"
_ALLOWED_IN_A_PATH: Final = "/:@+,=~"


@dataclass(frozen=True, slots=True)
class Mirror:
    """A site, and how it is laid out. ``base``: its address without a slash at the end."""

    layout: Layout
    base: str

    def file_url(self, item: Item) -> str | None:
        """Where a single file is; None if not here."""
        if item.hf and self.layout != "release":
            return self._in_repository(item.hf)
        return self.release_url(item.release) if item.release else None

    def archive_url(self, archive: Archive) -> str | None:
        """Where an archive is; None if not here."""
        return self.release_url(archive.path)

    def checksums_url(self, path: str) -> str | None:
        """Where the checksums of the release are that ``path`` is in; None if not here."""
        return self.release_url(f"{path.partition('/')[0]}/{_CHECKSUMS}")

    def release_url(self, path: str) -> str | None:
        """Where a file of a release is (``TAG/NAME``); None if not here."""
        if self.layout == "release":
            return f"{self.base}/{quote(path, safe=_ALLOWED_IN_A_PATH)}"
        return self._in_repository(f"{_OWNER}/{path}") if self.layout == "modelscope" else None

    def _in_repository(self, path: str) -> str:
        owner, repository, file = path.split("/", 2)
        branch = "main" if self.layout == "hf" else "master"
        rest = quote(file, safe=_ALLOWED_IN_A_PATH)
        return f"{self.base}/{owner}/{repository}/resolve/{branch}/{rest}"


def parse(text: str) -> tuple[Mirror, ...]:
    """The mirrors of SHERPA_MIRRORS, in its order; the publishers' own sites for an empty one. An
    address may have a user and a password, which are not shown.

    Raises:
        EngineNotUsable: it is not a list of ``LAYOUT=URL``.
    """
    parts = [part.strip() for part in (text.strip() or PUBLISHERS).split(",")]
    mirrors = tuple(_mirror(part) for part in parts if part)
    if not mirrors:
        raise EngineNotUsable("SHERPA_MIRRORS has no hf=URL, release=URL or modelscope=URL")
    return mirrors


def _mirror(part: str) -> Mirror:
    kind, _, base = part.partition("=")
    layout = next((known for known in get_args(Layout) if known == kind.strip().lower()), None)
    if layout is None:
        raise EngineNotUsable(
            f"SHERPA_MIRRORS: {_shown(part)!r} is not hf=URL, release=URL or modelscope=URL"
        )
    base = base.strip().rstrip("/")
    if not _is_site(base):
        raise EngineNotUsable(
            f"SHERPA_MIRRORS: {_shown(base)!r} is no address like https://HOST or https://HOST/PATH"
        )
    return Mirror(layout, base)


def _shown(text: str) -> str:
    return text.rpartition("@")[2][:80]


def _is_site(base: str) -> bool:
    try:
        url = httpx.URL(base)
        scheme, host = url.scheme, url.host  # which decodes names of other scripts
        urlsplit(base)  # which refuses half an IPv6 address
    except (httpx.InvalidURL, ValueError):
        return False
    plain = base.isascii() and " " not in base and "?" not in base and "#" not in base
    return plain and scheme in ("http", "https") and bool(host)
