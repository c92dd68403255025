# SPDX-License-Identifier: Apache-2.0
"""Depth of live cameras: weights on a device, and one temporal state per camera."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from smoothdino_model.camera_frame import CameraFrame, DepthResult
from smoothdino_model.engines.choice import (
    chosen_device,
    chosen_engine,
    chosen_precision,
    make_engine,
)
from smoothdino_model.engines.host_memory import HostMemory
from smoothdino_model.network.memory import FRAMES
from smoothdino_model.network.smoothdino import SmoothDino, Step
from smoothdino_model.network.temporal_state import CameraState, TemporalState
from smoothdino_model.scale.filter import SCALE_RANGE, ScaleState, filtered
from smoothdino_model.scale.measurement import Measurement, vouched
from smoothdino_model.weights.checkpoint import load_model
from smoothdino_model.weights.hub import DEFAULT_MODEL

_log = logging.getLogger(__name__)

_SHAPES_KEPT = 64  # that are known to be warm
_MOST_FOCAL = 50.0  # widths: beyond, pixels are meant


@dataclass(frozen=True, eq=False)
class _Memory:
    """What is kept of a camera: its states and the last frame's properties."""

    state: CameraState | None
    anchored: ScaleState | None
    stamp_ns: int
    frame_id: str
    size: tuple[int, int]


