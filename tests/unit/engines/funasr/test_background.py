"""Where what can wait is computed."""

from __future__ import annotations

import threading

import pytest
import torch

from app.engines.funasr.background import Background


def test_threads_are_said_in_the_thread_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(
        torch, "set_num_threads", lambda count: said.append((threading.get_ident(), count))
    )
    background = Background("cpu", 3)
    assert said == []
    with background.running():
        assert torch.is_inference_mode_enabled()
    assert not torch.is_inference_mode_enabled()
    with Background("cpu", 0).running():
        pass
    assert said == [(threading.get_ident(), 3)]
