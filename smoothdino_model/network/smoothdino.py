# SPDX-License-Identifier: Apache-2.0
"""The whole network: encoder, shift, temporal adapter, decoder, with its state outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from smoothdino_model.network.adapter import TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone, Features, NetworkInput
from smoothdino_model.network.floor_looks import FloorLooks
from smoothdino_model.network.memory import Recalled, blend, recall
from smoothdino_model.network.phase_correlation import (
    LEAST_CONFIDENCE,
    phase_correlate,
    windowed_spectrum,
)
from smoothdino_model.network.temporal_state import TemporalState


@dataclass(frozen=True, eq=False)
class Seen:
    """What frames are to the network: their features and, for the shift, their spectrum.

    A network that remembers nothing measures no shift: ``spectrum`` is then None.
    """

    features: Features
    spectrum: Tensor | None

    def of(self, frames: slice) -> Seen:
        """Give some frames of the batch."""
        levels = tuple(level[frames] for level in self.features.levels)
        spectrum = None if self.spectrum is None else self.spectrum[frames]
        return Seen(replace(self.features, levels=levels), spectrum)


@dataclass(frozen=True, eq=False)
class Motion:
    """How frames moved since the previous ones, as measured in the network's input.

    ``shift_input_px`` (B, 2) is (dx, dy), ``confidence`` (B,) in [0, 1] and ``spectrum`` that of
    the frames.
    """

    shift_input_px: Tensor
    confidence: Tensor
    spectrum: Tensor

    @cached_property
    def trusted(self) -> Motion:
        """The same, or none at all where it is not to be trusted."""
        doubtful = self.confidence < LEAST_CONFIDENCE
        return replace(
            self,
            shift_input_px=self.shift_input_px.masked_fill(doubtful[:, None], 0),
            confidence=self.confidence.masked_fill(doubtful, 0),
        )


# (rgb, state) -> (depth_m, state): a model, or an engine that runs one.
Step = Callable[[Tensor, TemporalState | None], tuple[Tensor, TemporalState | None]]


class SmoothDino(nn.Module):
    """A depth backbone that remembers the last frames' features, and an adapter on them.

    Without an adapter, what is decoded is the mean of the current features and those of the last
    ``memory`` frames, each moved to where the current one sees it; an adapter brings the length
    of its own memory and learns what this mean gets wrong. With neither it is the plain backbone
    and keeps no state.
    """

    def __init__(
        self,
        backbone: DepthBackbone,
        adapter: TemporalAdapter | None = None,
        *,
        memory: int = 0,
        floor_looks: FloorLooks | None = None,
    ) -> None:
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
            memory = adapter.config.memory
        if memory < 0:
            raise ValueError(f'memory: expected 0 frames or more, got {memory}')
        self.backbone = backbone
        self.adapter = adapter
        self.memory = memory
        self.floor_looks = floor_looks

    @property
    def temporal(self) -> bool:
        """Whether a frame's depth depends on the frames before it."""
        return self.adapter is not None or self.memory > 0

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
        if not self.temporal:
            return Seen(features, None)
        return Seen(features, windowed_spectrum(self.backbone.luma(network_input)))

    def floor_odds(self, state: TemporalState) -> Tensor | None:
        """Give the log odds (B, rows, columns) that patches of the newest frames are floor.

        None where that is not known of this encoder, or nothing is remembered.
        """
        if self.floor_looks is None or not self.memory:
            return None
        height, width = self.backbone.seen_size(*state.frame_size)
        grid = (height // self.backbone.patch, width // self.backbone.patch)
        return self.floor_looks(state.levels[self.floor_looks.level][:, 0]).unflatten(1, grid)

    def adapt(
        self, seen: Seen, state: TemporalState | None
    ) -> tuple[Features, TemporalState | None]:
        """Give the features to decode, and what is kept for the next frames."""
        if seen.spectrum is None:
            return seen.features, None
        if state is None:
            return seen.features, self.first_state(seen)
        return self.moved_on(seen, state, self.measure(seen, state))

    def moved_on(
        self, seen: Seen, state: TemporalState, motion: Motion
    ) -> tuple[Features, TemporalState]:
        """Adapt frames whose motion since ``state`` is known; give them and the next state."""
        recalled = self.recall(seen.features, state, motion)
        adapted = self.adapt_features(seen.features, recalled, **self.told(state, motion))
        return adapted, self.next_state(seen.features, state, motion)

    def recall(self, frames: Features, state: TemporalState, motion: Motion) -> Recalled:
        """Give what is remembered of what ``frames`` see; of them only the geometry counts."""
        return recall(
            *(state.levels, state.recallable, self._travelled(state, motion)),
            grid=frames.grid,
            dtype=self.backbone.dtype,
        )

    def told(self, state: TemporalState, motion: Motion) -> dict[str, Tensor]:
        """Give what an adapter is told of the motion since ``state``."""
        trusted = motion.trusted
        return {
            'shift_patches': trusted.shift_input_px / self.backbone.patch,
            'confidence': trusted.confidence,
            'valid': state.valid,
        }

    def adapt_features(self, current: Features, recalled: Recalled, **told: Tensor) -> Features:
        """Give the features to decode; ``told`` as :class:`TemporalAdapter` takes it."""
        blended = blend(current, recalled) if self.memory else current
        return blended if self.adapter is None else self.adapter(current, blended, **told)

    def first_state(self, seen: Seen) -> TemporalState:
        """Give the state after the first frames."""
        if seen.spectrum is None:
            raise ValueError('expected frames with their spectrum, got those of a plain backbone')
        batch = len(seen.spectrum)
        nothing = seen.spectrum.real.new_zeros(batch, self.memory, 2)
        newest = torch.arange(self.memory, device=nothing.device) == 0
        return TemporalState(
            levels=tuple(  # of all that are not known, anything does
                _remembered(level)[:, None].expand(-1, self.memory, -1, -1)
                for level in seen.features.levels
            ),
            known=newest.expand(batch, -1),
            travelled=nothing,
            spectrum=seen.spectrum,
            valid=torch.ones(batch, dtype=torch.bool, device=nothing.device),
            shift_px=seen.spectrum.real.new_zeros(batch, 2),
            confidence=seen.spectrum.real.new_zeros(batch),
            frame_size=seen.features.frame_size,
        )

    def next_state(self, frames: Features, state: TemporalState, motion: Motion) -> TemporalState:
        """Give the state after ``frames``, which came after those of ``state``."""
        height, width = frames.frame_size
        at = frames.content
        dx, dy = motion.shift_input_px.unbind(dim=1)
        here = torch.zeros_like(motion.shift_input_px)[:, None]
        seen_now = torch.ones_like(state.valid)[:, None]
        before = max(self.memory - 1, 0)
        return TemporalState(
            levels=tuple(
                torch.cat((_remembered(new)[:, None], old[:, :before]), dim=1)[:, : self.memory]
                for new, old in zip(frames.levels, state.levels, strict=True)
            ),
            known=torch.cat((seen_now, state.recallable[:, :before]), dim=1)[:, : self.memory],
            travelled=torch.cat((here, self._travelled(state, motion)), dim=1)[:, : self.memory],
            spectrum=motion.spectrum,
            valid=torch.ones_like(state.valid),
            shift_px=torch.stack((dx * (width / at.width), dy * (height / at.height)), dim=1),
            confidence=motion.confidence,
            frame_size=frames.frame_size,
        )

    def _travelled(self, state: TemporalState, motion: Motion) -> Tensor:
        """Give how far the picture moved from each remembered frame to the current one."""
        return state.travelled + (motion.trusted.shift_input_px / self.backbone.patch)[:, None]

    def measure(self, seen: Seen, state: TemporalState) -> Motion:
        """Measure how frames moved since those of ``state``.

        Of their features only the geometry counts, not the levels.
        """
        frames, spectrum = seen.features, seen.spectrum
        if spectrum is None:
            raise ValueError('expected frames with their spectrum, got those of a plain backbone')
        state.check_followed_by(len(spectrum), frames.frame_size)
        shift_input_px, confidence = phase_correlate(
            state.spectrum, spectrum, width=frames.content.width
        )
        first = ~state.valid
        return Motion(
            shift_input_px=shift_input_px.masked_fill(first[:, None], 0),
            confidence=confidence.masked_fill(first, 0),
            spectrum=spectrum,
        )


def _remembered(level: Tensor) -> Tensor:
    """What is kept of features: half of what they take in full precision."""
    return level.half() if level.dtype == torch.float32 else level
