# SPDX-License-Identifier: Apache-2.0
"""The shift between two frames by phase correlation (Kuglin and Hines 1975), batched.

The sub-pixel peak is found by an upsampled DFT around the highest pixel (Guizar-Sicairos et al.
2008) and a parabola through its neighbours. Without a window the borders of the image pin the peak
to zero; the Hann window is what makes the measurement work on real frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_UPSAMPLING = 10  # samples per pixel of the refined correlation
_REACH_PX = 1.0  # how far around the highest pixel the refined correlation extends
# Real motion is not one shift: parallax splits the peak. A Gaussian of this width joins its parts.
_PEAK_SIGMA_PX = 0.7
_SIDE_LOBE_PX = 5  # the second peak, which confidence compares with, is sought beyond this


def windowed_spectrum(gray: Tensor) -> Tensor:
    """Transform grey images (B, H, W) to complex (B, H, W // 2 + 1), mean removed, Hann window."""
    _, height, width = gray.shape
    gray = gray.float()
    window_y = torch.hann_window(height, periodic=False, device=gray.device)
    window_x = torch.hann_window(width, periodic=False, device=gray.device)
    rounding = 1e-5 * gray.abs().amax(dim=(1, 2), keepdim=True)
    gray = gray - gray.mean(dim=(1, 2), keepdim=True)
    # In a featureless image all that is left now is rounding, which would correlate with itself.
    featureless = gray.abs().amax(dim=(1, 2), keepdim=True) <= rounding
    gray = gray.masked_fill(featureless, 0)
    return torch.fft.rfft2(gray * window_y[:, None] * window_x)


def phase_correlate(previous: Tensor, current: Tensor, *, width: int) -> tuple[Tensor, Tensor]:
    """Measure how far the content moved from ``previous`` to ``current``.

    Both are spectra (B, H, width // 2 + 1) from :func:`windowed_spectrum`. Returns ``shift_px``
    (B, 2), (dx, dy) in pixels with dx > 0 where content moved to the right and dy > 0 where it
    moved down, as ``cv2.phaseCorrelate(previous, current)`` does; and ``confidence`` (B,) in
    [0, 1]: one minus the second peak over the first, 0 where there is nothing to correlate.
    """
    height = current.shape[1]
    cross = current * previous.conj()
    magnitude = cross.abs()
    # Frequencies this far below the strongest one hold nothing but rounding.
    floor = 1e-9 * magnitude.amax(dim=(1, 2), keepdim=True) + 1e-12
    phase = torch.where(magnitude > floor, cross / magnitude.clamp(min=1e-30), 0)
    phase = phase * _low_pass(height, width, phase.device)
    correlation = torch.fft.irfft2(phase, s=(height, width))  # (B, H, W)

    highest, index = correlation.flatten(1).max(dim=1)
    row, column = index // width, index % width
    confidence = _confidence(correlation, highest, row, column)
    dy = _signed(row, height)
    dx = _signed(column, width)
    shift_px = _refine(phase, width, dx, dy)
    return torch.where(confidence[:, None] > 0, shift_px, 0), confidence


def _low_pass(height: int, width: int, device: torch.device) -> Tensor:
    y = torch.fft.fftfreq(height, device=device)[:, None]
    x = torch.fft.rfftfreq(width, device=device)
    return torch.exp(-2 * (math.pi * _PEAK_SIGMA_PX) ** 2 * (y**2 + x**2))


def _signed(index: Tensor, size: int) -> Tensor:
    """Read the upper half of the circular positions as negative shifts."""
    return torch.where(index > (size - 1) // 2, index - size, index).float()


def _confidence(correlation: Tensor, highest: Tensor, row: Tensor, column: Tensor) -> Tensor:
    _, height, width = correlation.shape
    rows = torch.arange(height, device=correlation.device)
    columns = torch.arange(width, device=correlation.device)
    from_row = (rows - row[:, None]).abs()
    from_column = (columns - column[:, None]).abs()
    near_row = torch.minimum(from_row, height - from_row) <= _SIDE_LOBE_PX  # (B, H)
    near_column = torch.minimum(from_column, width - from_column) <= _SIDE_LOBE_PX  # (B, W)
    near = near_row[:, :, None] & near_column[:, None, :]
    second = correlation.masked_fill(near, 0).flatten(1).amax(dim=1)
    return torch.where(
        highest > 0, 1 - second / highest.clamp(min=1e-12), torch.zeros_like(highest)
    ).clamp(0, 1)


def _refine(phase: Tensor, width: int, dx: Tensor, dy: Tensor) -> Tensor:
    """Sample the correlation finely around (dx, dy) and return its peak (B, 2) as (dx, dy)."""
    batch, height, half = phase.shape
    device = phase.device
    steps = round(_REACH_PX * _UPSAMPLING)
    fine = torch.arange(-steps, steps + 1, device=device) / _UPSAMPLING  # (K,)
    y = dy[:, None] + fine  # (B, K)
    x = dx[:, None] + fine
    frequency_y = torch.fft.fftfreq(height, device=device)
    frequency_x = torch.fft.rfftfreq(width, device=device)
    # Every column but the first (and, for even widths, the last) stands for two of the full DFT.
    weight = torch.full((half,), 2.0, device=device)
    weight[0] = 1
    if width % 2 == 0:
        weight[-1] = 1
    wave_y = torch.exp(2j * math.pi * y[:, :, None] * frequency_y)  # (B, K, H)
    wave_x = torch.exp(2j * math.pi * x[:, :, None] * frequency_x) * weight  # (B, K, half)
    fine_correlation = torch.einsum('bkh,bhw,blw->bkl', wave_y, phase, wave_x).real  # (B, K, K)

    k = len(fine)
    index = fine_correlation.flatten(1).argmax(dim=1)
    row = (index // k).clamp(1, k - 2)
    column = (index % k).clamp(1, k - 2)
    item = torch.arange(batch, device=device)
    peak_y = y[item, row] + _vertex(*(fine_correlation[item, row + d, column] for d in (-1, 0, 1)))
    peak_x = x[item, column] + _vertex(
        *(fine_correlation[item, row, column + d] for d in (-1, 0, 1))
    )
    return torch.stack((peak_x, peak_y), dim=1)


def _vertex(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """Offset in pixels of the vertex of the parabola through three fine samples, within one."""
    curvature = before - 2 * at + after
    flat = curvature >= 0
    offset = 0.5 * (before - after) / torch.where(flat, torch.ones_like(curvature), curvature)
    return torch.where(flat, torch.zeros_like(offset), offset).clamp(-1, 1) / _UPSAMPLING
