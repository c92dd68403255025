# SPDX-License-Identifier: Apache-2.0
"""The network in eight bits, in the ways that OpenVINO and ONNX Runtime offer.

None of them is an engine of the package: docs/performance.md tells why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothdino_model.engines.exported_step import ExportedStep
from smoothdino_model.engines.onnx import OnnxEngine
from smoothdino_model.engines.openvino import OpenVinoEngine, cached_network, openvino_library
from smoothdino_model.engines.tensor_network import TensorNetwork
from smoothdino_model.network.smoothdino import SmoothDino, Step
from training.data.clips import Clip

CPU = torch.device('cpu')
Given = list[dict[str, np.ndarray]]  # what the network is given, by the names of its inputs


class OnnxFile(OnnxEngine):
    """Runs another file than the exported one in ONNX Runtime."""

    def __init__(self, model: SmoothDino, file: Path) -> None:
        super().__init__(model, engine='onnxruntime', device=CPU, temporal=True)
        self._file = file

    def _exported(self, size: tuple[int, int]) -> Path:
        return self._file


class OpenVinoNetwork(OpenVinoEngine):
    """Runs another network than the one that was made of PyTorch's in OpenVINO."""

    def __init__(
        self, model: SmoothDino, network: Any, settings: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        super().__init__(model, precision='bf16', temporal=True)
        self._settings |= settings
        self._network = network

    def _session(self, size: tuple[int, int]) -> Any:
        return self._core.compile_model(self._network, 'CPU', self._settings)


class Recorder(ExportedStep):
    """Runs the network in PyTorch as exporters see it, and keeps what it is given."""

    def __init__(self, model: SmoothDino) -> None:
        super().__init__(model, device=CPU, temporal=True)
        self.given: Given = []

    def _session(self, size: tuple[int, int]) -> TensorNetwork:
        return TensorNetwork(self._model, size, temporal=True).eval()

    def _run(
        self, size: tuple[int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        network = self._session_for(size)
        taken, made = network.names()
        self.given.append({name: inputs[name].numpy().copy() for name in taken})
        for name, tensor in zip(made, network(*(inputs[one] for one in taken)), strict=True):
            outputs[name].copy_(tensor)


@torch.inference_mode()
def given(model: SmoothDino, clips: list[Clip], most: int) -> Given:
    """Give what the network is given at ``most`` frames spread over each clip."""
    recorder = Recorder(model)
    for clip in clips:
        state = None
        for position in np.linspace(0, len(clip) - 1, min(most, len(clip))).round():
            _, state = recorder(torch.from_numpy(clip.read([int(position)]).rgb), state)
    return recorder.given


def by_openvino(model: SmoothDino, size: tuple[int, int], given: Given) -> dict[str, Step]:
    """Quantise by NNCF: by what the network was given, or in groups by what it will be given."""
    import nncf

    logging.getLogger('nncf').setLevel(logging.ERROR)
    core = openvino_library().Core()
    file = cached_network(model, size=size, temporal=True)
    static = nncf.quantize(
        core.read_model(file),
        nncf.Dataset(given),
        subset_size=len(given),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    weights = nncf.CompressWeightsMode.INT8_SYM
    dynamic = nncf.compress_weights(core.read_model(file), mode=weights)
    groups = {'DYNAMIC_QUANTIZATION_GROUP_SIZE': 64}  # of channels; larger groups are no faster
    return {
        'openvino int8, static': OpenVinoNetwork(model, static),
        'openvino int8, dynamic': OpenVinoNetwork(model, dynamic, groups),
    }


def by_onnxruntime(
    model: SmoothDino, exported: Path, given: Given, folder: Path
) -> dict[str, Step]:
    """Quantise by what the network was given, and by what it will be given."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(given)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    files = {name: folder / f'{name}.onnx' for name in ('static', 'dynamic')}
    common: dict[str, Any] = {'per_channel': True, 'weight_type': QuantType.QInt8}
    quantize_static(
        exported,
        files['static'],
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        op_types_to_quantize=['MatMul', 'Gemm', 'Conv'],
        **common,
    )
    quantize_dynamic(exported, files['dynamic'], op_types_to_quantize=['MatMul', 'Gemm'], **common)
    return {f'onnxruntime int8, {name}': OnnxFile(model, file) for name, file in files.items()}
