# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share: a small model on disk, and the clips that a machine may have."""

import os
from pathlib import Path

import pytest

from smoothdino_model.weights.checkpoint import save_model
from support.tiny_networks import tiny_smoothdino


@pytest.fixture(scope='session')
def tiny_model_dir(tmp_path_factory) -> Path:
    """A directory with a small random model and its adapter; it loads in well under a second."""
    directory = tmp_path_factory.mktemp('tiny_model')
    save_model(tiny_smoothdino(), directory)
    return directory


@pytest.fixture(scope='session')
def nyu_root() -> Path:
    root = os.environ.get('NYU_ROOT')
    if not root:
        pytest.skip('NYU_ROOT is not set: it names the folder with nyu2_train/')
    return Path(root)
