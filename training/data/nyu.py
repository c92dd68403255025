# SPDX-License-Identifier: Apache-2.0
"""NYUv2 as Kaggle distributes it: ``nyu2_train/<scene>/<i>.jpg|png``, 8-bit depth, 255 = 10 m."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from training.data.clips import TRAINED_FOCAL, Window

MAX_DEPTH_M = 10.0


class NyuWindows:
    """Windows from contiguous blocks of frames, some of them kept out of training.

    Every fifth block of ``block`` frames of a scene is for validation; training leaves out
    ``margin`` frames on each side of it, because neighbouring frames show nearly the same.
    ``root`` is by default the folder that the environment variable ``NYU_ROOT`` names.
    """

    def __init__(
        self, root: str | Path | None = None, *, part: str, block: int = 20, margin: int = 3
    ) -> None:
        if part not in ('train', 'val'):
            raise ValueError(f"part: expected 'train' or 'val', got {part!r}")
        root = root or os.environ.get('NYU_ROOT')
        if not root:
            raise ValueError('expected the folder that holds nyu2_train/: give it or set NYU_ROOT')
        scenes = sorted(path for path in (Path(root) / 'nyu2_train').glob('*') if path.is_dir())
        self.blocks = [run for scene in scenes for run in _runs(scene, part, block, margin)]
        if not self.blocks:
            raise ValueError(f'{root}: expected nyu2_train/<scene>/<i>.jpg with <i>.png, got none')

    def window(self, rng: np.random.Generator, length: int, stride: int) -> Window:
        """Draw ``length`` frames, ``stride`` apart where the block is long enough."""
        block = self.blocks[rng.integers(len(self.blocks))]
        stride = max(1, min(stride, (len(block) - 1) // max(1, length - 1)))
        start = rng.integers(len(block) - (length - 1) * stride)
        return read_window(block[start : start + (length - 1) * stride + 1 : stride])


def _runs(scene: Path, part: str, block: int, margin: int) -> list[list[Path]]:
    images = sorted(
        (path for path in scene.glob('*.jpg') if path.with_suffix('.png').exists()),
        key=lambda path: int(path.stem),
    )
    runs = []
    n_blocks = -(-len(images) // block)
    for number in range(n_blocks):
        first, last = number * block, (number + 1) * block
        held_out = number % 5 == 4
        if held_out != (part == 'val'):
            continue
        if not held_out:  # keep away from the held-out neighbours
            first += margin if number and (number - 1) % 5 == 4 else 0
            last -= margin if (number + 1) % 5 == 4 else 0
        run = images[first:last]
        if len(run) >= 10:
            runs.append(run)
    return runs


def read_window(images: list[Path]) -> Window:
    """Read pictures and the depth beside them; raises ``ValueError`` for a broken one."""
    bgr = np.stack([_read(path, cv2.IMREAD_COLOR) for path in images])
    stored = np.stack([_read(path.with_suffix('.png'), cv2.IMREAD_GRAYSCALE) for path in images])
    depth_m = stored.astype(np.float32) * (MAX_DEPTH_M / 255)
    depth_m[stored == 0] = np.nan
    return Window(bgr[..., ::-1], depth_m, TRAINED_FOCAL)


def _read(path: Path, mode: int) -> np.ndarray:
    image = cv2.imread(str(path), mode)
    if image is None:
        raise ValueError(f'{path}: expected a picture that OpenCV can read')
    return image
