# SPDX-License-Identifier: Apache-2.0
"""The network in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothdino_model.engines.exported_step import ExportedStep
from smoothdino_model.engines.names import PROVIDERS, DeviceError
from smoothdino_model.engines.onnx_export import cached_export
from smoothdino_model.engines.process import sleeps_while_waiting
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.one_line import first_line

_NUMPY_TYPES = {torch.float32: np.float32, torch.float16: np.float16, torch.bool: np.bool_}


class OnnxEngine(ExportedStep):
    """Runs the network in ONNX Runtime, from a file in the user's cache."""

    def __init__(
        self, model: SmoothDino, *, engine: str, device: torch.device, temporal: bool
    ) -> None:
        super().__init__(model, device=device, temporal=temporal)
        self._engine = engine

    def _run(
        self, size: tuple[int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        """Read and write the tensors where they lie, on whichever device."""
        session = self._session_for(size)
        binding = session.io_binding()
        taken = {one.name for one in session.get_inputs()}
        place = self._device.type, self._device.index or 0
        inputs = {name: inputs[name].contiguous() for name in taken}  # kept until it has run
        for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, tensor in tensors.items():
                bind(name, *place, _NUMPY_TYPES[tensor.dtype], tensor.shape, tensor.data_ptr())
        if self._device.type == 'cuda':  # ONNX Runtime works in a stream of its own
            torch.cuda.current_stream(self._device).synchronize()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def _exported(self, size: tuple[int, int]) -> Path:
        return cached_export(self._model, size=size, temporal=self._temporal)

    def _session(self, size: tuple[int, int]) -> Any:
        path = self._exported(size)
        onnxruntime = onnxruntime_for(self._engine)
        provider = PROVIDERS[self._engine][self._device.type]
        providers = providers_with_options(
            self._engine,
            self._device,
            half=self._model.backbone.dtype == torch.float16,
            # Beside the network, and made anew for another release.
            engines=path.parent / f'tensorrt_by_onnxruntime_{onnxruntime.__version__}',
        )
        session = onnxruntime.InferenceSession(
            path, session_options(onnxruntime), providers=providers
        )
        if provider not in session.get_providers():
            raise DeviceError(
                f'engine {self._engine!r}: ONNX Runtime has {provider} and could not start it '
                f"(is its library installed?); take engine 'torch'"
            )
        return session


def session_options(onnxruntime: Any) -> Any:
    """Give as many threads as torch has, which wait as torch's do."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(
        'session.intra_op.allow_spinning', '0' if sleeps_while_waiting() else '1'
    )
    options.log_severity_level = 3  # errors: what it warns of is not the user's to change
    return options


def providers_with_options(
    engine: str, device: torch.device, *, half: bool, engines: Path
) -> list[tuple[str, dict[str, str]]]:
    """Give the providers of a session, the first one first, each with its options.

    What TensorRT does not take goes to CUDA. Its own engines, which take minutes to build, and
    the times of what it tried lie in the folder ``engines``. CUDA computes in float32 where it is
    asked to, and not in TF32; TensorRT has no option for that.
    """
    if device.type != 'cuda':
        return [(PROVIDERS[engine][device.type], {})]
    index = {'device_id': str(device.index or 0)}
    cuda = ('CUDAExecutionProvider', {**index, 'use_tf32': '0'})
    if PROVIDERS[engine]['cuda'] == cuda[0]:
        return [cuda]
    options = {
        'trt_engine_cache_enable': 'True',
        'trt_engine_cache_path': str(engines),
        'trt_timing_cache_enable': 'True',
        'trt_fp16_enable': str(half),
    }
    return [(PROVIDERS[engine]['cuda'], index | options), cuda]


def onnxruntime_for(engine: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            f'engine {engine!r} needs ONNX Runtime ({first_line(error)}): '
            "pip install onnx onnxscript onnxruntime, or take engine 'torch'"
        ) from error
    return onnxruntime
