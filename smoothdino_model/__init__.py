# SPDX-License-Identifier: Apache-2.0
"""Metric depth from one camera, steady from frame to frame.

The public names are imported on first use: torch and transformers take seconds to load, and a
camera or a command line that only reads images needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
    from smoothdino_model.network.backbone import DepthBackbone, Features
    from smoothdino_model.network.phase_correlation import phase_correlate, windowed_spectrum
    from smoothdino_model.network.smoothdino import SmoothDino, TemporalState
    from smoothdino_model.pipeline import CameraFrame, DepthPipeline, DepthResult, DeviceError
    from smoothdino_model.recordings.frames import Frame, Intrinsics, open_recording
    from smoothdino_model.weights.checkpoint import (
        CheckpointError,
        load_adapter,
        load_model,
        save_model,
    )

_HOMES = {
    'network.adapter': ('AdapterConfig', 'TemporalAdapter'),
    'network.backbone': ('DepthBackbone', 'Features'),
    'weights.checkpoint': ('CheckpointError', 'load_adapter', 'load_model', 'save_model'),
    'network.smoothdino': ('SmoothDino', 'TemporalState'),
    'network.phase_correlation': ('phase_correlate', 'windowed_spectrum'),
    'pipeline': ('CameraFrame', 'DepthPipeline', 'DepthResult', 'DeviceError'),
    'recordings': ('Frame', 'Intrinsics', 'open_recording'),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    'AdapterConfig',
    'CameraFrame',
    'CheckpointError',
    'DepthBackbone',
    'DepthPipeline',
    'DepthResult',
    'DeviceError',
    'Features',
    'Frame',
    'Intrinsics',
    'SmoothDino',
    'TemporalAdapter',
    'TemporalState',
    'load_adapter',
    'load_model',
    'open_recording',
    'phase_correlate',
    'save_model',
    'windowed_spectrum',
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOME_OF[name]}'), name)
