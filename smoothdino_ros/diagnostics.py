# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics: one status for it and one for each camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from smoothdino_ros.inference_worker import CameraCounts

SILENT_AFTER_S = 3.0  # a camera without an image for longer is stale


@dataclass(frozen=True)
class Tracking:
    """How the temporal part of one camera fares; replaced whole after each answer."""

    resets: int = 0
    last_reset: str = ''
    shift_px: tuple[float, float] = (0.0, 0.0)
    confidence: float = 0.0


def node_status(
    name: str, state: str, *, fault: str, enabled: bool, values: Mapping[str, object]
) -> DiagnosticStatus:
    """state is the lifecycle's; fault is why the last transition failed, else empty."""
    if fault:
        level, message = DiagnosticStatus.ERROR, fault
    elif state != 'active':
        level, message = DiagnosticStatus.WARN, f'The node is {state}.'
    elif not enabled:
        level, message = DiagnosticStatus.WARN, 'Switched off by set_enabled.'
    else:
        level, message = DiagnosticStatus.OK, 'Active.'
    return _status(name, level, message, {'state': state, **values})


def camera_status(
    name: str,
    now: CameraCounts,
    before: CameraCounts,
    tracking: Tracking,
    *,
    now_s: float,
    wanted: bool,
) -> DiagnosticStatus:
    """What became of one camera's images; the level judges those since `before`."""
    level, message = DiagnosticStatus.OK, 'Answering.'
    if now.last_received_s is None:
        level, message = DiagnosticStatus.STALE, 'No image has come yet.'
    elif now_s - now.last_received_s > SILENT_AFTER_S:
        silent_s = now_s - now.last_received_s
        level, message = DiagnosticStatus.STALE, f'No image for {silent_s:.0f} s.'
    elif now.failed > before.failed:
        level, message = DiagnosticStatus.ERROR, now.last_failure
    elif now.rejected > before.rejected:
        level, message = DiagnosticStatus.WARN, f'Rejected: {now.last_rejection}'
    elif not wanted:
        message = 'Nothing is computed: nobody subscribes, or it is switched off.'
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
        'unwanted': now.unwanted,
        'rejected': now.rejected,
        'last rejection': now.last_rejection,
        'failed': now.failed,
        'last failure': now.last_failure,
        'resets': tracking.resets,
        'last reset': tracking.last_reset,
        'shift [px]': '{:.2f}, {:.2f}'.format(*tracking.shift_px),
        'confidence': f'{tracking.confidence:.3f}',
    }
    return _status(name, level, message, values)


def diagnostic_array(stamp: Time, statuses: list[DiagnosticStatus]) -> DiagnosticArray:
    array = DiagnosticArray(status=statuses)
    array.header.stamp = stamp
    return array


def _status(
    name: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
