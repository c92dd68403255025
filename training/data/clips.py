# SPDX-License-Identifier: Apache-2.0
"""Windows of consecutive frames with depth, at the size and focal length a model is trained at."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from smoothdino_model.sample_room import NYU_FOCAL

# Focal length over image width that metric depth is learnt at: that of NYUv2, 518.86 px at 640.
# Depth of a camera with another focal length is scaled by the ratio (Yin et al. 2023, Metric3D).
TRAINED_FOCAL = NYU_FOCAL


@dataclass(frozen=True, eq=False)
class Window:
    """T consecutive frames: RGB uint8 (T, H, W, 3), depth (T, H, W) in metres, NaN = invalid.

    ``focal`` is the focal length over the image width.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    focal: float

    def resized(self, height: int, width: int) -> Window:
        if self.rgb.shape[1:3] == (height, width):
            return self

        def scaled(images: np.ndarray, interpolation: int) -> np.ndarray:
            size = (width, height)
            return np.stack([cv2.resize(x, size, interpolation=interpolation) for x in images])

        # Depth is not averaged: between near and far lies nothing.
        rgb = scaled(self.rgb, cv2.INTER_AREA)
        return Window(rgb, scaled(self.depth_m, cv2.INTER_NEAREST), self.focal)

    def at_trained_focal(self) -> Window:
        """Scale depth to what a camera of the trained focal length would need to see the same."""
        return Window(self.rgb, self.depth_m * (TRAINED_FOCAL / self.focal), TRAINED_FOCAL)


def augmented(window: Window, rng: np.random.Generator, *, least_crop: float = 0.6) -> Window:
    """Crop, mirror and recolour a window, all its frames alike.

    A crop narrows the field of view, so it lengthens the focal length over the image width.
    """
    _, height, width, _ = window.rgb.shape
    part = rng.uniform(least_crop, 1)
    crop_height, crop_width = round(height * part), round(width * part)
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
    return Window(rgb, np.ascontiguousarray(depth_m), window.focal / part)
