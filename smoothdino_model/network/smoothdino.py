# SPDX-License-Identifier: Apache-2.0
"""The whole network: encoder, shift, temporal adapter, decoder, with its state outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothdino_model.network.adapter import TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone, Features, NetworkInput
from smoothdino_model.network.phase_correlation import phase_correlate, windowed_spectrum


@dataclass(frozen=True, eq=False)
class Seen:
    """What frames are to the network: their features and, for the shift, their spectrum.

    A network without an adapter measures no shift: ``spectrum`` is then None.
    """

    features: Features
    spectrum: Tensor | None

    def of(self, frames: slice) -> Seen:
        """Give some frames of the batch."""
        levels = tuple(level[frames] for level in self.features.levels)
        spectrum = None if self.spectrum is None else self.spectrum[frames]
        return Seen(replace(self.features, levels=levels), spectrum)


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


def first_state(seen: Seen) -> TemporalState:
    """Give the state after the first frames."""
    if seen.spectrum is None:
        raise ValueError('expected frames with their spectrum, got those of no adapter')
    batch = len(seen.spectrum)
    nothing = seen.spectrum.real.new_zeros(batch, 2)
    valid = torch.ones(batch, dtype=torch.bool, device=nothing.device)
    return TemporalState(seen.features, seen.spectrum, valid, nothing, nothing[:, 0])


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
        features, next_state = self.adapt(self.see(rgb), state)
        return self.backbone.decode(features), next_state

    def see(self, rgb: Tensor, encode: Callable[[NetworkInput], Features] | None = None) -> Seen:
        """Give what RGB uint8 (B, H, W, 3) is to the network.

        ``encode`` takes the place of the encoder, for features that are kept or made elsewhere.
        """
        network_input = self.backbone.preprocess(rgb)
        return self.seen(network_input, (encode or self.backbone.encode_input)(network_input))

    def seen(self, network_input: NetworkInput, features: Features) -> Seen:
        if self.adapter is None:
            return Seen(features, None)
        return Seen(features, windowed_spectrum(self.backbone.luma(network_input)))

    def adapt(
        self, seen: Seen, state: TemporalState | None
    ) -> tuple[Features, TemporalState | None]:
        """Give the features to decode, and what is kept for the next frames."""
        if self.adapter is None or seen.spectrum is None:
            return seen.features, None
        if state is None:
            return seen.features, first_state(seen)
        return self.moved_on(seen, state, self.measure(seen, state))

    def moved_on(
        self, seen: Seen, state: TemporalState, motion: Motion
    ) -> tuple[Features, TemporalState]:
        """Adapt frames whose motion since ``state`` is known; give them and the next state."""
        adapted, kept = self.adapt_features(
            seen.features,
            state.features,
            shift_patches=motion.shift_input_px / self.backbone.patch,
            confidence=motion.confidence,
            valid=state.valid,
        )
        return adapted, motion.state_with(kept)

    def adapt_features(
        self, current: Features, previous: Features, **motion: Tensor
    ) -> tuple[Features, Features]:
        """Adapt features, see :class:`TemporalAdapter`; give them, and those to be kept."""
        if self.adapter is None:
            raise ValueError('expected a model with an adapter, got one without')
        adapted = self.adapter(current, previous, **motion)
        return adapted, adapted if self.adapter.config.recurrent else current

    def measure(self, seen: Seen, state: TemporalState) -> Motion:
        """Measure how frames moved since those of ``state``.

        Of their features only the geometry counts, not the levels.
        """
        frames, spectrum = seen.features, seen.spectrum
        if spectrum is None:
            raise ValueError('expected frames with their spectrum, got those of no adapter')
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
