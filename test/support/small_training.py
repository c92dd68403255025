# SPDX-License-Identifier: Apache-2.0
"""Shipped training configurations made small enough for a test, and a moving clip for them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from training import train

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / 'training' / 'configs'


def write_moving_clip(folder: Path, n_frames: int, *, height: int = 56, width: int = 70) -> None:
    """Write <i>.jpg|png from 1 on: a texture that moves by (2, 1) px per frame, and its depth."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(size=(height + 99, width + 99, 3)), (0, 0), 2)
    texture = (128 + 60 * texture / texture.std()).clip(0, 255).astype(np.uint8)
    for i in range(1, n_frames + 1):
        seen = texture[99 - i : 99 - i + height, 99 - 2 * i : 99 - 2 * i + width]
        assert cv2.imwrite(str(folder / f'{i}.jpg'), seen)
        assert cv2.imwrite(str(folder / f'{i}.png'), seen[..., 0].astype('u2') + 2000 + 10 * i)


def small(config: str, changes: dict, folder: Path) -> Path:
    """Write a shipped configuration with changes, {'data.windows.size': …}, and no early stop."""
    settings = yaml.safe_load((CONFIGS / config).read_text())
    settings['trainer']['callbacks'] = [
        callback
        for callback in settings['trainer']['callbacks']
        if not callback['class_path'].endswith('EarlyStopping')
    ]
    standing = {
        'trainer.accelerator': 'cpu',
        'trainer.enable_progress_bar': False,
        'trainer.enable_model_summary': False,
        'trainer.log_every_n_steps': 1,
        'model.input_height': 56,
        'data.windows.size': [56, 70],
        'data.num_workers': 0,
    }
    for key, value in (standing | changes).items():
        *path, last = key.split('.')
        at = settings
        for name in path:
            at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
        at[int(last) if isinstance(at, list) else last] = value
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / 'small.yaml'
    file.write_text(yaml.safe_dump(settings))
    return file


def fit(config: Path, *arguments: str) -> None:
    """Train in the configuration's folder, in this process, on one thread as the others do."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(config.parent)
            patch.setattr(sys, 'argv', sys.argv[:1])  # Lightning warns of a test's own arguments
            train.main(['fit', '--config', config.name, *arguments])
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, handler)


def start(config: Path, *arguments: str, module: str = 'training.train') -> subprocess.Popen:
    """The same in a process of its own."""
    paths = [str(REPOSITORY), str(REPOSITORY / 'test')]
    return subprocess.Popen(
        [sys.executable, '-m', module, 'fit', '--config', config.name, *arguments],
        cwd=config.parent,
        env=os.environ | {'PYTHONPATH': os.pathsep.join(paths), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
