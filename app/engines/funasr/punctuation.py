"""Punctuation of recognised text (CT-Transformer), for many texts in one call.

After funasr 1.4.16, ``ct_transformer/model.py`` and ``ct_transformer_streaming/model.py``. A text
goes through the network in pieces of 20 tokens. What follows the last full stop of a piece is not
settled yet: it is heard again with the next piece. The n-th pieces of all texts are one batch.

Unlike FunASR: capitals inside of a word stay (``NBA``); there is no space before the first word,
nor ever after a Chinese mark; marks after a Latin word are ASCII ones in interim texts as well; and
text in other languages than Chinese and English comes out as it went in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from app.core.errors import EngineNotUsable
from app.engines.base import Progress
from app.engines.funasr.background import Background
from app.engines.funasr.checkpoint import architecture, load_weights, read_config, read_tokens
from app.engines.funasr.offline_config import PunctuationConfig
from app.engines.funasr.offline_layers import EncoderSize, WholeEncoder, rows_there
from app.engines.funasr.settings import FunasrOptions
from app.engines.funasr.splitting import read_words, split_characters

_PIECE: Final = 20
_LONGEST_UNSETTLED: Final = 200
"""Tokens without a full stop after which a comma becomes one."""
_NO_MARK: Final = "_"
_STOPS: Final = ("。", "？")
_COMMA: Final = "，"
_ASCII_MARKS: Final = {"，": ",", "。": ".", "？": "?"}
_UNKNOWN: Final = "<unk>"

Split = Callable[[str], list[str]]


class PunctuationNetwork(nn.Module):
    """The checkpoint of ct-punc loads into this. ``causal``: that of the model for interim texts,
    of whose blocks only the last one looks ahead."""

    def __init__(self, vocabulary: int, size: EncoderSize, marks: int, *, causal: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, size.in_width)
        self.encoder = WholeEncoder(size)
        self.decoder = nn.Linear(size.width, marks)
        self._causal = causal

    def forward(self, ids: Tensor, length: Tensor) -> Tensor:
        """The mark after each token, (b, t). ``ids`` (b, t), of which ``length`` (b,) count."""
        there = rows_there(length, ids.shape[1])
        mask = None
        if self._causal:
            square = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device)
            mask = there[:, None, None, :] & square.tril()
        encoded = self.encoder(self.embed(ids), there, mask)
        scores: Tensor = self.decoder(encoded)
        return scores.argmax(2)


@dataclass(frozen=True, slots=True)
class Marked:
    """A token and the mark after it, "" for none."""

    token: str
    mark: str


@dataclass(slots=True)
class _Text:
    """A text on its way: its tokens, how many of them went through the network, how many are
    settled, and those with their marks."""

    tokens: list[str]
    ids: list[int]
    heard: int = 0
    settled: int = 0
    marked: list[Marked] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return self.heard < len(self.tokens)

    def advance(self) -> list[int]:
        """The ids that are to be heard now."""
        self.heard = min(self.heard + _PIECE, len(self.tokens))
        return self.ids[self.settled : self.heard]

    def settle(self, marks: Sequence[str]) -> None:
        """``marks``: of the tokens from the first unsettled one on."""
        count = len(marks)
        if self.open:
            count, marks = _settled(marks)
        tokens = self.tokens[self.settled : self.settled + count]
        self.marked += [Marked(*pair) for pair in zip(tokens, marks[:count], strict=True)]
        self.settled += count


def _settled(marks: Sequence[str]) -> tuple[int, Sequence[str]]:
    """How many of the tokens are settled: up to the last full stop, not counting the last token
    and the first two."""
    inner = range(len(marks) - 2, 1, -1)
    stop = next((place for place in inner if marks[place] in _STOPS), None)
    if stop is not None:
        return stop + 1, marks
    comma = next((place for place in inner if marks[place] == _COMMA), None)
    if comma is None or len(marks) <= _LONGEST_UNSETTLED:
        return 0, marks
    return comma + 1, [*marks[:comma], _STOPS[0], *marks[comma + 1 :]]


class CtPunctuator:
    """An :class:`app.engines.base.Punctuator`.

    ``marks``: those that the network knows, by their number; ``_`` for none. ``final``: whether a
    text is a whole sentence, and gets a full stop; else the mark at its end is left out.
    """

    def __init__(
        self,
        network: PunctuationNetwork,
        tokens: Sequence[str],
        marks: Sequence[str],
        split: Split,
        background: Background,
        *,
        final: bool,
    ) -> None:
        self._network = network.eval().requires_grad_(False).to(background.device)
        self._ids = {token: number for number, token in enumerate(tokens)}
        self._unknown = self._ids[_UNKNOWN]
        self._marks = ["" if mark in (_NO_MARK, _UNKNOWN) else mark for mark in marks]
        self._split = split
        self._background = background
        self._written = written_final if final else written_interim

    def punctuate(self, texts: Sequence[str]) -> Sequence[str]:
        """Each text with punctuation, in order; empty ones stay empty, and those in other languages
        than Chinese and English as they are."""
        found = list(texts)
        under_way: dict[int, _Text] = {}
        for place, text in enumerate(texts):
            tokens = self._split(text) if _is_known(text) else []
            if tokens:
                ids = [self._ids.get(token, self._unknown) for token in tokens]
                under_way[place] = _Text(tokens, ids)
        with self._background.running():
            while batch := [some for some in under_way.values() if some.open]:
                self._hear(batch)
        for place, done in under_way.items():
            found[place] = self._written(done.marked)
        return found

    def _hear(self, batch: Sequence[_Text]) -> None:
        pieces = [text.advance() for text in batch]
        longest = max(len(piece) for piece in pieces)
        padded = [[*piece, *[0] * (longest - len(piece))] for piece in pieces]
        device = self._background.device
        length = torch.tensor([len(piece) for piece in pieces], device=device)
        numbers = self._network(torch.tensor(padded, device=device), length).tolist()
        for text, piece, row in zip(batch, pieces, numbers, strict=True):
            text.settle([self._marks[number] for number in row[: len(piece)]])


def written_final(marked: Sequence[Marked]) -> str:
    """A whole sentence: Latin words with spaces between them, a capital after each full stop, and
    a full stop at the end."""
    text = ""
    begins = True
    for place, (token, mark) in enumerate((item.token, item.mark) for item in marked):
        latin = token[0].isascii()
        if latin and place and marked[place - 1].token[0].isascii():
            text += " "
        text += token[0].upper() + token[1:] if latin and begins else token
        text += _ASCII_MARKS.get(mark, mark) if latin else mark
        begins = mark in _STOPS
    return _ended(text)


def _ended(text: str) -> str:
    if text.endswith(("，", "、")):
        return text[:-1] + "。"
    if text.endswith(","):
        return text[:-1] + "."
    if text.endswith(("。", "？", ".", "?")):
        return text
    return text + ("." if text[-1].isascii() else "。")


def written_interim(marked: Sequence[Marked]) -> str:
    """The beginning of a sentence: without a mark at its end, and without capitals of our own."""
    text = ""
    for place, (token, mark) in enumerate((item.token, item.mark) for item in marked):
        if place and token[0].isascii() and marked[place - 1].token[-1].isascii():
            text += " "
        text += token
        if place < len(marked) - 1:
            text += _ASCII_MARKS.get(mark, mark) if token[-1].isascii() else mark
    return text


def _is_known(text: str) -> bool:
    """Whether all letters are Latin ones without accents, or Chinese."""
    return all(char.isascii() or not char.isalpha() or _is_chinese(char) for char in text)


def _is_chinese(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK ")


def load_punctuator(
    folder: Path, device: str, options: FunasrOptions, progress: Progress, *, realtime: bool
) -> CtPunctuator:
    """The punctuation model that ``folder`` has, always in fp32.

    ``device`` is ``cpu`` or ``cuda:0``. ``realtime``: it is for interim texts, whatever kind of
    model it is. Slow and blocking.

    Raises:
        EngineNotUsable: a file is missing or damaged, or the model is not one that is known.
    """
    progress(f"loading {folder.name}")
    config = architecture(folder, read_config(folder), PunctuationConfig)
    tokens = read_tokens(folder)
    if _UNKNOWN not in tokens:
        raise EngineNotUsable(f"{folder / 'tokens.json'} is not usable: it has no {_UNKNOWN}")
    marks = config.model_conf.punc_list
    width = config.encoder_conf.input_size or config.model_conf.embed_unit
    causal = config.encoder == "SANMVadEncoder"
    network = PunctuationNetwork(
        len(tokens), config.encoder_conf.size(width), len(marks), causal=causal
    )
    load_weights(network, folder)
    words = None if causal else read_words(folder)
    return CtPunctuator(
        network,
        tokens,
        marks,
        words.split if words else split_characters,
        Background(device, options.threads),
        final=not realtime,
    )
