"""Pre-built pocketsphinx decoders, lent one to a sentence.

Building one takes 0.2 to 0.5 s and 95 MB, too long while somebody speaks. The first is built
before the constructor returns, so that the server is soon ready; the others in a thread, each as
soon as nobody has spoken for half a second, or at once if somebody waits for one. They wait for
quiet because pocketsphinx never releases the GIL: all threads of the worker stand still during a
build, and built in one go they would delay the first requests by a second. So only a sentence that
begins beside others soon after the start waits in :meth:`DecoderPool.lend`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import pocketsphinx
import structlog

from app.engines.base import Progress

log = structlog.get_logger(__name__)

SAMPLE_RATE: Final = 16_000

_QUIET_S: Final = 0.5


class DecodedText(Protocol):
    """What ``Decoder.hyp`` returns: the words, without fillers and pronunciation numbers."""

    @property
    def hypstr(self) -> str: ...


class DecodedSegment(Protocol):
    """What ``Decoder.seg`` yields: one word or filler, in frames of 10 ms, both included."""

    @property
    def word(self) -> str: ...
    @property
    def start_frame(self) -> int: ...
    @property
    def end_frame(self) -> int: ...


class Decoder(Protocol):
    """The part of ``pocketsphinx.Decoder`` that is used here."""

    def reinit_feat(self) -> None: ...
    def start_utt(self) -> None: ...
    def process_raw(self, data: bytes) -> object: ...
    def end_utt(self) -> None: ...
    def hyp(self) -> DecodedText | None: ...
    def seg(self) -> Iterable[DecodedSegment] | None: ...


def build_decoder() -> Decoder:
    """A decoder for the English model in the package, with settings for live use.

    On 40 sentences of four flite voices, these settings against the defaults: 22 % of words wrong
    against 18 %, half the CPU time, and above all 5 ms instead of 100 ms for the end of a sentence
    (the second search, ``fwdflat``), during which no other stream would be served.
    """
    decoder: Decoder = pocketsphinx.Decoder(
        samprate=SAMPLE_RATE,
        loglevel="FATAL",
        maxhmmpf=3000,
        maxwpf=5,
        ds=2,
        fwdflat=False,
    )
    return decoder


class DecoderPool:
    """``size`` decoders. Any thread."""

    def __init__(
        self, size: int, progress: Progress, build: Callable[[], Decoder] = build_decoder
    ) -> None:
        self.size = size
        self._build = build
        self._changed = threading.Condition()
        self._lent = 0
        self._waiting = 0
        self._failure: Exception | None = None
        progress("pocketsphinx: first decoder")
        self._free = [build()]
        # A daemon, so that a worker that stops need not wait for it.
        threading.Thread(target=self._build_others, name="build-decoders", daemon=True).start()

    def lend(self) -> Decoder:
        """A decoder in its first state: nothing of the speaker before is left in it.

        Raises:
            RuntimeError: all are lent, or another could not be built.
        """
        with self._changed:
            if self._lent == self.size:
                raise RuntimeError("all decoders are in use")
            self._lent += 1
            try:
                decoder = self._take()
            except BaseException:
                self._lent -= 1
                raise
        # Mean normalisation and noise tracking adapt to the speaker and carry over otherwise: the
        # same clip then gets another text. set_cmn resets only the first of the two.
        try:
            decoder.reinit_feat()
            decoder.start_utt()
        except BaseException:
            self.give_back(decoder)
            raise
        return decoder

    def give_back(self, decoder: Decoder) -> None:
        """Take back a decoder whose utterance has ended."""
        with self._changed:
            self._lent -= 1
            self._free.append(decoder)
            self._changed.notify_all()

    def _take(self) -> Decoder:
        self._waiting += 1
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: self._free or self._failure)
        finally:
            self._waiting -= 1
        return self._free.pop() if self._free else self._build_again()

    def _build_again(self) -> Decoder:
        """The thread has given up; whoever needs a decoder tries once more."""
        try:
            return self._build()
        except Exception as error:
            raise RuntimeError("a decoder could not be built") from error

    def _build_others(self) -> None:
        try:
            for _ in range(self.size - 1):
                self._wait_for_quiet()
                decoder = self._build()
                with self._changed:
                    self._free.append(decoder)
                    self._changed.notify_all()
        except Exception as error:
            log.exception("a pocketsphinx decoder could not be built")
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _wait_for_quiet(self) -> None:
        with self._changed:
            while not self._waiting > len(self._free):
                happened = self._changed.wait(_QUIET_S)
                if not happened and not self._lent:
                    return