class DepthPipeline:
    """Steady metric depth for any number of cameras, all in one batch.

    ``engine`` runs the network: ``torch``, ``openvino``, ``onnxruntime`` with its own providers
    for CPU and CUDA, or ``onnxruntime:tensorrt``. ``precision`` is the arithmetic of
    the network: ``fp32``, ``bf16`` or ``fp16``. ``auto`` takes what is fastest on the device. With
    ``temporal`` off, or without adapter and memory, every frame stands for itself. Not
    thread-safe: one thread steps.
    """

    def __init__(
        self,
        model: SmoothDino,
        *,
        engine: str = 'auto',
        device: str | torch.device = 'auto',
        precision: str = 'auto',
        temporal: bool = True,
        max_gap_s: float = 1.0,
    ) -> None:
        self.scale_range = SCALE_RANGE  # of what anchors may make of depth; of every camera
        self.device = chosen_device(device)
        self.engine = chosen_engine(engine, self.device)
        self.precision = chosen_precision(precision, self.device, self.engine)
        self.temporal = temporal and model.temporal
        network = make_engine(
            model,
            engine=self.engine,
            device=self.device,
            precision=self.precision,
            temporal=self.temporal,
        )
        self.model = network.model
        self._network: Step | None = network
        self._n_slow_steps = network.n_slow_steps
        self._host = HostMemory(self.device)
        _log.info('depth by %s on %s in %s', self.engine, self.device, self.precision)
        if self.temporal:
            by = 'the mean over' if model.adapter is None else 'an adapter and'
            _log.info('steadied by %s the features of the last %d frames', by, model.memory)
        else:
            _log.info('every frame stands for itself: nothing is smoothed over time')
        self._warm: set[tuple[int, ...]] = set()
        self.max_gap_s = max_gap_s
        self._memories: dict[str, _Memory] = {}
        self._reset_reasons: dict[str, str] = {}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        adapter: str | Path | None = None,
        memory: int = FRAMES,
        input_height: int = 0,
        engine: str = 'auto',
        device: str | torch.device = 'auto',
        precision: str = 'auto',
        temporal: bool = True,
        max_gap_s: float = 1.0,
    ) -> DepthPipeline:
        """Load a model, see :func:`load_model`, onto a device.

        Raises :class:`CheckpointError` and :class:`DeviceError`, both ``ValueError``.
        """
        # Before the weights are read: it costs nothing to refuse.
        device = chosen_device(device)
        engine = chosen_engine(engine, device)
        precision = chosen_precision(precision, device, engine)
        loaded = load_model(
            model,
            adapter=adapter if temporal else 'none',
            memory=memory,
            input_height=input_height,
        )
        return cls(
            loaded,
            engine=engine,
            device=device,
            precision=precision,
            temporal=temporal,
            max_gap_s=max_gap_s,
        )

    def step(self, frames: Mapping[str, CameraFrame]) -> dict[str, DepthResult]:
        """Give the depth of one frame each of some cameras, named by the keys.

        Cameras whose frames are of one size run as one batch. If it raises, no camera's state has
        changed.
        """
        results: dict[str, DepthResult] = {}
        memories: dict[str, _Memory] = {}
        for size, cameras in _by_size(frames).items():
            resets = {camera: self._why_reset(camera, frames[camera]) for camera in cameras}
            states = [
                self._memories[camera].state if resets[camera] is None else None
                for camera in cameras
            ]
            depths_m, motions, next_states, looks = self._run(
                [frames[camera].rgb for camera in cameras],
                states,
                looking=any(frames[camera].anchors for camera in cameras),
            )
            for camera, depth_m, motion, state, odds in zip(
                cameras, depths_m, motions, next_states, looks, strict=True
            ):
                dx, dy, confidence = motion.tolist()
                frame = frames[camera]
                # The states stay in the trained camera's depth, so a change of focal length is no
                # reason to forget them.
                scale = self._scale(camera, frame)
                scaled_m = depth_m * np.float32(scale)  # its own: what came is lent
                measured = {
                    name: vouched(measure(scaled_m), odds)
                    for name, measure in frame.anchors.items()
                }
                before = self._memories[camera].anchored if resets[camera] is None else None
                anchored = self._anchored(before, measured, frame.stamp_ns)
                if anchored is not None:
                    scaled_m *= np.float32(anchored.scale)
                results[camera] = DepthResult(
                    scaled_m,
                    (dx, dy),
                    confidence,
                    resets[camera],
                    scale,
                    measured,
                    anchored,
                )
                memories[camera] = _Memory(state, anchored, frame.stamp_ns, frame.frame_id, size)
        self._memories |= self._without_batch(set(self._memories) - set(frames)) | memories
        for camera in frames:
            self._reset_reasons.pop(camera, None)
        return {camera: results[camera] for camera in frames}

    @torch.inference_mode()
    def warm_up(self, frames: Mapping[str, CameraFrame]) -> bool:
        """Make the engine ready for frames like these; tell whether there was something to do.

        Otherwise the first ones would take longer than the later ones: CUDA graphs are recorded,
        ONNX files exported. It is tried once for a size and number of frames, and no camera's
        state changes.
        """
        network, start_s = self._open_network(), monotonic()
        shapes = {(len(cameras), *size): cameras for size, cameras in _by_size(frames).items()}
        new = [shape for shape in shapes if self._n_slow_steps and shape not in self._warm]
        for shape in new:
            if len(self._warm) >= _SHAPES_KEPT:
                self._warm.clear()
            self._warm.add(shape)
            number, *size = shape
            _log.info('warming up for %d frames of %s at a time', number, _by(tuple(size)))
            rgb = self._host.upload([frames[camera].rgb for camera in shapes[shape]])
            for _ in range(self._n_slow_steps):
                depth_m, _ = network(rgb, None)
            self._host.download(depth_m)  # waits for it
        if new:
            _log.info('warmed up in %.1f s', monotonic() - start_s)
        return bool(new)

    def reset(self, camera: str | None = None, reason: str = 'requested') -> None:
        """Forget the previous frames of one camera, or of all; their next one is a first frame."""
        for name in [camera] if camera is not None else list(self._memories):
            if self._memories.pop(name, None) is not None:
                self._reset_reasons[name] = reason

    def gpu_memory_bytes(self) -> tuple[int, int] | None:
        """Give what this process's PyTorch holds and what is free on the GPU; None without one."""
        if self.device.type != 'cuda':
            return None
        return torch.cuda.memory_reserved(self.device), torch.cuda.mem_get_info(self.device)[0]

    def close(self) -> None:
        """Forget every camera and give the device's memory back; no step can follow.

        The model that the pipeline was made of stays as it is.
        """
        self._memories.clear()
        self._network = None
        self.model.to('meta')
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run(
        self, images: list[np.ndarray], states: Sequence[CameraState | None], *, looking: bool
    ) -> tuple[np.ndarray, np.ndarray, Sequence[CameraState | None], Sequence[np.ndarray | None]]:
        """Give depth (B, H, W), motion (B, 3) as dx, dy, confidence, the next states, and with
        ``looking`` what of each picture (rows, columns) looks like floor, where that is known.

        All but the states are lent until the next call.
        """
        unknown: list[None] = [None] * len(images)
        depth_m, state = self._open_network()(
            self._host.upload(images), TemporalState.join(states)
        )
        if state is None:
            return (
                self._host.download(depth_m)[0],
                np.zeros((len(images), 3)),
                unknown,
                unknown,
            )
        motion = torch.cat((state.shift_px, state.confidence[:, None]), dim=1)
        odds = self.model.floor_odds(state) if looking else None
        if odds is None:
            depths_m, motions = self._host.download(depth_m, motion)
            return depths_m, motions, state.split(), unknown
        depths_m, motions, looks = self._host.download(depth_m, motion, odds)
        return depths_m, motions, state.split(), list(looks)

    @torch.inference_mode()
    def _without_batch(self, cameras: Iterable[str]) -> dict[str, _Memory]:
        """Give the memories of cameras that had no frame now, and keep no other camera's alive."""
        memories = {camera: self._memories[camera] for camera in cameras}
        return {
            camera: replace(memory, state=None if memory.state is None else memory.state.alone)
            for camera, memory in memories.items()
        }

    def _open_network(self) -> Step:
        if self._network is None:
            raise RuntimeError('this pipeline is closed: make another one')
        return self._network

    def _scale(self, camera: str, frame: CameraFrame) -> float:
        if frame.focal is None:
            return 1.0
        if not 0 < frame.focal <= _MOST_FOCAL:
            raise ValueError(
                f'camera {camera!r}: expected a focal length above 0 and at most '
                f'{_MOST_FOCAL:g} widths of the image, got {frame.focal!r}: give fx_px / width, '
                'or nothing where it is not known'
            )
        height, width = frame.rgb.shape[:2]
        return self.model.backbone.trained_camera.scale(frame.focal, height=height, width=width)

    def _anchored(
        self, before: ScaleState | None, measured: Mapping[str, Measurement], stamp_ns: int
    ) -> ScaleState | None:
        """None as long as a camera has no anchors; where they fall silent the scale stays."""
        if before is None and not measured:
            return None
        least, most = self.scale_range
        return filtered(before, measured.values(), stamp_ns=stamp_ns, least=least, most=most)

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
            return f'frame_id changed from {last.frame_id!r:.80} to {frame.frame_id!r:.80}'
        return None


def _by_size(frames: Mapping[str, CameraFrame]) -> dict[tuple[int, int], list[str]]:
    """Give the cameras whose frames are of a size."""
    groups: dict[tuple[int, int], list[str]] = {}
    for camera, frame in frames.items():
        groups.setdefault(_frame_size(camera, frame.rgb), []).append(camera)
    return groups


def _frame_size(camera: str, rgb: np.ndarray) -> tuple[int, int]:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise ValueError(
            f'camera {camera!r}: expected RGB uint8 of shape (H, W, 3), '
            f'got {rgb.dtype} of {rgb.shape}'
        )
    return rgb.shape[0], rgb.shape[1]


def _by(size: tuple[int, ...]) -> str:
    return f'{size[1]}x{size[0]}'
