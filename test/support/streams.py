# SPDX-License-Identifier: Apache-2.0
"""Streams of frames for a pipeline, and when two of its results are the same."""

import numpy as np
import pytest
import torch

from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.pipeline import CameraFrame, DepthPipeline, DepthResult
from smoothdino_model.room.sample_room import SampleRoom
from support.tiny_networks import tiny_smoothdino

PERIOD_NS = 33_333_333


def clip(n_frames: int, seed: int = 0, *, height: int = 75, width: int = 98) -> list[CameraFrame]:
    """A ride through a room, 30 frames per second; 75 rows are not whole patches."""
    room = SampleRoom(seed, height=height, width=width)
    return [
        CameraFrame(room.frame(i).rgb, stamp_ns=10**18 + i * PERIOD_NS) for i in range(n_frames)
    ]


def pipeline(model: SmoothDino | None = None, **settings) -> DepthPipeline:
    """On the CPU in full precision, which ``auto`` would leave where it multiplies bf16."""
    settings = {'device': 'cpu', 'precision': 'fp32'} | settings
    return DepthPipeline(model or tiny_smoothdino(), **settings)


def steps(pipe: DepthPipeline, frames: list[CameraFrame], camera: str = 'a') -> list[DepthResult]:
    return [pipe.step({camera: frame})[camera] for frame in frames]


def as_batch(*frames: CameraFrame) -> torch.Tensor:
    return torch.from_numpy(np.stack([frame.rgb for frame in frames]))


def batches(n_frames: int, seed: int = 0) -> torch.Tensor:
    """The pictures of a clip as the model takes them: (T, 1, 70, 98, 3), of whole patches."""
    return torch.stack([as_batch(frame) for frame in clip(n_frames, seed, height=70)])


def same(one: DepthResult, other: DepthResult) -> bool:
    return (
        np.array_equal(one.depth_m, other.depth_m)
        and one.shift_px == other.shift_px
        and one.confidence == other.confidence
    )


def assert_close(one: DepthResult, other: DepthResult) -> None:
    np.testing.assert_allclose(one.depth_m, other.depth_m, atol=1e-4)
    np.testing.assert_allclose(one.shift_px, other.shift_px, atol=1e-2)
    assert one.confidence == pytest.approx(other.confidence, abs=1e-3)
