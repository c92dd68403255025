# SPDX-License-Identifier: Apache-2.0
"""The notebooks run offline, and what is saved of them was made by the model that is bundled."""

import base64
import hashlib
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from smoothdino_model.weights.hub import BUNDLED_MODELS

nbformat = pytest.importorskip('nbformat')
pytest.importorskip('nbclient')

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / 'notebooks'
MOST_BYTES = 600_000
by_name = pytest.mark.parametrize(('name', 'pictures'), [('demo', 2), ('ncut', 2)])


def weights() -> str:
    digest = hashlib.sha256()
    for path in sorted(BUNDLED_MODELS['smoothdino-small'].glob('*.safetensors')):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def outputs(notebook) -> tuple[str, list[np.ndarray]]:
    """What the cells printed, and their pictures."""
    all_outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    assert all(output.output_type in ('stream', 'display_data') for output in all_outputs)
    printed = ''.join(output.text for output in all_outputs if output.output_type == 'stream')
    encoded = [o.data['image/png'] for o in all_outputs if o.output_type == 'display_data']
    raw = [np.frombuffer(base64.b64decode(one), np.uint8) for one in encoded]
    return printed, [cv2.imdecode(one, cv2.IMREAD_COLOR) for one in raw]


@by_name
def test_a_notebook_runs_offline(name, pictures, monkeypatch):
    if name == 'ncut':
        pytest.importorskip('ncut_pytorch')
    monkeypatch.setenv('NOTEBOOK_FRAMES', '4')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    executed = runpy.run_path(str(FOLDER / 'save.py'))['executed']
    printed, shown = outputs(executed(FOLDER / f'{name}.ipynb'))
    assert f'weights {weights()}, 4 frames' in printed
    assert len(shown) == pictures
    for picture in shown:
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # not an empty frame


@by_name
def test_what_is_saved_is_of_the_bundled_model(name, pictures):
    path = FOLDER / f'{name}.ipynb'
    printed, shown = outputs(nbformat.read(path, 4))
    assert weights() in printed, 'the model has changed: run python notebooks/save.py'
    assert len(shown) == pictures
    assert path.stat().st_size < MOST_BYTES
    assert '/.venv/' not in path.read_text(encoding='utf-8')
