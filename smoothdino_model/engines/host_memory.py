# SPDX-License-Identifier: Apache-2.0
"""The way between this machine's memory and a device's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smoothdino_model.engines.one_piece import in_one_piece, parts_of


class HostMemory:
    """Brings pictures to a device, and what it made of them back.

    A GPU reads and writes page-locked memory by itself. To get some stops the GPU, and what
    somebody keeps of it the whole machine lacks. So there is one piece for each way, as large as
    the largest batch so far, which every batch uses again: :meth:`download` waits for the device,
    so that no more than one batch is under way. Whoever keeps what came copies it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pieces = {'up': torch.empty(0), 'down': torch.empty(0)}

    def upload(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Give uint8 pictures of one shape on the device, (B, *shape), until the next call.

        A batch that failed may still be on its way when the next one is written: its pixels are
        no longer wanted.
        """
        shape = (len(pictures), *pictures[0].shape)
        piece = self._piece('up', int(np.prod(shape))).view(shape)
        np.stack(pictures, out=piece.numpy())
        return piece.to(self._device, non_blocking=True)

    def download(self, *tensors: Tensor) -> list[np.ndarray]:
        """Give tensors as arrays, lent until the next call; in one copy."""
        packed = in_one_piece(tensors)
        piece = self._piece('down', packed.nbytes)
        on_cuda = self._device.type == 'cuda'
        piece.copy_(packed, non_blocking=on_cuda)
        if on_cuda:
            torch.cuda.current_stream(self._device).synchronize()
        return [part.numpy() for part in parts_of(piece, tensors)]

    def _piece(self, way: str, size: int) -> Tensor:
        if self._pieces[way].nbytes < size:
            self._pieces[way] = torch.empty(
                size, dtype=torch.uint8, pin_memory=self._device.type == 'cuda'
            )
        return self._pieces[way][:size]
