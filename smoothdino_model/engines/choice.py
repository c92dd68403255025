# SPDX-License-Identifier: Apache-2.0
"""Which engine runs a network, on which device and in which precision, and how it is set up.

An engine is a function ``(rgb, state) -> (depth_m, state)`` like :class:`SmoothDino` itself, for
RGB uint8 (B, H, W, 3) on its device.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from smoothdino_model.engines.bf16_attention import with_written_scores
from smoothdino_model.engines.cuda_graph import CudaEngine
from smoothdino_model.engines.names import ENGINES, PRECISIONS, PROVIDERS, DeviceError
from smoothdino_model.engines.onnx import OnnxEngine, onnxruntime_for
from smoothdino_model.engines.winograd import with_winograd
from smoothdino_model.network.smoothdino import SmoothDino, Step, TemporalState
from smoothdino_model.one_line import first_line


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
        offered = onnxruntime_for(engine).get_available_providers()
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
) -> Step:
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


def dtype_of(precision: str) -> torch.dtype:
    return getattr(torch, PRECISIONS[precision])


def set_precision(model: SmoothDino, precision: str) -> None:
    """Make the network and its adapter compute in a precision; images and shift stay in fp32."""
    cast(nn.Module, model.backbone.network).to(dtype_of(precision))
    if model.adapter is not None:
        model.adapter.to(dtype_of(precision))
