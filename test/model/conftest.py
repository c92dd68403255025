# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the model."""

import shutil

import pytest

from smoothdino_model.cli.main import main


@pytest.fixture
def directory(tmp_path, tiny_model_dir):
    """A whole model directory that a test may spoil."""
    return shutil.copytree(tiny_model_dir, tmp_path / 'model')


@pytest.fixture
def bag(tmp_path, tiny_model_dir):
    """Runs the command on a bag in this process; gives the exit code."""

    def run(source, out='out', *options) -> int:
        model = ('--model', tiny_model_dir, '--device', 'cpu')
        return main([str(one) for one in ('bag', source, tmp_path / out, *model, *options)])

    return run
