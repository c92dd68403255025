# SPDX-License-Identifier: Apache-2.0
"""What runs a network on which device and in which precision.

An engine is a function ``(rgb, state) -> (depth_m, state)`` like :class:`SmoothDino` itself, for
RGB uint8 (B, H, W, 3) on its device.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smoothdino_model.engines.bf16_attention import with_written_scores
from smoothdino_model.engines.winograd import with_winograd
from smoothdino_model.network.phase_correlation import windowed_spectrum
from smoothdino_model.network.smoothdino import SmoothDino, TemporalState, first_state

# Maps of the decoder are 100 MB. In pages of 4 KB, fetched anew for every one of them, enlarging
# a map takes four times as long. PyTorch reads this at its first large tensor.
os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
# What ONNX Runtime calls the part of it that runs an engine, by the type of the device.
PROVIDERS = {
    'onnxruntime': {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'},
    'onnxruntime:openvino': {'cpu': 'OpenVINOExecutionProvider'},
    'onnxruntime:tensorrt': {'cuda': 'TensorrtExecutionProvider'},
}
ENGINES = ('auto', 'torch', *PROVIDERS)

Engine = Callable[[Tensor, TemporalState | None], tuple[Tensor, TemporalState | None]]

_log = logging.getLogger(__name__)


class DeviceError(ValueError):
    """A device, a precision or an engine that this machine does not offer."""


def chosen_device(device: str | torch.device) -> torch.device:
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f'device {str(device)!r} is not available here ({_first_line(error)}); '
            "expected 'auto', 'cpu' or a device of this machine such as 'cuda:0'"
        ) from error
    return chosen


def chosen_engine(engine: str, device: torch.device) -> str:
    """Give the engine that ``auto`` stands for: torch, by rule, see docs/performance.md."""
    if engine == 'auto':
        return 'torch'
    if engine not in ENGINES:
        raise DeviceError(
            f'engine: expected one of {", ".join(map(repr, ENGINES))}, got {engine!r}'
        )
    if engine in PROVIDERS:
        provider = PROVIDERS[engine].get(device.type)
        if provider is None:
            raise DeviceError(
                f'engine {engine!r} runs on {" or ".join(PROVIDERS[engine])}, not on '
                f"{device.type}; take another device, or engine 'torch'"
            )
        offered = _onnxruntime(engine).get_available_providers()
        if provider not in offered:
            raise DeviceError(
                f'engine {engine!r} on {device.type} needs the {provider} of ONNX Runtime, and '
                f'the installed one offers {", ".join(offered)}; install onnxruntime-gpu (CUDA, '
                "TensorRT) or onnxruntime-openvino in place of onnxruntime, or take engine 'torch'"
            )
    return engine


def chosen_precision(precision: str, device: torch.device, engine: str) -> str:
    """Give the precision that ``auto`` stands for: half where the hardware computes in it."""
    if precision not in ('auto', *PRECISIONS):
        raise DeviceError(
            f"precision: expected 'auto', {', '.join(map(repr, PRECISIONS))}, got {precision!r}"
        )
    if engine in PROVIDERS:
        if precision == 'bf16' or (precision == 'fp16' and device.type == 'cpu'):
            raise DeviceError(
                f'engine {engine!r} on {device.type} does not compute in {precision}: take fp32'
                + ('' if device.type == 'cpu' else ' or fp16')
            )
        half = 'fp16' if device.type == 'cuda' else 'fp32'
    elif device.type == 'cuda':
        half = 'bf16' if torch.cuda.is_bf16_supported() else 'fp16'
    else:
        half = 'bf16' if device.type == 'cpu' and cpu_computes_in_bf16() else 'fp32'
    return half if precision == 'auto' else precision


def cpu_computes_in_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; where it does not, bf16 is 10 times slower."""
    return bool(_cpu_bf16())


