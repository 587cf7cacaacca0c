"""Brings a model's files into its folder: from one mirror after the other, until all are there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.engines import downloads, manifest
from app.engines.models import Advance, Report
from app.engines.reading import size_of
from app.engines.sherpa.catalogue import Archive, Entry, Item
from app.engines.sherpa.fetch import Fetcher, FetchFailed, Part, Tell
from app.engines.sherpa.mirrors import Mirror
from app.engines.sherpa.unpack import UnpackFailed, unpack

_SPARE_BYTES: Final = 1_000_000
_UNKNOWN_BYTES: Final = 64_000_000
"""What a file may have whose size is not known: those are lists of words and tokens."""
_UNPACKED: Final = 8
"""So many times its own size an archive may have unpacked."""
_CHECKSUMS_BYTES: Final = 1_000_000
_SHA256_DIGITS: Final = 64


class NotOnMirrors(FetchFailed):
    """None of the mirrors has a place for a file: none was asked for it."""


class Delivery:
    """What has come of one model. ``fetched``: bytes that were downloaded; ``published``: the files
    that were compared with a checksum of the publisher's, alone or as parts of an archive;
    ``came``: all that are new."""

    def __init__(self, entry: Entry, folder: Path, report: Report) -> None:
        self.fetched = 0
        self.published: set[str] = set()
        self.came: set[str] = set()
        self._entry = entry
        self._folder = folder
        self._report = report
        self._total = 0

    def missing(self) -> list[Item]:
        """The files that the model cannot do without."""
        return [item for item in self._absent() if not item.optional]

    def check_present(self) -> None:
        """Take away what is there already and does not have the checksum that the catalogue has.

        Raises:
            OSError: a file cannot be read, or taken away.
        """
        items = [item for item in self._entry.files if item.sha256 and self._size(item)]
        before, total = 0, sum(map(self._size, items))
        for item in items:
            path, size, begin = self._folder / item.name, self._size(item), before

            def advance(done: int, begin: int = begin) -> None:
                self._report(Advance(self._entry.name, "checking", begin + done, total))

            if manifest.sha256(path, advance) == item.sha256:
                self.published.add(item.name)
            else:
                path.unlink()
            before += size

    def bring(self, mirrors: Sequence[Mirror]) -> None:
        """Fetch what is missing.

        Raises:
            FetchFailed: no mirror has all of it, or there is no room; the text has all reasons.
            NotOnMirrors: by their layouts they cannot have all of it.
            OSError: a file cannot be written.
        """
        reasons: list[str] = []
        with Fetcher() as fetcher:
            for mirror in mirrors:
                if self._absent():
                    try:
                        self._bring_from(mirror, fetcher)
                    except FetchFailed as error:
                        reasons.append(str(error))
        if left := self.missing():
            names = ", ".join(item.name for item in left)
            if reasons:
                raise FetchFailed("; ".join(reasons))
            raise NotOnMirrors(f"no mirror of SHERPA_MIRRORS has {names}")

    def clear(self) -> None:
        """Take away what earlier attempts have left beside the files. Raises OSError."""
        for target in _targets(self._entry, self._folder):
            Part(target).discard()
        if self._entry.archive:
            (self._folder / self._entry.archive.name).unlink(missing_ok=True)

    def _bring_from(self, mirror: Mirror, fetcher: Fetcher) -> None:
        alone = [(item, url) for item in self._absent() if (url := mirror.file_url(item))]
        self._check_room(alone)
        self._total = self._expected([item for item, _ in alone], mirror)
        failure: FetchFailed | None = None
        for item, url in alone:
            try:
                self._bring_file(item, url, mirror, fetcher)
            except FetchFailed as error:
                if not item.optional:
                    failure = error
                    break
        archive = self._entry.archive
        packed = [item for item in self.missing() if not item.release]
        if packed and archive and (url := mirror.archive_url(archive)):
            self._bring_archive(archive, url, mirror, fetcher)
        if failure and self.missing():
            raise failure

    def _bring_file(self, item: Item, url: str, mirror: Mirror, fetcher: Fetcher) -> None:
        sha256 = item.sha256
        if not sha256 and not item.hf:
            sha256 = self._told_sum(item.release, mirror, fetcher)
        target = self._folder / item.name
        most = _most_bytes(item.size or _UNKNOWN_BYTES)
        fetcher.file(url, target, most_bytes=most, sha256=sha256, tell=self._teller(item.size))
        self.fetched += size_of(target) or 0
        self.came.add(item.name)
        if sha256:
            self.published.add(item.name)

    def _bring_archive(self, archive: Archive, url: str, mirror: Mirror, fetcher: Fetcher) -> None:
        target = self._folder / archive.name
        sha256 = archive.sha256 or self._told_sum(archive.path, mirror, fetcher)
        self._check_room([], archive)
        tell = self._teller(archive.size)
        if not size_of(target):  # else an earlier run was broken off while it unpacked
            most = _most_bytes(archive.size)
            fetcher.file(url, target, most_bytes=most, sha256=sha256, tell=tell)
            self.fetched += size_of(target) or 0
        wanted = [item.name for item in self._absent() if not item.release]
        size = size_of(target) or 0
        try:
            found = unpack(
                target,
                self._folder,
                wanted,
                most_bytes=archive.size * _UNPACKED + _UNKNOWN_BYTES,
                advance=lambda done: tell("unpacking", done, size),
            )
        except UnpackFailed as error:
            target.unlink()
            raise FetchFailed(f"{archive.name}: {error}") from None
        target.unlink()
        self.came |= found
        if sha256:
            self.published |= found
        lacking = [item.name for item in self.missing() if not item.release]
        if lacking:
            raise FetchFailed(f"{archive.name} has no {', '.join(lacking)}")

    def _expected(self, alone: Sequence[Item], mirror: Mirror) -> int:
        """Bytes of the whole download, with what has come: single files, and the archive where what
        else is missing comes out of it."""
        total = self.fetched + sum(item.size for item in alone)
        archive = self._entry.archive
        packed = any(item not in alone and not item.release for item in self.missing())
        return total + archive.size if packed and archive and mirror.archive_url(archive) else total

    def _teller(self, expected: int) -> Tell:
        """Reports on the next part of the download, of ``expected`` bytes: its progress is that of
        the whole, any other work on it counts by itself."""
        before = self.fetched

        def tell(doing: str, done: int, size: int) -> None:
            if doing == "downloading":
                done, size = before + done, max(self._total, before + (size or expected))
            self._report(Advance(self._entry.name, doing, done, max(size, done)))

        return tell

    def _told_sum(self, path: str, mirror: Mirror, fetcher: Fetcher) -> str:
        """What the release says of one of its files in checksum.txt; empty if it says nothing."""
        url = mirror.checksums_url(path)
        try:
            text = fetcher.text(url, _CHECKSUMS_BYTES) if url else ""
        except FetchFailed:
            return ""
        name = path.rpartition("/")[2]
        for words in map(str.split, text.splitlines()):
            if name in words:
                return next((word.lower() for word in words if _is_sum(word)), "")
        return ""

    def _absent(self) -> list[Item]:
        return [item for item in self._entry.files if not self._size(item)]

    def _size(self, item: Item) -> int:
        return size_of(self._folder / item.name) or 0

    def _check_room(
        self, alone: Sequence[tuple[Item, str]], archive: Archive | None = None
    ) -> None:
        if archive:
            wanted = archive.size - self._there(archive.name)
            wanted += self._unpacked(archive)
        else:
            wanted = sum(max(item.size - self._there(item.name), 0) for item, _ in alone)
        if lacking := downloads.lacking_room(self._folder, wanted):
            raise FetchFailed(lacking)

    def _unpacked(self, archive: Archive) -> int:
        """Bytes of what the archive leaves; where not all sizes are known, at least its own."""
        items = [item for item in self._absent() if not item.release]
        known = sum(item.size for item in items)
        return known if all(item.size for item in items) else max(known, archive.size)

    def _there(self, name: str) -> int:
        target = self._folder / name
        return size_of(target) or Part(target).size


def _most_bytes(size: int) -> int:
    """What may come in place of a size that is rounded."""
    return size + size // 10 + _SPARE_BYTES


def _is_sum(word: str) -> bool:
    return len(word) == _SHA256_DIGITS and set(word.lower()) <= set("0123456789abcdef")


def make_way(entry: Entry, folder: Path) -> None:
    """Take away what files cannot come in the place of, and links that would be written through.

    Raises:
        EngineNotUsable: there is a folder where a file belongs.
        OSError: something cannot be taken away.
    """
    for target in _targets(entry, folder):
        if os.path.lexists(target) and size_of(target) is None:
            downloads.remove(entry.model, target)
        for path in Part.paths(target):
            if path.is_symlink() or (os.path.lexists(path) and size_of(path) is None):
                downloads.remove(entry.model, path)


def _targets(entry: Entry, folder: Path) -> list[Path]:
    targets = [folder / item.name for item in entry.files]
    return [*targets, folder / entry.archive.name] if entry.archive else targets
