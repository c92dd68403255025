# SPDX-License-Identifier: Apache-2.0
"""Which engine runs a network, on which device and in which precision, and how it is set up.

An engine is a function ``(rgb, state) -> (depth_m, state)`` like :class:`SmoothDino` itself, for
RGB uint8 (B, H, W, 3) on its device.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smoothdino_model.engines.bf16_attention import with_written_scores
from smoothdino_model.engines.cuda_graph import TIMES_SEEN, GraphedStep
from smoothdino_model.engines.names import ENGINES, PRECISIONS, PROVIDERS, DeviceError
from smoothdino_model.engines.onnx import OnnxEngine, onnxruntime_for
from smoothdino_model.engines.openvino import OpenVinoEngine, has_openvino, openvino_library
from smoothdino_model.engines.winograd import with_winograd
from smoothdino_model.network.smoothdino import SmoothDino, Step
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.one_line import first_line

_log = logging.getLogger(__name__)


def chosen_device(device: str | torch.device) -> torch.device:
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f'device {str(device)!r} is not available here ({first_line(error)}); '
            "expected 'auto', 'cpu' or a device of this machine such as 'cuda:0'"
        ) from error
    return chosen


def chosen_engine(engine: str, device: torch.device) -> str:
    """Give the engine that ``auto`` stands for: by rule, see docs/performance.md."""
    if engine == 'auto':
        return _fastest_engine(device)
    if engine not in ENGINES:
        raise DeviceError(
            f'engine: expected one of {", ".join(map(repr, ENGINES))}, got {engine!r}'
        )
    if engine == 'openvino':
        if device.type != 'cpu':
            raise DeviceError(
                f"engine 'openvino' runs on cpu, not on {device.type}; take device 'cpu', or "
                "engine 'torch'"
            )
        openvino_library()
    if engine in PROVIDERS:
        provider = PROVIDERS[engine].get(device.type)
        if provider is None:
            raise DeviceError(
                f'engine {engine!r} runs on {" or ".join(PROVIDERS[engine])}, not on '
                f"{device.type}; take another device, or engine 'torch'"
            )
        offered = onnxruntime_for(engine).get_available_providers()
        if provider not in offered:
            raise DeviceError(
                f'engine {engine!r} on {device.type} needs the {provider} of ONNX Runtime, and '
                f'the installed one offers {", ".join(offered)}; install onnxruntime-gpu in '
                "place of onnxruntime, or take engine 'torch'"
            )
    return engine


def _fastest_engine(device: torch.device) -> str:
    if device.type != 'cpu' or not has_openvino():
        return 'torch'
    try:
        openvino_library()
    except DeviceError as error:
        _log.warning('%s; engine auto is torch', error)
        return 'torch'
    _log.info('engine auto is openvino: it is installed, and the fastest on an x86 CPU')
    return 'openvino'


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
        # Before Ampere bf16 is emulated, which PyTorch counts as supported.
        half = 'bf16' if torch.cuda.get_device_capability(device) >= (8, 0) else 'fp16'
    elif engine == 'openvino' and precision == 'fp16':
        raise DeviceError("engine 'openvino' does not compute in fp16: take fp32 or bf16")
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


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network as an engine runs it: ``model`` is its own, ``step`` runs it.

    The first ``n_slow_steps`` with frames of a shape take longer than the later ones.
    """

    model: SmoothDino
    step: Step
    n_slow_steps: int = 0

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        return self.step(rgb, state)


def make_engine(
    model: SmoothDino, *, engine: str, device: torch.device, precision: str, temporal: bool
) -> Prepared:
    """Prepare a copy of a model for one engine of :data:`ENGINES` other than ``auto``.

    The weights that it takes as they are it shares with ``model``, which stays as it was.
    """
    model = _sharing_copy(model).eval().requires_grad_(False).to(device)
    if engine == 'openvino':
        by_openvino = OpenVinoEngine(model, precision=precision, temporal=temporal)
        return Prepared(model, by_openvino, n_slow_steps=1)
    set_precision(model, precision)
    if engine in PROVIDERS:
        by_onnx = OnnxEngine(model, engine=engine, device=device, temporal=temporal)
        return Prepared(model, by_onnx, n_slow_steps=1)
    if device.type == 'cpu' and precision == 'fp32':
        with_winograd(model)
    if device.type == 'cpu' and precision == 'bf16' and _cpu_bf16() == {'avx512_bf16'}:
        with_written_scores(cast(PreTrainedModel, model.backbone.network.backbone))

    def forward(rgb: Tensor, state: TemporalState | None) -> tuple[Tensor, TemporalState | None]:
        with arithmetic(precision):
            return model(rgb, state) if temporal else (model.backbone(rgb), None)

    if device.type == 'cuda':
        return Prepared(model, GraphedStep(forward, device), n_slow_steps=TIMES_SEEN)
    return Prepared(model, forward)


_setting_arithmetic = threading.RLock()


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Let fp32 be float32 all through.

    By itself PyTorch lets a GPU round the numbers of float32 convolutions to TF32, 10 bits of 23.
    The setting belongs to the process: one thread at a time changes it, and puts it back. That of
    matrix products, which are exact unless somebody asked otherwise, stays as it is.
    """
    if precision != 'fp32':
        yield
        return
    cudnn: Any = torch.backends.cudnn
    # Since PyTorch 2.9 convolutions have a setting of their own.
    settings, name, exact = (
        (cudnn.conv, 'fp32_precision', 'ieee')
        if hasattr(cudnn, 'conv')
        else (cudnn, 'allow_tf32', False)
    )
    with _setting_arithmetic:
        before = getattr(settings, name)
        setattr(settings, name, exact)
        try:
            yield
        finally:
            setattr(settings, name, before)


def _sharing_copy(model: SmoothDino) -> SmoothDino:
    """Copy the modules, whose tensors still lie where those of ``model`` do."""
    shared: dict[int, Tensor] = {
        id(one): nn.Parameter(one.detach(), requires_grad=False) for one in model.parameters()
    }
    shared |= {id(one): one.detach() for one in model.buffers()}
    return copy.deepcopy(model, shared)


def dtype_of(precision: str) -> torch.dtype:
    return getattr(torch, PRECISIONS[precision])


def set_precision(model: SmoothDino, precision: str) -> None:
    """Make the network and its adapter compute in a precision; images and shift stay in fp32."""
    cast(nn.Module, model.backbone.network).to(dtype_of(precision))
    if model.adapter is not None:
        model.adapter.to(dtype_of(precision))
