# SPDX-License-Identifier: Apache-2.0
"""Windows as another camera, another side or another light would have shown them."""

from __future__ import annotations

import cv2
import numpy as np

from training.data.clips import Window

_BLURRED = 0.25  # of the windows: real cameras move, and are out of focus
_MOST_BLUR = 0.006  # its deviation, in widths


def augmented(
    window: Window,
    rng: np.random.Generator,
    *,
    least_crop: float = 0.6,
    aspect: float | None = None,
) -> Window:
    """Crop, mirror, recolour and sometimes blur a window, all its frames alike.

    ``least_crop`` is the least part of the picture's height and width that is left, ``aspect`` the
    width over height of what is left, by default the picture's own.

    A crop narrows the field of view, so it lengthens the focal length over the image width. It
    also moves the optical axis, and a mirror has no pose: the result has none.
    """
    _, height, width, _ = window.rgb.shape
    part = rng.uniform(least_crop, 1)
    aspect = aspect or width / height
    crop_height = round(part * min(height, width / aspect))
    crop_width = round(part * min(width, height * aspect))
    top = rng.integers(height - crop_height + 1)
    left = rng.integers(width - crop_width + 1)
    rgb = window.rgb[:, top : top + crop_height, left : left + crop_width]
    depth_m = window.depth_m[:, top : top + crop_height, left : left + crop_width]
    if rng.random() < 0.5:
        rgb, depth_m = rgb[:, :, ::-1], depth_m[:, :, ::-1]
    gain = rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3)
    gamma = rng.uniform(0.75, 1.3)
    saturation = rng.uniform(0.4, 1.3)
    curve = (np.arange(256) / 255) ** gamma
    table = (np.clip(gain[:, None] * curve, 0, 1) * 255).astype(np.float32)  # (3, 256)
    colored = np.stack([table[channel][rgb[..., channel]] for channel in range(3)], axis=-1)
    gray = colored.mean(axis=-1, keepdims=True)
    rgb = np.clip(gray + saturation * (colored - gray), 0, 255).astype(np.uint8)
    if rng.random() < _BLURRED:
        deviation = rng.uniform(0.2, 1) * _MOST_BLUR * crop_width
        rgb = np.stack([cv2.GaussianBlur(image, (0, 0), deviation) for image in rgb])
    focal = window.focal * width / crop_width
    return Window(rgb, np.ascontiguousarray(depth_m), focal, stamps_ns=window.stamps_ns)
