# SPDX-License-Identifier: Apache-2.0
"""The whole network: encoder, shift, temporal adapter, decoder, with its state outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothdino_model.network.adapter import TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone, Features
from smoothdino_model.network.phase_correlation import phase_correlate, windowed_spectrum


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

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *self.features.levels, self.spectrum, self.valid, self.shift_px, self.confidence

    def each(self, change: Callable[[Tensor], Tensor]) -> TemporalState:
        """Give the state of the same frames with every tensor changed."""
        return self.with_tensors([change(tensor) for tensor in self.tensors])

    def with_tensors(self, tensors: Sequence[Tensor]) -> TemporalState:
        *levels, spectrum, valid, shift_px, confidence = tensors
        features = replace(self.features, levels=tuple(levels))
        return TemporalState(features, spectrum, valid, shift_px, confidence)

    @staticmethod
    def join(states: Sequence[TemporalState | None]) -> TemporalState | None:
        """Make one batch of single cameras' states; ``None`` stands for a first frame."""
        known = next((state for state in states if state is not None), None)
        if known is None or len(states) == 1:
            return known
        blank = replace(known, valid=torch.zeros_like(known.valid))
        parts = [(blank if state is None else state).tensors for state in states]
        return known.with_tensors([torch.cat(tensors) for tensors in zip(*parts, strict=True)])

    def split(self) -> list[TemporalState]:
        """Give the states of the single cameras, each a batch of one."""
        if len(self.valid) == 1:
            return [self]
        # Cloned: a view would keep the whole batch alive for as long as one camera needs it.
        return [
            self.with_tensors([tensor[i : i + 1].clone() for tensor in self.tensors])
            for i in range(len(self.valid))
        ]


# (rgb, state) -> (depth_m, state): a model, or an engine that runs one.
Step = Callable[[Tensor, TemporalState | None], tuple[Tensor, TemporalState | None]]


@dataclass(frozen=True, eq=False)
class Motion:
    """How frames moved since the previous ones, as measured in the network's input.

    ``shift_input_px`` (B, 2) is (dx, dy), ``confidence`` (B,) in [0, 1] and ``spectrum`` that of
    the frames.
    """

    shift_input_px: Tensor
    confidence: Tensor
    spectrum: Tensor

    def state_with(self, features: Features) -> TemporalState:
        """Give the state of these frames, of which ``features`` are kept for the next ones."""
        height, width = features.frame_size
        at = features.content
        dx, dy = self.shift_input_px.unbind(dim=1)
        return TemporalState(
            features=features,
            spectrum=self.spectrum,
            valid=torch.ones_like(self.confidence, dtype=torch.bool),
            shift_px=torch.stack((dx * (width / at.width), dy * (height / at.height)), dim=1),
            confidence=self.confidence,
        )


def first_state(features: Features, spectrum: Tensor) -> TemporalState:
    """Give the state after the first frames."""
    batch = len(spectrum)
    nothing = spectrum.real.new_zeros(batch, 2)
    valid = torch.ones(batch, dtype=torch.bool, device=spectrum.device)
    return TemporalState(features, spectrum, valid, nothing, nothing[:, 0])


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
        if state is None:
            return features, first_state(features, spectrum)
        motion = self.measure(spectrum, features, state)
        adapted = self.adapter(
            features,
            state.features,
            shift_patches=motion.shift_input_px / self.backbone.patch,
            confidence=motion.confidence,
            valid=state.valid,
        )
        kept = adapted if self.adapter.config.recurrent else features
        return adapted, motion.state_with(kept)

    def measure(self, spectrum: Tensor, frames: Features, state: TemporalState) -> Motion:
        """Measure how the frames moved since those of ``state``.

        Of ``frames`` only the geometry counts, not the levels.
        """
        batch = len(spectrum)
        if state.features.frame_size != frames.frame_size or len(state.valid) != batch:
            raise ValueError(
                f'expected frames like those of the state, {len(state.valid)} of '
                f'{state.features.frame_size}, got {batch} of {frames.frame_size}; '
                'start afresh with state=None'
            )
        shift_input_px, confidence = phase_correlate(
            state.spectrum, spectrum, width=frames.content.width
        )
        return Motion(
            shift_input_px=torch.where(state.valid[:, None], shift_input_px, 0),
            confidence=torch.where(state.valid, confidence, 0),
            spectrum=spectrum,
        )
