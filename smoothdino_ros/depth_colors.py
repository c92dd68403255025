# SPDX-License-Identifier: Apache-2.0
"""Depth in colours of a fixed range, and the legend of it:

python -m smoothdino_ros.depth_colors docs/depth_colors.png --min 0.1 --max 10
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from smoothdino_model.recordings.depth_images import rgb_from_depth


def depth_colors(depth_m: np.ndarray, *, min_depth_m: float, max_depth_m: float) -> np.ndarray:
    """(H, W, 3) RGB: yellow at min_depth_m to violet at max_depth_m, black outside of them."""
    with np.errstate(invalid='ignore'):
        known = (depth_m >= min_depth_m) & (depth_m <= max_depth_m) & (depth_m > 0)
    within_m = np.where(known, depth_m, np.float32(np.nan))
    return rgb_from_depth(within_m, near_m=min_depth_m, far_m=max_depth_m)


def legend(*, min_depth_m: float, max_depth_m: float) -> np.ndarray:
    """(120, 720, 3) RGB on white: the colour of each depth, and that of none."""
    picture = np.full((120, 720, 3), 255, np.uint8)
    left, right, top, bottom = 40, 560, 20, 60
    depth_m = np.linspace(min_depth_m, max_depth_m, right - left, dtype=np.float32)
    bar = depth_colors(depth_m[None], min_depth_m=min_depth_m, max_depth_m=max_depth_m)
    picture[top:bottom, left:right] = bar
    picture[top:bottom, 620:660] = 0
    for at in np.linspace(0, 1, 6):
        x = round(left + at * (right - left - 1))
        cv2.line(picture, (x, bottom), (x, bottom + 6), (0, 0, 0), 1)
        value_m = min_depth_m + at * (max_depth_m - min_depth_m)
        _write(picture, f'{value_m:.3g} m', x, bottom + 26)
    _write(picture, 'no depth', 640, bottom + 26)
    _write(picture, 'near', left + 12, bottom + 50)
    _write(picture, 'far', right - 8, bottom + 50)
    _write(picture, 'or out of range', 640, bottom + 50)
    return picture


def _write(picture: np.ndarray, text: str, x: int, y: int) -> None:
    """Black, centred at x, standing on y."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    (width, _), _ = cv2.getTextSize(text, font, size, 1)
    cv2.putText(picture, text, (x - width // 2, y), font, size, (0, 0, 0), 1, cv2.LINE_AA)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='depth_colors', description='Write the legend.')
    parser.add_argument('output', type=Path, help='a .png')
    parser.add_argument('--min', type=float, default=0.1, help='min_depth_m of the node')
    parser.add_argument('--max', type=float, default=10.0, help='max_depth_m of the node')
    options = parser.parse_args(argv)
    if not 0 <= options.min < options.max < np.inf:
        parser.error(f'expected 0 <= --min < --max, got {options.min:g} and {options.max:g}')
    picture = legend(min_depth_m=options.min, max_depth_m=options.max)
    if not cv2.imwrite(str(options.output), picture[..., ::-1]):
        print(f'depth_colors: cannot write {options.output}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