def _cpu_bf16() -> set[str]:
    """Give what the CPU has to multiply bf16 with: instructions for vectors, tiles, Arm's."""
    cpuinfo = Path('/proc/cpuinfo')
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return flags & {'avx512_bf16', 'amx_bf16', 'bf16'}


def make_engine(
    model: SmoothDino, *, engine: str, device: torch.device, precision: str, temporal: bool
) -> Engine:
    """Prepare a model, in place, for one engine of :data:`ENGINES` other than ``auto``."""
    model.eval().requires_grad_(False).to(device)
    set_precision(model, precision)
    if engine in PROVIDERS:
        return OnnxEngine(model, engine=engine, device=device, temporal=temporal)
    if device.type == 'cpu' and precision == 'fp32':
        with_winograd(model)
    if device.type == 'cpu' and precision == 'bf16' and _cpu_bf16() == {'avx512_bf16'}:
        with_written_scores(cast(PreTrainedModel, model.backbone.network.backbone))

    def forward(rgb: Tensor, state: TemporalState | None) -> tuple[Tensor, TemporalState | None]:
        return model(rgb, state) if temporal else (model.backbone(rgb), None)

    return CudaEngine(forward) if device.type == 'cuda' else forward


def set_precision(model: SmoothDino, precision: str) -> None:
    """Make the network and its adapter compute in a precision; images and shift stay in fp32."""
    cast(nn.Module, model.backbone.network).to(PRECISIONS[precision])
    if model.adapter is not None:
        model.adapter.to(PRECISIONS[precision])


class CudaEngine:
    """Runs ``forward`` as a CUDA graph where that is faster, measured once for every shape."""

    def __init__(self, forward: Engine) -> None:
        self._forward = forward
        self._fastest: dict[tuple[int, ...], Engine] = {}

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        shape = tuple(rgb.shape)
        if shape not in self._fastest:
            self._fastest[shape] = self._measured(rgb)
        return self._fastest[shape](rgb, state)

    def _measured(self, rgb: Tensor) -> Engine:
        try:
            graph = _CudaGraph(self._forward, rgb)
        except RuntimeError as error:  # what cannot be captured, or no memory for it
            _log.warning('no CUDA graph for %s: %s', tuple(rgb.shape), _first_line(error))
            torch.cuda.empty_cache()
            return self._forward
        eager_s, graph_s = _seconds_on_cuda(self._forward, rgb), _seconds_on_cuda(graph, rgb)
        _log.info(
            '%s: %.2f ms as a CUDA graph, %.2f ms without',
            tuple(rgb.shape),
            1e3 * graph_s,
            1e3 * eager_s,
        )
        return graph if graph_s < eager_s else self._forward


class _CudaGraph:
    """One call of ``forward`` for one shape, recorded: no kernel waits for Python."""

    def __init__(self, forward: Engine, rgb: Tensor) -> None:
        # Trying algorithms out makes runs differ: not for whom asked for equal ones.
        tried_out = torch.backends.cudnn.flags(
            enabled=True, benchmark=not torch.are_deterministic_algorithms_enabled()
        )
        aside = torch.cuda.Stream(rgb.device)
        aside.wait_stream(torch.cuda.current_stream(rgb.device))
        self._rgb = rgb.clone()
        with tried_out:
            with torch.cuda.stream(aside):
                _, state = forward(self._rgb, None)
                self._state = None if state is None else state.each(torch.zeros_like)
                for _ in range(3):
                    forward(self._rgb, self._state)
            torch.cuda.current_stream(rgb.device).wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._depth_m, self._next_state = forward(self._rgb, self._state)

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        self._rgb.copy_(rgb)
        if self._state is not None and state is None:
            self._state.valid.zero_()
        elif self._state is not None and state is not None:
            for kept, came in zip(self._state.tensors, state.tensors, strict=True):
                kept.copy_(came)
        self._graph.replay()
        # Cloned: the next replay writes to the same memory.
        next_state = self._next_state
        return self._depth_m.clone(), None if next_state is None else next_state.each(torch.clone)


