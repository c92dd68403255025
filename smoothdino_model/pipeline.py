# SPDX-License-Identifier: Apache-2.0
"""Depth of live cameras: weights on a device, and one temporal state per camera."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from smoothdino_model.checkpoint import DEFAULT_MODEL, load_model
from smoothdino_model.model import SmoothDino, TemporalState

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}

_log = logging.getLogger(__name__)


class DeviceError(ValueError):
    """A device or a precision that this machine does not offer."""


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One frame of a camera: RGB uint8 (H, W, 3) and its stamp in nanoseconds.

    ``skipped_ns`` are the stamps of the frames that arrived since the camera's last frame in
    :meth:`DepthPipeline.step` and were dropped: a gap is one between arriving frames, not one that
    a slow machine makes.
    """

    rgb: np.ndarray
    stamp_ns: int
    frame_id: str = ''
    skipped_ns: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class DepthResult:
    """Depth of a frame: float32 (H, W) in metres, at the frame's own size.

    ``shift_px`` is (dx, dy) since the previous frame in pixels of the frame, ``confidence`` its
    confidence in [0, 1]. ``reset`` says why this frame started afresh, ``None`` if it did not.
    """

    depth_m: np.ndarray
    shift_px: tuple[float, float]
    confidence: float
    reset: str | None


@dataclass(frozen=True, eq=False)
class _Memory:
    """What is kept of a camera: its state and the last frame's properties."""

    state: TemporalState | None
    stamp_ns: int
    frame_id: str
    size: tuple[int, int]


