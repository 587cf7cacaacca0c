"""FunASR's voice activity detection (FSMN), for many streams in one call.

The network after funasr 1.4.16, ``fsmn_vad_streaming/encoder.py``; of FunASR only this: where a
sentence begins and ends is decided by the caller, by its own rules.

A stream's rows stack five frames, one row for each frame (10 ms). A window of 60 ms completes six
rows; its last one ends 20 ms before the window's end. The first window of a stream has only two:

    window before     window                 frames 0 … 9 of both, rows of five
    ├────────────────┼────────────────┤      row i: frames i … i + 4
    0  1  2  3  4  5  6  7  8  9             first window: frames 0 … 5 are copies of frame 6,
                                             rows 0 … 3 are not there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.audio.pcm import Float32
from app.engines.base import Progress
from app.engines.funasr.background import Background
from app.engines.funasr.checkpoint import (
    Blocks,
    Frontend,
    Hidden,
    Kernel,
    Strict,
    Width,
    architecture,
    load_weights,
    read_config,
    read_normalisation,
)
from app.engines.funasr.features import MELS, LogMel
from app.engines.funasr.settings import FunasrOptions

WINDOW_SAMPLES: Final = 960
_STACK: Final = 5
_ROWS: Final = 6
_FRAMES: Final = _ROWS + _STACK - 1
_FIRST_FRAME: Final = 6
"""Of a stream, in its first window."""
_FIRST_ROW: Final = _FIRST_FRAME - (_STACK - 1) // 2


class VadFrontend(Frontend, frozen=True, kw_only=True):
    """``frontend_conf``: rows of five frames, one for each."""

    fs: Literal[16000] = 16000
    lfr_m: Literal[5]
    lfr_n: Literal[1]


class NetworkConfig(Strict, frozen=True, kw_only=True):
    """``encoder_conf`` of ``FSMN``: channels of the layers, and the frames that a memory has."""

    input_dim: Literal[400]
    input_affine_dim: Hidden
    fsmn_layers: Blocks
    linear_dim: Width
    proj_dim: Width
    lorder: Kernel
    rorder: Literal[0]
    lstride: Literal[1]
    rstride: int
    output_affine_dim: Hidden
    output_dim: Hidden
    use_softmax: Literal[True] = True


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``model_conf``: which outputs are silence."""

    sil_pdf_ids: tuple[int, ...] = (0,)


class VadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """config.yaml of fsmn-vad."""

    model: Literal["FsmnVADStreaming"]
    model_conf: ModelConfig
    encoder: Literal["FSMN"]
    encoder_conf: NetworkConfig
    frontend: Literal["WavFrontendOnline"]
    frontend_conf: VadFrontend

    def __post_init__(self) -> None:
        silent = self.model_conf.sil_pdf_ids
        if not silent or not all(0 <= pdf < self.encoder_conf.output_dim for pdf in silent):
            raise ValueError("sil_pdf_ids must be outputs of the encoder")


