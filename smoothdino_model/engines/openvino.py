# SPDX-License-Identifier: Apache-2.0
"""The network in OpenVINO, made of PyTorch's by itself: what `auto` takes on an x86 CPU."""

from __future__ import annotations

import platform
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoothdino_model.engines.export_cache import cached
from smoothdino_model.engines.exported_step import ExportedStep
from smoothdino_model.engines.names import DeviceError
from smoothdino_model.engines.tensor_network import TensorNetwork, quiet
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.one_line import first_line
from smoothdino_model.whole_files import written_whole

FILE_NAME = 'model.xml'  # beside it are the weights, model.bin
PRECISIONS = {'fp32': 'f32', 'bf16': 'bf16'}  # as OpenVINO calls them


class OpenVinoEngine(ExportedStep):
    """Runs the network in OpenVINO on the CPU, one frame of a batch after the other.

    A batch would be no faster, since a CPU's caches hold less of each picture. The network is
    given and gives float32 in each precision.
    """

    def __init__(self, model: SmoothDino, *, precision: str, temporal: bool) -> None:
        super().__init__(model, device=torch.device('cpu'), temporal=temporal)
        self._core = openvino_library().Core()
        self._settings = {
            'INFERENCE_PRECISION_HINT': PRECISIONS[precision],
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
            # Threads that stay on their cores wait there for whatever else runs on them.
            'ENABLE_CPU_PINNING': False,
        }

    def _run(
        self, size: tuple[int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        session = self._session_for(size)
        given = {one.any_name: inputs[one.any_name].contiguous() for one in session.inputs}
        for row in range(len(inputs['pixels'])):
            came = session(
                {name: tensor[row : row + 1].numpy() for name, tensor in given.items()},
                share_inputs=True,
                share_outputs=True,
            )
            for name, tensor in outputs.items():
                tensor[row] = torch.from_numpy(came[name][0])

    def _session(self, size: tuple[int, int]) -> Any:
        file = cached_network(self._model, size=size, temporal=self._temporal)
        return self._core.compile_model(file, 'CPU', self._settings)


def has_openvino() -> bool:
    """Whether it is installed, on a CPU of the kind that it was the fastest engine on."""
    return find_spec('openvino') is not None and platform.machine() in ('x86_64', 'AMD64')


def openvino_library() -> Any:
    # Its import would tell Intel's server of itself, where that package is installed.
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise DeviceError(
            f"engine 'openvino' needs OpenVINO ({first_line(error)}): pip install openvino, or "
            "take engine 'torch'"
        ) from error
    return openvino


def cached_network(model: SmoothDino, *, size: tuple[int, int], temporal: bool) -> Path:
    """Give the network for OpenVINO from the user's cache, where it is made if it is not there.

    Raises :class:`ExportError` where it does not give what PyTorch gives.
    """
    openvino = openvino_library()

    def write(folder: Path) -> None:
        network = TensorNetwork(model, size, temporal).eval()
        both = network.example(batch=2)
        examples = [tuple(tensor[row : row + 1] for tensor in both) for row in range(2)]
        with quiet(), torch.no_grad():
            converted = openvino.convert_model(network, example_input=examples[0])
        inputs, outputs = network.names()
        shapes = {}
        for port, name, tensor in zip(converted.inputs, inputs, examples[0], strict=True):
            port.set_names({name})
            shapes[port] = tensor.shape
        for port, name in zip(converted.outputs, outputs, strict=True):
            port.set_names({name})
        converted.reshape(shapes)
        exact = openvino.compile_model(converted, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
        for example in examples:
            came = exact([tensor.numpy() for tensor in example])
            network.check(example, [came[name] for name in outputs])
        folder.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(folder) as place:
            place.mkdir()
            openvino.save_model(converted, place / FILE_NAME, compress_to_fp16=False)

    return cached(
        model,
        size=size,
        temporal=temporal,
        kind='openvino',
        file_name=FILE_NAME,
        made_with=(openvino.__version__,),
        write=write,
    )
