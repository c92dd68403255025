# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the model."""

import shutil

import pytest


@pytest.fixture
def directory(tmp_path, tiny_model_dir):
    """A whole model directory that a test may spoil."""
    return shutil.copytree(tiny_model_dir, tmp_path / 'model')