class _Wrapped(nn.Module):
    """A linear layer one level further down, where the checkpoint has it."""

    def __init__(self, in_width: int, out_width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_width, out_width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


class _Convolution(nn.Module):
    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.conv_left = nn.Conv2d(width, width, (frames, 1), groups=width, bias=False)


class _Block(nn.Module):
    """A memory of the last frames between two linear layers."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.linear = _Wrapped(config.linear_dim, config.proj_dim, bias=False)
        self.fsmn_block = _Convolution(config.proj_dim, config.lorder)
        self.affine = _Wrapped(config.proj_dim, config.linear_dim)

    def forward(self, x: Tensor, past: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """(b, t, linear_dim), unchanged in shape, and the memory that follows ``past``
        (b, lorder - 1, proj_dim)."""
        inner = self.linear(x) * keep
        context = torch.cat([past, inner], dim=1)
        weight = self.fsmn_block.conv_left.weight.squeeze(3)
        heard = functional.conv1d(context.transpose(1, 2), weight, groups=len(weight))
        out = self.affine(inner + heard.transpose(1, 2)).relu()
        return out, context[:, x.shape[1] :]


class _Encoder(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.in_linear1 = _Wrapped(config.input_dim, config.input_affine_dim)
        self.in_linear2 = _Wrapped(config.input_affine_dim, config.linear_dim)
        self.fsmn = nn.ModuleList(_Block(config) for _ in range(config.fsmn_layers))
        self.out_linear1 = _Wrapped(config.linear_dim, config.output_affine_dim)
        self.out_linear2 = _Wrapped(config.output_affine_dim, config.output_dim)


class VadNetwork(nn.Module):
    """The checkpoint of fsmn-vad loads into this."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Posteriors (b, t, output_dim) of the rows ``x`` (b, t, 400), and the memory after them.

        ``memory``: (b, layers, lorder - 1, proj_dim), zeros for a new stream. ``keep`` (b, t, 1):
        0.0 for rows before a stream's first one, else 1.0.
        """
        encoder = self.encoder
        x = encoder.in_linear2(encoder.in_linear1(x)).relu()
        pasts = []
        for block, past in zip(encoder.fsmn, memory.unbind(1), strict=True):
            x, past = block(x, past, keep)
            pasts.append(past)
        scores = encoder.out_linear2(encoder.out_linear1(x))
        return scores.softmax(2), torch.stack(pasts, dim=1)


@dataclass(slots=True, eq=False)
class VadState:
    """What is remembered of one stream: its last window and the memories of the layers; None as
    long as nothing has been heard of it."""

    audio: Tensor | None = None
    memory: Tensor | None = None


class FsmnDetector:
    """An :class:`app.engines.base.VoiceDetector`. All streams share the network; what belongs to
    one is in its :class:`VadState`."""

    def __init__(
        self,
        network: VadNetwork,
        config: VadConfig,
        normalisation: tuple[Tensor, Tensor] | None,
        background: Background,
    ) -> None:
        self._background = background
        device = background.device
        self._network = network.eval().requires_grad_(False).to(device)
        self._log_mel = LogMel().to(device)
        self._silence = torch.tensor(config.model_conf.sil_pdf_ids, device=device)
        width = _STACK * MELS
        shift, scale = normalisation or (torch.zeros(width), torch.ones(width))
        self._shift, self._scale = shift.to(device), scale.to(device)
        shape = config.encoder_conf
        self._no_audio = torch.zeros(WINDOW_SAMPLES, device=device)
        self._no_memory = torch.zeros(
            shape.fsmn_layers, shape.lorder - 1, shape.proj_dim, device=device
        )
        self._frame = torch.arange(_FRAMES, device=device)
        self._row = torch.arange(_ROWS, device=device)

    @property
    def window_samples(self) -> int:
        """Samples per probability: 60 ms."""
        return WINDOW_SAMPLES

    def new_state(self) -> VadState:
        """Of a stream of which nothing has been heard."""
        return VadState()

    def probabilities(self, states: Sequence[object], windows: Float32) -> Float32:
        """The probability of speech in the next window of each stream, shape (n,): 1 less the mean
        probability of silence in the window's rows. A state must not occur twice. Samples that are
        no numbers count as silence, so that they do not stay in a stream's memory."""
        silence, there = self.silence(states, windows)
        mean = (silence * there).sum(1) / there.sum(1)
        found: Float32 = (1.0 - mean).clamp(0.0, 1.0).cpu().numpy()
        return found

    def silence(self, states: Sequence[object], windows: Float32) -> tuple[Tensor, Tensor]:
        """The probability of silence in each row of the windows (n, 6), and 1.0 for those rows that
        are there, 0.0 for those before a stream's beginning."""
        if not states:
            nothing = torch.zeros(0, _ROWS)
            return nothing, nothing
        with self._background.running():
            return self._heard([_known(state) for state in states], windows)

    def _heard(self, states: Sequence[VadState], windows: Float32) -> tuple[Tensor, Tensor]:
        device = self._background.device
        new = torch.tensor(windows, device=device).nan_to_num(0.0, 0.0, 0.0)
        before = [self._no_audio if state.audio is None else state.audio for state in states]
        pasts = [self._no_memory if state.memory is None else state.memory for state in states]
        first = torch.tensor([state.audio is None for state in states], device=device)[:, None]
        audio = torch.cat([torch.stack(before), new], dim=1)
        keep = (self._row >= torch.where(first, _FIRST_ROW, 0)).float()
        x = self._rows(audio, first)
        posteriors, memory = self._network(x, torch.stack(pasts), keep[:, :, None])
        for state, samples, past in zip(states, new, memory, strict=True):
            # Copies: a view would keep the whole batch in memory.
            state.audio, state.memory = samples.clone(), past.clone()
        return posteriors[:, :, self._silence].sum(2), keep

    def _rows(self, audio: Tensor, first: Tensor) -> Tensor:
        frames = self._log_mel(audio)
        number = torch.maximum(self._frame, torch.where(first, _FIRST_FRAME, 0))
        frames = frames.gather(1, number[:, :, None].expand(-1, -1, MELS))
        stacked = frames.unfold(1, _STACK, 1).transpose(2, 3).flatten(2)
        scaled: Tensor = (stacked + self._shift) * self._scale
        return scaled


def _known(state: object) -> VadState:
    if not isinstance(state, VadState):
        raise TypeError("this is not a state of the FSMN detector")
    return state


def load_detector(
    folder: Path, device: str, options: FunasrOptions, progress: Progress
) -> FsmnDetector:
    """The voice activity detection that ``folder`` has, always in fp32.

    ``device`` is ``cpu`` or ``cuda:0``. Slow and blocking.

    Raises:
        EngineNotUsable: a file is missing or damaged, or the model is not one that is known.
    """
    progress(f"loading {folder.name}")
    config = architecture(folder, read_config(folder), VadConfig)
    network = VadNetwork(config.encoder_conf)
    load_weights(network, folder)
    normalisation = read_normalisation(folder, _STACK * MELS)
    return FsmnDetector(network, config, normalisation, Background(device, options.threads))
