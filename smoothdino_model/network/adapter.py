# SPDX-License-Identifier: Apache-2.0
"""The temporal adapter: what the previous frame adds to the features of the current one."""

from __future__ import annotations

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
    plain frame's FLOPs. ``current`` and ``previous`` say whose features it sees; with neither it
    is one constant offset per channel, which is all that a published SmoothDINOv2 checkpoint
    amounts to, and with the current ones alone it knows nothing of time. ``align`` first moves the
    previous features by the measured shift, ``gated`` multiplies them by its confidence, and
    ``recurrent`` takes the adapted features of the previous frame instead of the encoder's. A
    shift measured with less than ``min_confidence`` counts as none.
    """

    channels: int
    n_levels: int = 4
    hidden: int = 192
    current: bool = True
    previous: bool = True
    align: bool = True
    recurrent: bool = False
    gated: bool = False
    min_confidence: float = 0.5

    def __post_init__(self) -> None:
        for name in ('channels', 'n_levels', 'hidden'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}: expected at least 1, got {getattr(self, name)}')
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f'min_confidence: expected 0 to 1, got {self.min_confidence}')

    @property
    def sees_features(self) -> bool:
        return self.current or self.previous

    @property
    def seen(self) -> int:
        """Channels that the layers see."""
        motion = _MOTION_CHANNELS if self.previous else 0
        return self.channels * (self.current + self.previous) + motion

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

    The output is the current features plus what the layers say, so that before any training it
    equals the current features bit for bit. Only the *last* layer starts at zero (as in
    ControlNet, Zhang et al. 2023): with all layers zero no gradient would reach the weights.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
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
        previous: Features,
        *,
        shift_patches: Tensor,
        confidence: Tensor,
        valid: Tensor,
    ) -> Features:
        """Adapt ``current``, given the features of the previous frame.

        ``shift_patches`` (B, 2) is (dx, dy) from previous to current in patches, ``confidence``
        (B,) in [0, 1]. Where ``valid`` (B,) is False there is no previous frame and the current
        features come out unchanged.
        """
        confidence = torch.where(confidence < self.config.min_confidence, 0, confidence)
        shift_patches = torch.where(confidence[:, None] > 0, shift_patches, 0)
        motion = torch.cat((shift_patches, confidence[:, None]), dim=1)
        levels = []
        for level, tokens in enumerate(current.levels):
            if self.config.sees_features:
                delta = self._delta(level, tokens, previous.levels[level], current.grid, motion)
            else:
                delta = self._offset(level, tokens)
            levels.append(torch.where(valid[:, None, None], tokens + delta, tokens))
        return replace(current, levels=tuple(levels))

    def _offset(self, level: int, tokens: Tensor) -> Tensor:
        class_token = self.offsets['class_token'][level].expand(1, -1)
        patches = self.offsets['patches'][level].expand(tokens.shape[1] - 1, -1)
        return torch.cat((class_token, patches))

    def _delta(
        self, level: int, tokens: Tensor, previous: Tensor, grid: tuple[int, int], motion: Tensor
    ) -> Tensor:
        """Give what to add to one level's tokens (B, 1 + N, C).

        ``motion`` is (B, 3) in full precision: half of it would round a shift of many patches to
        a third of a pixel.
        """
        rounded = motion.to(tokens.dtype)[:, None]  # (B, 1, 3)
        rows, columns = grid
        shape = (self.config.channels,)
        seen = []
        if self.config.current:
            seen.append(functional.layer_norm(tokens, shape))
        if self.config.previous:
            if self.config.align:
                previous = _moved(previous, grid, motion[:, :2])
            previous = functional.layer_norm(previous, shape)
            if self.config.gated:
                previous = previous * rounded[:, :, 2:]
            seen.append(previous)
            seen.append(rounded.expand(-1, tokens.shape[1], -1))
        stacked = torch.cat(seen, dim=-1)  # (B, 1 + N, S)
        class_delta = self.class_token[level](stacked[:, :1])
        patches = stacked[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))  # (B, S, h, w)
        patch_delta = self.patches[level](patches).flatten(2).transpose(1, 2)
        return torch.cat((class_delta, patch_delta), dim=1)


def _moved(tokens: Tensor, grid: tuple[int, int], shift_patches: Tensor) -> Tensor:
    """Move the patches of ``tokens`` (B, 1 + N, C) by (dx, dy); the borders are continued."""
    rows, columns = grid
    device = tokens.device
    y = torch.arange(rows, device=device) + 0.5 - shift_patches[:, 1:]  # (B, rows)
    x = torch.arange(columns, device=device) + 0.5 - shift_patches[:, :1]  # (B, columns)
    positions = torch.stack(
        (
            (2 * x / columns - 1)[:, None, :].expand(-1, rows, -1),
            (2 * y / rows - 1)[:, :, None].expand(-1, -1, columns),
        ),
        dim=-1,
    )  # (B, rows, columns, 2)
    patches = tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))
    moved = functional.grid_sample(
        patches.float(), positions, mode='bilinear', padding_mode='border', align_corners=False
    ).to(tokens.dtype)
    return torch.cat((tokens[:, :1], moved.flatten(2).transpose(1, 2)), dim=1)


def _zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
