# SPDX-License-Identifier: Apache-2.0
"""Small clips on disk whose pictures and depth tell their own number."""

import json

import cv2
import numpy as np


def write_clip(path, numbers, *, height=24, width=32, eight_bit=False, **described):
    """Frame i is of grey 8 i, its depth i / 10 m, with one unknown pixel at the top left."""
    path.mkdir(parents=True, exist_ok=True)
    for i in numbers:
        rgb = np.full((height, width, 3), 8 * i % 256, np.uint8)
        assert cv2.imwrite(str(path / f'{i}.jpg'), rgb)
        stored = round(i / 10 * 25.5) if eight_bit else i * 100
        depth = np.full((height, width), stored, np.uint8 if eight_bit else np.uint16)
        depth[0, 0] = 0
        assert cv2.imwrite(str(path / f'{i}.png'), depth)
    if described:
        (path / 'clip.json').write_text(json.dumps(described))
    return path


def numbers_of(window):
    """The numbers of a window's frames, by their depth."""
    return [round(float(np.nanmedian(depth_m)) * 10) for depth_m in np.asarray(window.depth_m)]
