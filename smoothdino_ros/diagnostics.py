# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics: one status for it and one for each camera.

The levels are those of diagnostic_aggregator: OK it works, WARN it works but not as asked, ERROR
it does not work, STALE nothing is known because nothing arrives. A level judges what became of the
latest images; the counts go on from activation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from smoothdino_ros.inference_worker import CameraCounts

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthPipeline

SILENT_AFTER_S = 3.0  # a camera without an image for longer is stale


@dataclass(frozen=True)
class Tracking:
    """How one camera's answers came about; replaced whole after each answer.

    scale is what the model's depth was multiplied by for the focal length; uncalibrated says why
    that could not be known, doubt what speaks against it, each empty where nothing does.
    compressed_dropped are the depth maps that depth/image/compressedDepth left out for later ones.
    anchors are the values of what tells the scale besides, and contradiction, where it is not
    empty, says which of them does not agree with the network.
    """

    resets: int = 0
    last_reset: str = ''
    shift_px: tuple[float, float] = (0.0, 0.0)
    confidence: float = 0.0
    scale: float = 1.0
    uncalibrated: str = ''
    doubt: str = ''
    frame_id: str = ''
    compressed_dropped: int = 0
    anchors: Mapping[str, str] = field(default_factory=dict)
    contradiction: str = ''


def node_status(
    name: str, state: str, *, fault: str, enabled: bool, device: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """state is the lifecycle's; fault is why the last transition failed, else empty.

    The hardware is the device that computes.
    """
    if fault:
        level, message = DiagnosticStatus.ERROR, fault
    elif state != 'active':
        level, message = DiagnosticStatus.WARN, f'The node is {state}.'
    elif not enabled:
        level, message = DiagnosticStatus.WARN, 'Switched off by set_enabled.'
    else:
        level, message = DiagnosticStatus.OK, 'Active.'
    return _status(name, device, level, message, {'state': state, **values})


def pipeline_values(model: str, pipeline: DepthPipeline) -> dict[str, object]:
    """What computes, and the GPU's memory where it does so there."""
    values: dict[str, object] = {
        'model': model,
        'engine': pipeline.engine,
        'device': pipeline.device,
        'precision': pipeline.precision,
        'temporal': pipeline.temporal,
    }
    memory_bytes = pipeline.gpu_memory_bytes()
    if memory_bytes is not None:
        held, free = memory_bytes
        values |= {'GPU memory [MiB]': held >> 20, 'GPU memory free [MiB]': free >> 20}
    return values


def camera_status(
    name: str,
    now: CameraCounts,
    before: CameraCounts,
    tracking: Tracking,
    *,
    now_s: float,
    subscribed_s: float | None,
    wanted: bool,
    focal_correction: bool,
) -> DiagnosticStatus:
    """What became of one camera's images; the hardware is the frame_id of its images.

    subscribed_s says since when they are subscribed to, None that they are not.
    """
    level, message = _judgement(now, before, wanted=wanted)
    if level == DiagnosticStatus.OK and wanted and focal_correction and tracking.uncalibrated:
        level = DiagnosticStatus.WARN
        message = f'Depth is not scaled by the focal length: {tracking.uncalibrated}'
    elif level == DiagnosticStatus.OK and wanted and tracking.contradiction:
        level, message = DiagnosticStatus.WARN, tracking.contradiction
    elif level == DiagnosticStatus.OK and wanted and focal_correction and tracking.doubt:
        level, message = DiagnosticStatus.WARN, f'Doubtful camera_info: {tracking.doubt}'
    if subscribed_s is None:
        level = DiagnosticStatus.OK
        message = 'Images are not subscribed to: nobody subscribes to their depth.'
    elif now.last_received_s is None:
        level, message = DiagnosticStatus.STALE, 'No image has come yet.'
    elif (silent_s := now_s - max(now.last_received_s, subscribed_s)) > SILENT_AFTER_S:
        last = '' if level == DiagnosticStatus.OK else f' Before: {message}'
        level, message = DiagnosticStatus.STALE, f'No image for {silent_s:.0f} s.{last}'
    latency_ms = [1000 * s for s in now.latencies_s] or [float('nan')]
    p50, p99 = np.percentile(latency_ms, [50, 99])
    values = {
        'input rate [Hz]': f'{now.received_hz:.1f}',
        'output rate [Hz]': f'{now.answered_hz:.1f}',
        'latency p50 [ms]': f'{p50:.1f}',
        'latency p99 [ms]': f'{p99:.1f}',
        'received': now.received,
        'answered': now.answered,
        'dropped': now.dropped,
        'overdue': now.overdue,
        'dropped by compressedDepth': tracking.compressed_dropped,
        'unwanted': now.unwanted,
        'rejected': now.rejected,
        'last rejection': now.last_rejection,
        'failed': now.failed,
        'last failure': now.last_failure,
        'resets': tracking.resets,
        'last reset': tracking.last_reset,
        'shift [px]': '{:.2f}, {:.2f}'.format(*tracking.shift_px),
        'confidence': f'{tracking.confidence:.3f}',
        'focal length scale': f'{tracking.scale:.3f}',
        **tracking.anchors,
    }
    return _status(name, tracking.frame_id, level, message, values)


def _judgement(now: CameraCounts, before: CameraCounts, *, wanted: bool) -> tuple[bytes, str]:
    """Level and message of the images that ended between the two."""
    overdue = now.overdue - before.overdue
    if now.failed > before.failed:
        return DiagnosticStatus.ERROR, now.last_failure
    if overdue and now.answered == before.answered:
        return DiagnosticStatus.ERROR, 'Every image is overdue: see max_latency_s.'
    if now.rejected > before.rejected:
        return DiagnosticStatus.WARN, f'Rejected: {now.last_rejection}'
    if overdue:
        return DiagnosticStatus.WARN, f'{overdue} overdue: see max_latency_s.'
    if not wanted:
        return (
            DiagnosticStatus.OK,
            'Nothing is computed: nobody subscribes, or it is switched off.',
        )
    if now.answered == 0:
        return DiagnosticStatus.WARN, 'No image has been answered yet.'
    return DiagnosticStatus.OK, 'Answering.'


def diagnostic_array(stamp: Time, statuses: list[DiagnosticStatus]) -> DiagnosticArray:
    array = DiagnosticArray(status=statuses)
    array.header.stamp = stamp
    return array


def without_home(text: str) -> str:
    """The text with ~ for the home directory: what the whole network hears names no user."""
    home = os.path.expanduser('~')
    return re.sub(re.escape(home) + r'(?![\w.-])', '~', text) if len(home) > 1 else text


def _status(
    name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware_id,
        level=level,
        message=without_home(message),
        values=[
            KeyValue(key=key, value=without_home(str(value))) for key, value in values.items()
        ],
    )
