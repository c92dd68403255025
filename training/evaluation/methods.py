# SPDX-License-Identifier: Apache-2.0
"""Ways of estimating depth that share one encoder: per frame, with a memory, with adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from smoothdino_model.engines.choice import dtype_of
from smoothdino_model.network.adapter import AdapterConfig
from smoothdino_model.network.backbone import Features
from smoothdino_model.network.smoothdino import Seen, SmoothDino
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.pipeline import DepthPipeline
from smoothdino_model.weights.checkpoint import ADAPTER_CONFIG, load_adapter
from smoothdino_model.weights.fingerprint import check_encoder
from smoothdino_model.weights.hub import resolve_model

PER_FRAME = 'per_frame'
# What a published checkpoint's network gives is within these, whatever its weights say.
_PUBLISHED_OFFSET_M, _PUBLISHED_MOST_M = 0.001, 10.0


class Methods:
    """Depth of consecutive frames: plain, with each of some adapters, and without any with
    memories of some numbers of frames.

    What the encoder says of a frame depends on none of them: it is asked once for all.
    """

    def __init__(
        self,
        model: str | Path,
        adapters: Mapping[str, str | Path],
        *,
        memories: Sequence[int] = (),
        device: str = 'auto',
        precision: str = 'fp32',
        input_height: int = 0,
    ) -> None:
        """Raise ``CheckpointError`` or ``DeviceError``, both ``ValueError``, as loading does."""
        loaded = DepthPipeline.from_pretrained(
            model,
            adapter='none',
            device=device,
            precision=precision,
            input_height=input_height,
        )
        self.device = loaded.device
        self.backbone = loaded.model.backbone
        self._floor_looks = loaded.model.floor_looks
        dtype = dtype_of(loaded.precision)
        self._adapted: dict[str, SmoothDino] = {}
        for name, path in adapters.items():
            adapter = load_adapter(path).eval().requires_grad_(False).to(self.device, dtype)
            check_encoder(adapter, self.backbone, f'the adapter {path}')
            self._adapted[name] = SmoothDino(self.backbone, adapter)
        for frames in memories:
            self._adapted[f'memory_{frames}'] = SmoothDino(self.backbone, memory=frames)
        # With any of them a frame is seen alike: its features, and the spectrum that all share.
        self._seeing = next(iter(self._adapted.values()), SmoothDino(self.backbone))
        self._states: dict[str, TemporalState | None] = {}

    @property
    def names(self) -> list[str]:
        return [PER_FRAME, *self._adapted]

    def reset(self) -> None:
        """Forget the previous frames: the next one starts a stretch."""
        self._states.clear()

    @torch.inference_mode()
    def depths(
        self, rgb: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Sequence[np.ndarray | None]]:
        """Give each method's depth (T, H, W) of the next frames (T, H, W, 3), twice, and looks.

        First in metres as the node has it, then as the published code evaluates it: the map of
        the padded input squeezed to the frame's size, plus 1 mm, within 1 mm and 10 m. The looks
        are for each frame the log odds (rows, columns) that it is floor, where that is known.
        """
        seen = self._seeing.see(torch.from_numpy(rgb).to(self.device))
        size = seen.features.frame_size
        depths_m, published_m = {}, {}
        for name in self.names:
            features = self._adapt(name, seen, len(rgb))
            maps = self.backbone.decode_padded(features)
            depth_m = self.backbone.cut_out(maps, features, size)
            depths_m[name] = depth_m.cpu().numpy()
            squeezed = functional.interpolate(maps[:, None], size, mode='bilinear')
            published = (squeezed[:, 0] + _PUBLISHED_OFFSET_M).clamp(max=_PUBLISHED_MOST_M)
            published_m[name] = published.cpu().numpy()
        return depths_m, published_m, self._looks(seen.features)

    def _looks(self, features: Features) -> Sequence[np.ndarray | None]:
        if self._floor_looks is None:
            return [None] * len(features.levels[0])
        odds = self._floor_looks(features.levels[self._floor_looks.level])
        return list(odds.unflatten(1, features.grid).cpu().numpy())

    def _adapt(self, name: str, seen: Seen, length: int) -> Features:
        if name == PER_FRAME:
            return seen.features
        adapted = []
        for t in range(length):
            frame, self._states[name] = self._adapted[name].adapt(
                seen.of(slice(t, t + 1)), self._states.get(name)
            )
            adapted.append(frame.levels)
        levels = tuple(torch.cat(level) for level in zip(*adapted, strict=True))
        return replace(seen.features, levels=levels)


def named_adapters(model: str | Path, given: Sequence[str]) -> dict[str, Path]:
    """Name adapters, ``path`` or ``name=path``, by what they see or by their folders.

    One that sees no features is ``published``, one that sees the current ones alone ``control``,
    any other ``temporal``; where two are of a kind, the folder that tells them apart names them.
    With none given it is the one beside the model; ``none`` stands for none.
    """
    if not given:
        beside = resolve_model(model)
        given = [str(beside)] if (beside / ADAPTER_CONFIG).exists() else []
    wanted = [one.rpartition('=') for one in given if one != 'none']  # (name, '=', path)
    unnamed = [Path(path) for name, _, path in wanted if not name]
    kind_of = {path: _kind(load_adapter(path).config) for path in unnamed}
    chosen: dict[str, Path] = {}
    for name, _, text in wanted:
        path = Path(text)
        if not name:
            alone = list(kind_of.values()).count(kind_of[path]) == 1
            name = kind_of[path] if alone else _folder_of_its_own(path, unnamed)
        if name in chosen or name in ('mean_map', PER_FRAME):
            raise ValueError(
                f'expected a name of its own for the adapter {path}, got {name!r}: give it one, '
                f'--adapter NAME={path}'
            )
        chosen[name] = path
    return chosen


def _kind(config: AdapterConfig) -> str:
    if not config.sees_features:
        return 'published'
    return 'temporal' if config.memory else 'control'


def _folder_of_its_own(path: Path, among: list[Path]) -> str:
    """The innermost part of a path that no other path has at the same depth from its end."""
    parts = path.resolve().parts
    others = [other.resolve().parts for other in among if other != path]
    for depth in range(1, len(parts)):
        if all(len(other) < depth or other[-depth] != parts[-depth] for other in others):
            return parts[-depth]
    return str(path)
