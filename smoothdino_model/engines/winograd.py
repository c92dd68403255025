# SPDX-License-Identifier: Apache-2.0
"""3x3 convolutions on a CPU with a quarter of the multiplications (Lavin and Gray 2016).

A 4x4 piece of the output comes from a 6x6 piece of the input through 36 products per pair of
channels instead of 144. PyTorch's CPU convolutions run at the rate of its matrix products, so that
only fewer products make them faster. The interpolation points are chosen for accuracy: with them
the result is as exact in float32 as the direct sum, where 0, 1, -1, 2, -2 cost half a digit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_POINTS = (0.0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)
_OUT = 4  # pixels of a piece of the output, each way
_IN = _OUT + 2
_PIECES = 256  # worked on at a time: what they need stays in the cache
_LEAST_CHANNELS = 64  # below, the transforms cost more than the products that they save


def with_winograd(module: nn.Module) -> nn.Module:
    """Put :class:`WinogradConv2d` where it pays among the children; names and weights stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and _pays(child):
            setattr(module, name, WinogradConv2d(child))
        else:
            with_winograd(child)
    return module


def _pays(conv: nn.Conv2d) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == conv.padding == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == 'zeros'
        and min(conv.in_channels, conv.out_channels) >= _LEAST_CHANNELS
    )


class WinogradConv2d(nn.Conv2d):
    """What ``conv``, a float32 3x3 convolution of stride and padding 1, gives; inference only.

    Takes and gives (B, C, H, W), fastest in channels_last. The weights are read once, here.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, 3, padding=1, bias=False, device='meta'
        )
        self.weight, self.bias = conv.weight, conv.bias
        gather, kernel, scatter = (torch.from_numpy(m) for m in _transforms(_POINTS, _OUT))
        # Both axes at once: the product of a 36x36 matrix with 36 rows is a fast one.
        self.register_buffer('_gather', torch.kron(gather, gather).float(), persistent=False)
        self.register_buffer('_scatter', torch.kron(scatter, scatter).float(), persistent=False)
        with torch.no_grad():
            products = torch.einsum('ia,jb,ocab->ijco', kernel, kernel, conv.weight.double())
        self.register_buffer('_products', products.flatten(0, 1).float(), persistent=False)
        self._gather: Tensor  # (36, 36)
        self._scatter: Tensor  # (16, 36)
        self._products: Tensor  # (36, C, O)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        batch, _, height, width = image.shape
        down, across = -(-height // _OUT), -(-width // _OUT)
        margins = (0, 0, 1, across * _OUT + 1 - width, 1, down * _OUT + 1 - height)
        padded = functional.pad(image.permute(0, 2, 3, 1), margins)  # (B, H', W', C)
        out = padded.new_empty(batch, down * _OUT, across * _OUT, self.out_channels)
        step = max(1, _PIECES // across)
        for padded_one, out_one in zip(padded, out, strict=True):
            for first in range(0, down, step):
                last = min(first + step, down)
                strip = padded_one[first * _OUT : last * _OUT + 2]
                out_one[first * _OUT : last * _OUT] = self._strip(strip, last - first, across)
        return out[:, :height, :width].permute(0, 3, 1, 2)

    def _strip(self, strip: Tensor, down: int, across: int) -> Tensor:
        """Convolve ``down`` rows of pieces, (4 down + 2, 4 across + 2, C)."""
        pieces = strip.unfold(0, _IN, _OUT).unfold(1, _IN, _OUT)  # (down, across, C, 6, 6)
        pieces = pieces.permute(0, 1, 3, 4, 2).reshape(down * across, _IN * _IN, -1)
        seen = torch.matmul(self._gather, pieces)  # (pieces, 36, C)
        products = torch.bmm(seen.transpose(0, 1), self._products)  # (36, pieces, O)
        result = torch.matmul(self._scatter, products.transpose(0, 1))  # (pieces, 16, O)
        if self.bias is not None:
            result += self.bias
        result = result.unflatten(1, (_OUT, _OUT)).unflatten(0, (down, across))
        return result.transpose(1, 2).reshape(down * _OUT, across * _OUT, -1)


def _transforms(points: tuple[float, ...], out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the matrices of Toom and Cook for ``out`` values of a correlation with three weights.

    Input (n, n), weights (n, 3) and output (out, n) of n = len(points) + 1, infinity being the
    last point: correlation(d, g) = output @ ((weights @ g) * (input @ d)).
    """
    n = len(points) + 1
    at = np.array(points)
    gather, kernel, scatter = np.zeros((n, n)), np.zeros((n, 3)), np.zeros((out, n))
    for i, point in enumerate(at):
        others = np.delete(at, i)
        gather[i, :-1] = np.poly(others)[::-1]
        kernel[i] = point ** np.arange(3) / np.prod(point - others)
        scatter[:, i] = point ** np.arange(out)
    gather[-1] = np.poly(at)[::-1]
    kernel[-1, -1] = scatter[-1, -1] = 1
    return gather, kernel, scatter
