# SPDX-License-Identifier: Apache-2.0
"""What a pipeline is given of a camera, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from smoothdino_model.scale.filter import ScaleState
from smoothdino_model.scale.measurement import Measurement


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One frame of a camera: RGB uint8 (H, W, 3) and its stamp in nanoseconds.

    ``skipped_ns`` are the stamps of the frames that arrived since the camera's last frame in
    :meth:`DepthPipeline.step` and were dropped: a gap is one between arriving frames, not one that
    a slow machine makes. ``focal`` is the camera's focal length over the width of ``rgb``, both in
    pixels, where it is known: depth is then scaled to this camera from the one that the model was
    trained with. ``anchors``, by names of one's own, measure the scale of this frame's depth
    (H, W) in metres by what is known of its surroundings: :func:`floor_scale` with the camera and
    its floor, :func:`points_scale` with a laser scan's points.
    """

    rgb: np.ndarray
    stamp_ns: int
    frame_id: str = ''
    skipped_ns: tuple[int, ...] = ()
    focal: float | None = None
    anchors: Mapping[str, Callable[[np.ndarray], Measurement]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DepthResult:
    """Depth of a frame: float32 (H, W) in metres, at the frame's own size, in memory of its own.

    ``shift_px`` is (dx, dy) since the previous frame in pixels of the frame, ``confidence`` its
    confidence in [0, 1]. ``reset`` says why this frame started afresh, ``None`` if it did not.
    ``scale`` is what the model's depth was multiplied by for the camera's focal length, and
    ``anchor_scale`` what it was multiplied by besides: ``measured`` is what the frame's anchors
    say of it, and ``anchored`` what is made of that and of the frames before.
    """

    depth_m: np.ndarray
    shift_px: tuple[float, float]
    confidence: float
    reset: str | None
    scale: float = 1.0
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    anchored: ScaleState | None = None

    @property
    def anchor_scale(self) -> float:
        return self.anchored.scale if self.anchored else 1.0
