# SPDX-License-Identifier: Apache-2.0
"""The temporal adapter: what the mean over the last frames gets wrong, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothdino_model.network.backbone import Features

# Channels that tell every patch how the frame moved: dx and dy in patches, and the confidence.
# A control that sees the current frame alone has none of them.
_MOTION_CHANNELS = 3


@dataclass(frozen=True)
class AdapterConfig:
    """What a :class:`TemporalAdapter` looks at and how wide it is.

    ``channels`` and ``n_levels`` are the encoder's. ``hidden`` channels keep ViT-S under 6 % of a
    plain frame's FLOPs. ``memory`` is how many past frames are remembered, whose mean with the
    current one it sees and corrects; with 0 it knows nothing of time. ``current`` says whether it
    sees the current features; one that sees neither is one constant offset per channel, which is
    all that a published SmoothDINOv2 checkpoint amounts to.
    """

    channels: int
    n_levels: int = 4
    hidden: int = 192
    memory: int = 4
    current: bool = True

    def __post_init__(self) -> None:
        for name, least in (('channels', 1), ('n_levels', 1), ('hidden', 1), ('memory', 0)):
            if getattr(self, name) < least:
                raise ValueError(f'{name}: expected at least {least}, got {getattr(self, name)}')

    @property
    def sees_features(self) -> bool:
        return self.current or self.memory > 0

    @property
    def seen(self) -> int:
        """Channels that the layers see."""
        remembers = self.memory > 0
        motion = _MOTION_CHANNELS if remembers else 0
        return self.channels * (self.current + remembers) + motion

    def within(self, parameters: int) -> AdapterConfig:
        """Give the same adapter as wide as ``parameters`` weights allow.

        Adapters that see more are narrower: at equal size they cost equally many FLOPs as well.
        """
        per_level = parameters / self.n_levels - 2 * self.channels  # without the last biases
        hidden = round(per_level / (10 * (self.seen + self.channels) + 2))  # 3x3, and linear
        if hidden < 1:
            raise ValueError(f'parameters: {parameters} are too few for one hidden channel')
        return replace(self, hidden=hidden)


class TemporalAdapter(nn.Module):
    """Per level two 3x3 convolutions, per class token two linear layers, the last ones zero.

    The output is the mean of current and remembered features plus what the layers say, so that
    before any training it equals that mean bit for bit. Only the *last* layer starts at zero (as
    in ControlNet, Zhang et al. 2023): with all zero no gradient would reach the weights.
    """

    def __init__(self, config: AdapterConfig, encoder: Sequence[float] | None = None) -> None:
        """``encoder`` is the fingerprint of the one that it was trained on, where it is known."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        if not config.sees_features:
            self.offsets = nn.ParameterDict(
                {
                    'patches': nn.Parameter(torch.zeros(config.n_levels, config.channels)),
                    'class_token': nn.Parameter(torch.zeros(config.n_levels, config.channels)),
                }
            )
            return
        self.patches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(config.seen, config.hidden, 3, padding=1),
                nn.ReLU(),
                _zeroed(nn.Conv2d(config.hidden, config.channels, 3, padding=1)),
            )
            for _ in range(config.n_levels)
        )
        self.class_token = nn.ModuleList(
            nn.Sequential(
                nn.Linear(config.seen, config.hidden),
                nn.ReLU(),
                _zeroed(nn.Linear(config.hidden, config.channels)),
            )
            for _ in range(config.n_levels)
        )

    def forward(
        self,
        current: Features,
        blended: Features,
        *,
        shift_patches: Tensor,
        confidence: Tensor,
        valid: Tensor,
    ) -> Features:
        """Adapt ``blended``, the mean of the ``current`` and the remembered features.

        ``shift_patches`` (B, 2) is (dx, dy) from the previous frame in patches, ``confidence``
        (B,) in [0, 1]. Where ``valid`` (B,) is False there is no previous frame and the current
        features come out unchanged.
        """
        motion = torch.cat((shift_patches, confidence[:, None]), dim=1)
        levels = []
        for level, (now, mean) in enumerate(zip(current.levels, blended.levels, strict=True)):
            if self.config.sees_features:
                delta = self._delta(level, now, mean, current.grid, motion)
            else:
                delta = self._offset(level, now)
            levels.append(torch.where(valid[:, None, None], mean + delta, now))
        return replace(current, levels=tuple(levels))

    def _offset(self, level: int, tokens: Tensor) -> Tensor:
        class_token = self.offsets['class_token'][level].expand(1, -1)
        patches = self.offsets['patches'][level].expand(tokens.shape[1] - 1, -1)
        return torch.cat((class_token, patches))

    def _delta(
        self, level: int, now: Tensor, mean: Tensor, grid: tuple[int, int], motion: Tensor
    ) -> Tensor:
        """Give what to add to the tokens (B, 1 + N, C) of one level; ``motion`` is (B, 3)."""
        shape = (self.config.channels,)
        seen = []
        if self.config.current:
            seen.append(functional.layer_norm(now, shape))
        if self.config.memory:
            seen.append(functional.layer_norm(mean, shape))
            seen.append(motion.to(now.dtype)[:, None].expand(-1, now.shape[1], -1))
        stacked = torch.cat(seen, dim=-1)  # (B, 1 + N, S)
        class_delta = self.class_token[level](stacked[:, :1])
        patches = stacked[:, 1:].transpose(1, 2).unflatten(2, grid)  # (B, S, h, w)
        patch_delta = self.patches[level](patches).flatten(2).transpose(1, 2)
        return torch.cat((class_delta, patch_delta), dim=1)


def _zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
