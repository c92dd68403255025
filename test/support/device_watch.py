# SPDX-License-Identifier: Apache-2.0
"""What no step on a GPU may do: a CUDA graph cannot record it, and all else waits meanwhile.

PyTorch says by itself which operations ask a tensor for a value and whose results are as large as
their input's values make them. On the CPU a number from Python shows as what makes a tensor of it;
on the meta device, which holds no values, a tensor of the host shows by where it lies.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

VALUE = 'a value is asked for'
PYTHON = 'a tensor is made of Python data'
HOST = 'a tensor lies on the host'
INDEX = 'something is assigned by index'
SIZE = 'a size depends on values'

_MADE_OF_NUMBERS = ('aten::lift_fresh', 'aten::scalar_tensor')
_PARTS = ('aten::select', 'aten::slice')


class DeviceWatch(TorchDispatchMode):
    """Collects in ``found`` what its block does, as (kind, operation); not in inference mode.

    ``device`` is where everything ought to lie.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.n_operations = 0
        self._device = device
        self._parts = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n_operations += 1
        name = func._schema.name
        self._find(VALUE, func, torch.Tag.data_dependent_output in func.tags)
        self._find(SIZE, func, torch.Tag.dynamic_output_shape in func.tags)
        self._find(PYTHON, func, name.startswith(_MADE_OF_NUMBERS))
        written = args[0] if func._schema.is_mutable and args else None
        by_index = isinstance(written, Tensor) and written in self._parts
        self._find(INDEX, func, by_index or name.startswith('aten::index_put'))
        came = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, came)) if isinstance(one, Tensor)]
        self._find(HOST, func, any(one.device.type != self._device.type for one in tensors))
        if name in _PARTS:
            self._parts[came] = None
        return came

    def _find(self, kind: str, func: Any, is_so: bool) -> None:
        if is_so:
            self.found.append((kind, str(func)))