def _seconds_on_cuda(engine: Engine, rgb: Tensor) -> float:
    """Median of ten calls as they follow each other in a stream of frames."""
    seconds = []
    _, state = engine(rgb, None)
    for _ in range(10):
        torch.cuda.synchronize(rgb.device)
        start = time.perf_counter()
        _, state = engine(rgb, state)
        torch.cuda.synchronize(rgb.device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


class OnnxEngine:
    """Runs the network in ONNX Runtime; preprocessing and the shift stay in PyTorch.

    The network is exported once for every size of frames and kept in the user's cache.
    """

    def __init__(
        self, model: SmoothDino, *, engine: str, device: torch.device, temporal: bool
    ) -> None:
        self._model = model
        self._engine = engine
        self._device = device
        self._temporal = temporal
        self._sessions: dict[tuple[int, int], Any] = {}

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        backbone = self._model.backbone
        network_input = backbone.preprocess(rgb)
        depth_m = rgb.new_empty(rgb.shape[:3], dtype=torch.float32)
        inputs, outputs = {'pixels': network_input.pixels}, {'depth_m': depth_m}
        if not self._temporal:
            self._run(network_input.frame_size, inputs, outputs)
            return depth_m, None
        frames = backbone.features(network_input, ())
        spectrum = windowed_spectrum(backbone.luma(network_input))
        tokens = (len(rgb), 1 + frames.grid[0] * frames.grid[1], backbone.channels)
        levels = [rgb.new_empty(tokens, dtype=backbone.dtype) for _ in range(backbone.n_levels)]
        if state is None:
            previous = tuple(torch.zeros_like(level) for level in levels)
            valid = torch.zeros(len(rgb), dtype=torch.bool, device=rgb.device)
            next_state = first_state(replace(frames, levels=tuple(levels)), spectrum)
            shift_input_px, confidence = next_state.shift_px, next_state.confidence
        else:
            previous, valid = state.features.levels, state.valid
            motion = self._model.measure(spectrum, frames, state)
            shift_input_px, confidence = motion.shift_input_px, motion.confidence
            next_state = motion.state_with(replace(frames, levels=tuple(levels)))
        inputs |= {
            'shift_patches': shift_input_px / backbone.patch,
            'confidence': confidence,
            'valid': valid,
            **{f'previous_{i}': level for i, level in enumerate(previous)},
        }
        outputs |= {f'features_{i}': level for i, level in enumerate(levels)}
        self._run(network_input.frame_size, inputs, outputs)
        return depth_m, next_state

    def _run(
        self, size: tuple[int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        """Read and write the tensors where they lie, on whichever device."""
        if size not in self._sessions:
            self._sessions[size] = self._session(size)
        session = self._sessions[size]
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

    def _session(self, size: tuple[int, int]) -> Any:
        from smoothdino_model.engines.onnx_export import cached_export

        path = cached_export(self._model, size=size, temporal=self._temporal)
        onnxruntime = _onnxruntime(self._engine)
        provider = PROVIDERS[self._engine][self._device.type]
        index = {'device_id': self._device.index or 0} if self._device.type == 'cuda' else {}
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3  # errors: what it warns of is not the user's to change
        session = onnxruntime.InferenceSession(path, settings, providers=[(provider, index)])
        if provider not in session.get_providers():
            raise DeviceError(
                f'engine {self._engine!r}: ONNX Runtime has {provider} and could not start it '
                f"(is its library installed?); take engine 'torch'"
            )
        return session


_NUMPY_TYPES = {torch.float32: np.float32, torch.float16: np.float16, torch.bool: np.bool_}


def _onnxruntime(engine: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            f'engine {engine!r} needs ONNX Runtime ({_first_line(error)}): '
            "pip install onnx onnxscript onnxruntime, or take engine 'torch'"
        ) from error
    return onnxruntime


def _first_line(error: BaseException) -> str:
    return str(error).strip().split('\n')[0].rstrip('.')
