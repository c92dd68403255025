# SPDX-License-Identifier: Apache-2.0
"""What a surface looks like from where a pixel sees it: its texture, and the light on it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from smoothdino_model.room.scene import VOXELS
from smoothdino_model.room.textures import LEVEL_Y, PAD, TEXELS

_LEVEL_TOP = (LEVEL_Y[:-1] + PAD - 0.5).astype(np.float32)


def albedo_of(
    atlas: np.ndarray, u: np.ndarray, v: np.ndarray, level: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Albedo (H, W, 3) float32 at (u, v), from 0 to 1, of a texture's column in the atlas.

    It is mixed from the level of detail below ``level`` and the next one.
    """
    whole = level.astype(np.intp)
    part = level - np.floor(level)
    texels = []
    for step in (0, 1):
        index = whole + step
        edge = TEXELS.take(index)
        at_x, at_y = column + u * edge, _LEVEL_TOP.take(index) + v * edge
        texels.append(cv2.remap(atlas, at_x, at_y, cv2.INTER_LINEAR))
    root = cv2.blendLinear(texels[0], texels[1], 1 - part, part)
    return cv2.multiply(root, root, scale=1 / 255**2, dtype=cv2.CV_32F)


def light_at(volume: np.ndarray, at: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Ambient light and what of lamp and window is seen, (H, W) each, at (x, y, z) in voxels."""
    layer = np.floor(at[2])
    row = layer * np.float32(VOXELS[1]) + at[1]
    below = cv2.remap(volume, at[0], row, cv2.INTER_LINEAR)
    above = cv2.remap(volume, at[0], row + np.float32(VOXELS[1]), cv2.INTER_LINEAR)
    part = at[2] - layer
    return cv2.split(cv2.blendLinear(below, above, 1 - part, part))


def lit_from(
    source: np.ndarray, world: Sequence[np.ndarray], normal: Sequence[np.ndarray]
) -> np.ndarray:
    """How much of a source of light at (x, y, z) metres falls on each pixel's surface, (H, W)."""
    to = [np.float32(source[k]) - world[k] for k in range(3)]
    square = to[0] * to[0] + to[1] * to[1] + to[2] * to[2]
    facing = np.maximum(to[0] * normal[0] + to[1] * normal[1] + to[2] * normal[2], 0)
    return facing / (np.sqrt(square) * (square * np.float32(0.5) + 1))