class DepthPipeline:
    """Steady metric depth for any number of cameras, all in one batch.

    ``precision`` is the arithmetic of the network: ``fp32``, ``bf16`` or ``fp16``. With
    ``temporal`` off, or without an adapter, every frame stands for itself. Not thread-safe: one
    thread steps.
    """

    def __init__(
        self,
        model: SmoothDino,
        *,
        device: str | torch.device = 'auto',
        precision: str = 'auto',
        temporal: bool = True,
        max_gap_s: float = 1.0,
    ) -> None:
        self.device = _chosen_device(device)
        self.precision = _chosen_precision(precision, self.device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        parts: list[nn.Module | None] = [self.model.backbone.network, self.model.adapter]
        for part in parts:
            if part is not None:
                part.to(PRECISIONS[self.precision])
        self.temporal = temporal and self.model.adapter is not None
        self.max_gap_s = max_gap_s
        self._memories: dict[str, _Memory] = {}
        self._reset_reasons: dict[str, str] = {}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        adapter: str | Path | None = None,
        input_height: int = 0,
        device: str | torch.device = 'auto',
        precision: str = 'auto',
        temporal: bool = True,
        max_gap_s: float = 1.0,
    ) -> DepthPipeline:
        """Load a model, see :func:`load_model`, onto a device.

        Raises :class:`CheckpointError` and :class:`DeviceError`, both ``ValueError``.
        """
        device = _chosen_device(device)  # before the weights are read: it costs nothing to refuse
        precision = _chosen_precision(precision, device)
        loaded = load_model(
            model, adapter=adapter if temporal else 'none', input_height=input_height
        )
        if temporal and loaded.adapter is None and adapter is None:
            _log.warning(
                'no trained adapter lies with %s: depth is per frame, not smoothed over time',
                model,
            )
        return cls(
            loaded, device=device, precision=precision, temporal=temporal, max_gap_s=max_gap_s
        )

    def step(self, frames: Mapping[str, CameraFrame]) -> dict[str, DepthResult]:
        """Give the depth of one frame each of some cameras, named by the keys.

        Cameras whose frames are of one size run as one batch. If it raises, no camera's state has
        changed.
        """
        groups: dict[tuple[int, int], list[str]] = {}
        for camera, frame in frames.items():
            groups.setdefault(_frame_size(camera, frame.rgb), []).append(camera)
        results: dict[str, DepthResult] = {}
        memories: dict[str, _Memory] = {}
        for size, cameras in groups.items():
            resets = {camera: self._why_reset(camera, frames[camera]) for camera in cameras}
            states = [
                self._memories[camera].state if resets[camera] is None else None
                for camera in cameras
            ]
            depths_m, next_states = self._run([frames[camera].rgb for camera in cameras], states)
            for camera, depth_m, state in zip(cameras, depths_m, next_states, strict=True):
                shift_px, confidence = _motion(state)
                results[camera] = DepthResult(depth_m, shift_px, confidence, resets[camera])
                memories[camera] = _Memory(
                    state, frames[camera].stamp_ns, frames[camera].frame_id, size
                )
        self._memories |= memories
        for camera in frames:
            self._reset_reasons.pop(camera, None)
        return {camera: results[camera] for camera in frames}

    def reset(self, camera: str | None = None, reason: str = 'requested') -> None:
        """Forget the previous frames of one camera, or of all; their next one is a first frame."""
        for name in [camera] if camera is not None else list(self._memories):
            if self._memories.pop(name, None) is not None:
                self._reset_reasons[name] = reason

    def close(self) -> None:
        """Forget every camera and give the device's memory back; no step can follow."""
        self._memories.clear()
        self.model.to('meta')
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run(
        self, images: list[np.ndarray], states: list[TemporalState | None]
    ) -> tuple[np.ndarray, list[TemporalState | None]]:
        rgb = torch.from_numpy(np.stack(images)).to(self.device)
        if not self.temporal:
            return self.model.backbone(rgb).cpu().numpy(), [None] * len(images)
        depth_m, state = self.model(rgb, TemporalState.join(states))
        return depth_m.cpu().numpy(), list(state.split())

    def _why_reset(self, camera: str, frame: CameraFrame) -> str | None:
        if camera in self._reset_reasons:
            return self._reset_reasons[camera]
        last = self._memories.get(camera)
        if last is None:
            return 'first frame'
        stamps_ns = (last.stamp_ns, *frame.skipped_ns, frame.stamp_ns)
        for before, after in pairwise(stamps_ns):
            gap_s = (after - before) / 1e9
            if gap_s < 0:
                return f'stamp went back by {-gap_s:.3f} s'
            if gap_s > self.max_gap_s:
                return f'gap of {gap_s:.3f} s between frames'
        if last.size != frame.rgb.shape[:2]:
            return f'size changed from {_by(last.size)} to {_by(frame.rgb.shape[:2])}'
        if last.frame_id != frame.frame_id:
            return f'frame_id changed from {last.frame_id!r} to {frame.frame_id!r}'
        return None


def _motion(state: TemporalState | None) -> tuple[tuple[float, float], float]:
    if state is None:
        return (0.0, 0.0), 0.0
    dx, dy = state.shift_px[0].tolist()
    return (dx, dy), float(state.confidence[0])


def _frame_size(camera: str, rgb: np.ndarray) -> tuple[int, int]:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise ValueError(
            f'camera {camera!r}: expected RGB uint8 of shape (H, W, 3), '
            f'got {rgb.dtype} of {rgb.shape}'
        )
    return rgb.shape[0], rgb.shape[1]


def _by(size: tuple[int, ...]) -> str:
    return f'{size[1]}x{size[0]}'


def _chosen_device(device: str | torch.device) -> torch.device:
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f'device {str(device)!r} is not available here ({_first_line(error)}); '
            "expected 'auto', 'cpu' or a device of this machine such as 'cuda:0'"
        ) from error
    return chosen


def _chosen_precision(precision: str, device: torch.device) -> str:
    if precision == 'auto':
        if device.type == 'cuda':
            return 'bf16' if torch.cuda.is_bf16_supported() else 'fp16'
        return 'fp32'
    if precision not in PRECISIONS:
        raise DeviceError(
            f"precision: expected 'auto', {', '.join(map(repr, PRECISIONS))}, got {precision!r}"
        )
    return precision


def _first_line(error: BaseException) -> str:
    return str(error).strip().split('\n')[0].rstrip('.')
