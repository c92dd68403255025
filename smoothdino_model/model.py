# SPDX-License-Identifier: Apache-2.0
"""The whole network: encoder, shift, temporal adapter, decoder, with its state outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothdino_model.adapter import TemporalAdapter
from smoothdino_model.backbone import DepthBackbone, Features
from smoothdino_model.phase_correlation import phase_correlate, windowed_spectrum


@dataclass(frozen=True, eq=False)
class TemporalState:
    """What the next frame needs of this one, for a batch of B cameras.

    ``spectrum`` is the transform of the grey image, ``features`` those handed on. Where ``valid``
    (B,) is False a camera has no previous frame. ``shift_px`` (B, 2), (dx, dy) in pixels of the
    frame, and ``confidence`` (B,) tell what was measured on the way to this state, zero at a first
    frame.
    """

    features: Features
    spectrum: Tensor
    valid: Tensor
    shift_px: Tensor
    confidence: Tensor

    @staticmethod
    def join(states: Sequence[TemporalState | None]) -> TemporalState | None:
        """Make one batch of single cameras' states; ``None`` stands for a first frame."""
        known = next((state for state in states if state is not None), None)
        if known is None or len(states) == 1:
            return known
        blank = replace(known, valid=torch.zeros_like(known.valid))
        parts = [state if state is not None else blank for state in states]
        levels = zip(*(part.features.levels for part in parts), strict=True)
        return TemporalState(
            features=replace(known.features, levels=tuple(torch.cat(level) for level in levels)),
            spectrum=torch.cat([part.spectrum for part in parts]),
            valid=torch.cat([part.valid for part in parts]),
            shift_px=torch.cat([part.shift_px for part in parts]),
            confidence=torch.cat([part.confidence for part in parts]),
        )

    def split(self) -> list[TemporalState]:
        """Give the states of the single cameras, each a batch of one."""
        if len(self.valid) == 1:
            return [self]
        # Cloned: a view would keep the whole batch alive for as long as one camera needs it.
        return [
            TemporalState(
                features=replace(
                    self.features,
                    levels=tuple(level[i : i + 1].clone() for level in self.features.levels),
                ),
                spectrum=self.spectrum[i : i + 1].clone(),
                valid=self.valid[i : i + 1].clone(),
                shift_px=self.shift_px[i : i + 1].clone(),
                confidence=self.confidence[i : i + 1].clone(),
            )
            for i in range(len(self.valid))
        ]


class SmoothDino(nn.Module):
    """A depth backbone with a temporal adapter on its features.

    Without an adapter it is the plain backbone and keeps no state.
    """

    def __init__(self, backbone: DepthBackbone, adapter: TemporalAdapter | None = None) -> None:
        super().__init__()
        if adapter is not None:
            expected = (backbone.channels, backbone.n_levels)
            came = (adapter.config.channels, adapter.config.n_levels)
            if expected != came:
                raise ValueError(
                    f'the adapter was made for {came[1]} levels of {came[0]} channels, the '
                    f'backbone gives {expected[1]} of {expected[0]}: take an adapter trained for '
                    'this backbone'
                )
        self.backbone = backbone
        self.adapter = adapter

    def forward(
        self, rgb: Tensor, state: TemporalState | None = None
    ) -> tuple[Tensor, TemporalState | None]:
        """Give depth (B, H, W) in metres for RGB uint8 (B, H, W, 3), and the next state.

        ``state`` is what the call on the previous frames returned, ``None`` at the first ones.
        """
        network_input = self.backbone.preprocess(rgb)
        features = self.backbone.encode_input(network_input)
        if self.adapter is None:
            return self.backbone.decode(features), None
        spectrum = windowed_spectrum(self.backbone.luma(network_input))
        features, next_state = self.adapt(features, spectrum, state)
        return self.backbone.decode(features), next_state

    def adapt(
        self, features: Features, spectrum: Tensor, state: TemporalState | None
    ) -> tuple[Features, TemporalState]:
        """Adapt encoded frames; training calls this on features that it has kept."""
        if self.adapter is None:
            raise ValueError('expected a model with an adapter, got one without')
        batch = len(spectrum)
        if state is None:
            nothing = spectrum.real.new_zeros(batch, 2)
            valid = torch.ones(batch, dtype=torch.bool, device=spectrum.device)
            return features, TemporalState(features, spectrum, valid, nothing, nothing[:, 0])
        if state.features.frame_size != features.frame_size or len(state.valid) != batch:
            raise ValueError(
                f'expected frames like those of the state, {len(state.valid)} of '
                f'{state.features.frame_size}, got {batch} of {features.frame_size}; '
                'start afresh with state=None'
            )
        at = features.content
        shift_input_px, confidence = phase_correlate(state.spectrum, spectrum, width=at.width)
        confidence = torch.where(state.valid, confidence, 0)
        shift_input_px = torch.where(state.valid[:, None], shift_input_px, 0)
        adapted = self.adapter(
            features,
            state.features,
            shift_patches=shift_input_px / self.backbone.patch,
            confidence=confidence,
            valid=state.valid,
        )
        height, width = features.frame_size
        scale = shift_input_px.new_tensor((width / at.width, height / at.height))
        return adapted, TemporalState(
            features=adapted if self.adapter.config.recurrent else features,
            spectrum=spectrum,
            valid=torch.ones_like(state.valid),
            shift_px=shift_input_px * scale,
            confidence=confidence,
        )
