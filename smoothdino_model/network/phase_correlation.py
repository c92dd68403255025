# SPDX-License-Identifier: Apache-2.0
"""The shift between two frames by phase correlation (Kuglin and Hines 1975), batched.

The sub-pixel peak is found by an upsampled DFT around the highest pixel (Guizar-Sicairos et al.
2008) and a parabola through its neighbours. Without a window the borders of the image pin the peak
to zero; the Hann window is what makes the measurement work on real frames.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

LEAST_CONFIDENCE = 0.5  # a shift that was measured with less is not to be believed
_UPSAMPLING = 10  # samples per pixel of the refined correlation
_REACH_PX = 1.0  # how far around the highest pixel the refined correlation extends
# Real motion is not one shift: parallax splits the peak. A Gaussian of this width joins its parts.
_PEAK_SIGMA_PX = 0.7
_SIDE_LOBE_PX = 5  # the second peak, which confidence compares with, is sought beyond this
_SIZES_KEPT = 16


class PhaseCorrelation:
    """Spectra of grey images of one (height, width), and the shift between two of them.

    What depends on the size alone is made once, on the device. A frame brings no number from
    Python to the device and asks it for none, so that its work can be recorded as a CUDA graph.
    """

    def __init__(self, height: int, width: int, device: torch.device | str) -> None:
        self.height, self.width = height, width
        window_y = torch.hann_window(height, periodic=False, device=device)
        window_x = torch.hann_window(width, periodic=False, device=device)
        self._window = window_y[:, None] * window_x  # (H, W)
        y = torch.fft.fftfreq(height, device=device)
        x = torch.fft.rfftfreq(width, device=device)
        self._low_pass = torch.exp(
            -2 * (math.pi * _PEAK_SIGMA_PX) ** 2 * (y[:, None] ** 2 + x**2)
        )  # (H, W // 2 + 1)
        self._turn_y, self._turn_x = 2 * math.pi * y, 2 * math.pi * x  # radians per pixel
        # Every column but the first (and, for even widths, the last) stands for two of the full
        # DFT: 0 at these, 1 elsewhere, plus 1.
        column = torch.arange(len(x), device=device)
        self._columns_full = 1 + ((column > 0) & (2 * column != width)).float()
        self._rows = torch.arange(height, device=device)
        self._columns = torch.arange(width, device=device)
        steps = round(_REACH_PX * _UPSAMPLING)
        self._fine = torch.arange(-steps, steps + 1, device=device) / _UPSAMPLING  # (K,)

    def spectrum(self, gray: Tensor) -> Tensor:
        """Transform images (B, H, W) to complex (B, H, W // 2 + 1), mean removed, Hann window."""
        gray = gray.float()
        rounding = 1e-5 * gray.abs().amax(dim=(1, 2), keepdim=True)
        gray = gray - gray.mean(dim=(1, 2), keepdim=True)
        # In a featureless image all that is left is rounding, which would correlate with itself.
        featureless = gray.abs().amax(dim=(1, 2), keepdim=True) <= rounding
        return torch.fft.rfft2(gray.masked_fill(featureless, 0) * self._window)

    def shift(self, previous: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Measure how far the content moved between two spectra, see :func:`phase_correlate`."""
        phase = self._phase(previous, current)
        correlation = torch.fft.irfft2(phase, s=(self.height, self.width))  # (B, H, W)
        highest, index = correlation.flatten(1).max(dim=1)
        row, column = index // self.width, index % self.width
        confidence = self._confidence(correlation, highest, row, column)
        shift_px = self._refined(phase, _signed(column, self.width), _signed(row, self.height))
        return shift_px.masked_fill((confidence <= 0)[:, None], 0), confidence

    def _phase(self, previous: Tensor, current: Tensor) -> Tensor:
        cross = current * previous.conj()
        power = cross.real.square() + cross.imag.square()  # a fifth of the time of abs()
        # Frequencies this far below the strongest one hold nothing but rounding.
        floor = 1e-9 * power.amax(dim=(1, 2), keepdim=True).sqrt() + 1e-12
        return cross * (self._low_pass * power.rsqrt()).masked_fill(power <= floor.square(), 0)

    def _confidence(
        self, correlation: Tensor, highest: Tensor, row: Tensor, column: Tensor
    ) -> Tensor:
        from_row = (self._rows - row[:, None]).abs()
        from_column = (self._columns - column[:, None]).abs()
        near_row = torch.minimum(from_row, self.height - from_row) <= _SIDE_LOBE_PX  # (B, H)
        near_column = torch.minimum(from_column, self.width - from_column) <= _SIDE_LOBE_PX
        # What is not near lies in a far row or in a far column.
        second = torch.maximum(
            correlation.amax(dim=2).masked_fill(near_row, 0).amax(dim=1),
            correlation.amax(dim=1).masked_fill(near_column, 0).amax(dim=1),
        )
        certain = 1 - second / highest.clamp(min=1e-12)
        return certain.masked_fill(highest <= 0, 0).clamp(0, 1)

    def fine_correlation(self, phase: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Sample the correlation (B, K, L), H * W times what irfft2 gives, at y (B, K), x (B, L).

        ``phase`` is (B, H, W // 2 + 1); positions are in pixels.
        """
        wave_y = _unit(y[:, :, None] * self._turn_y)  # (B, K, H)
        wave_x = _unit(x[:, :, None] * self._turn_x) * self._columns_full  # (B, L, W // 2 + 1)
        return torch.einsum('bkh,bhw,blw->bkl', wave_y, phase, wave_x).real

    def _refined(self, phase: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
        """Sample the correlation finely around (dx, dy) and return its peak (B, 2) as (dx, dy)."""
        x, y = dx[:, None] + self._fine, dy[:, None] + self._fine  # (B, K) each
        fine = self.fine_correlation(phase, x, y)
        k = fine.shape[2]
        index = fine.flatten(1).argmax(dim=1)
        row = (index // k).clamp(1, k - 2)[:, None]
        column = (index % k).clamp(1, k - 2)[:, None]

        def at(down: int, right: int) -> Tensor:
            return fine.flatten(1).gather(1, (row + down) * k + column + right)

        peak_x = x.gather(1, column) + _vertex(at(0, -1), at(0, 0), at(0, 1))
        peak_y = y.gather(1, row) + _vertex(at(-1, 0), at(0, 0), at(1, 0))
        return torch.cat((peak_x, peak_y), dim=1)


@lru_cache(maxsize=_SIZES_KEPT)
def phase_correlation(height: int, width: int, device: torch.device) -> PhaseCorrelation:
    """Give the one object of a size on a device."""
    with torch.inference_mode(False):  # its tensors serve training as well
        return PhaseCorrelation(height, width, device)


def windowed_spectrum(gray: Tensor) -> Tensor:
    """Transform grey images (B, H, W) to complex (B, H, W // 2 + 1), mean removed, Hann window."""
    return phase_correlation(*gray.shape[1:], gray.device).spectrum(gray)


def phase_correlate(previous: Tensor, current: Tensor, *, width: int) -> tuple[Tensor, Tensor]:
    """Measure how far the content moved from ``previous`` to ``current``.

    Both are spectra (B, H, width // 2 + 1) from :func:`windowed_spectrum`. Returns ``shift_px``
    (B, 2), (dx, dy) in pixels with dx > 0 where content moved to the right and dy > 0 where it
    moved down, as ``cv2.phaseCorrelate(previous, current)`` does; and ``confidence`` (B,) in
    [0, 1]: one minus the second peak over the first, 0 where there is nothing to correlate.
    """
    return phase_correlation(current.shape[1], width, current.device).shift(previous, current)


def _signed(index: Tensor, size: int) -> Tensor:
    """Read the upper half of the circular positions as negative shifts."""
    return torch.where(index > (size - 1) // 2, index - size, index).float()


def _unit(angle: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(angle), angle)


def _vertex(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """Offset in pixels of the vertex of the parabola through three fine samples, within one."""
    curvature = before - 2 * at + after
    flat = curvature >= 0
    offset = 0.5 * (before - after) / torch.where(flat, torch.ones_like(curvature), curvature)
    return torch.where(flat, torch.zeros_like(offset), offset).clamp(-1, 1) / _UPSAMPLING
