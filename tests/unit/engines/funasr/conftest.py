"""Small models with random weights, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.random_paraformer import write_streaming


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The models are small, and other tests want the cores as well."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def streaming_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A streaming Paraformer."""
    return write_streaming(tmp_path_factory.mktemp("streaming"))
