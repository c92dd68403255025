# SPDX-License-Identifier: Apache-2.0
"""What a frame asks of the device, and what engines leave as it was."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from smoothdino_model.engines.choice import make_engine, set_precision
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.memory import recall
from smoothdino_model.network.phase_correlation import PhaseCorrelation
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.pipeline import DepthPipeline
from support.device_watch import HOST, INDEX, PYTHON, SIZE, VALUE, DeviceWatch
from support.tiny_networks import tiny_depth_anything, tiny_dpt, tiny_smoothdino

CPU, META = torch.device('cpu'), torch.device('meta')


def frames(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 75, 98, 3), dtype=torch.uint8, generator=generator)


NETWORKS = {
    'plain': lambda: SmoothDino(DepthBackbone(tiny_dpt())),
    'memory': lambda: SmoothDino(DepthBackbone(tiny_dpt()), memory=2),
    'memory and adapter': tiny_smoothdino,
    'resized': lambda: SmoothDino(DepthBackbone(tiny_depth_anything(), input_height=56), memory=1),
}


def void(_) -> None:
    """A hook that gives something takes the place of what comes in."""


@torch.no_grad()  # inference mode hides what item() is made of
def watched_step(network: str, device: torch.device, precision: str, fault=None) -> DeviceWatch:
    """Watch a first step and one that goes on, of a size whose tables there are already."""
    model = NETWORKS[network]().eval().to(device)
    set_precision(model, precision)
    if fault is not None:
        model.backbone.network.head.register_forward_pre_hook(lambda *_: void(fault(device)))
    rgb = [frames(seed).to(device) for seed in range(4)]
    with contextlib.suppress(RuntimeError):  # what a fault raises where there are no values
        _, state = model(rgb[0], None)
        model(rgb[1], state)
    with DeviceWatch(device) as watch:
        _, state = model(rgb[2], None)
        model(rgb[3], state)
    return watch


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('device', [CPU, META], ids=str)
@pytest.mark.parametrize('network', NETWORKS)
def test_a_frame_brings_no_number_from_python_and_asks_for_none(network, device, precision):
    watch = watched_step(network, device, precision)
    assert watch.n_operations > 100
    assert watch.found == []


def assigned_by_index(device):
    torch.zeros(3, device=device)[torch.arange(2, device=device)] = torch.ones(2, device=device)


def assigned_to_an_element(device):
    torch.zeros(3, device=device)[1] = torch.ones((), device=device)


def assigned_to_a_part(device):
    torch.zeros(3, device=device)[:2] = torch.ones(2, device=device)


def number_assigned(device):
    torch.zeros(3, device=device)[1] = 1.0


FAULTS = [
    (CPU, VALUE, lambda device: torch.ones(3, device=device).max().item()),
    (CPU, VALUE, lambda device: bool((torch.ones(3, device=device) > 0).any())),
    (CPU, VALUE, lambda device: torch.equal(*2 * [torch.ones(3, device=device)])),
    (CPU, PYTHON, lambda device: torch.tensor([1.0], device=device)),
    (CPU, PYTHON, lambda device: torch.ones(3, device=device).new_tensor(1.0)),
    (CPU, PYTHON, lambda device: torch.from_numpy(np.ones(3))),
    (CPU, PYTHON, number_assigned),
    (META, PYTHON, number_assigned),
    (META, PYTHON, lambda d: torch.where(torch.ones(3, device=d) > 0, torch.ones(3, device=d), 0)),
    (META, HOST, lambda device: torch.as_tensor(np.ones(3)).to(device)),
    (META, HOST, lambda device: torch.ones(3, device=device) * torch.ones(())),
    (META, HOST, lambda device: torch.arange(3).to(device)),
    *((device, INDEX, number_assigned) for device in (CPU, META)),
    *((device, INDEX, assigned_by_index) for device in (CPU, META)),
    *((device, INDEX, assigned_to_an_element) for device in (CPU, META)),
    *((device, INDEX, assigned_to_a_part) for device in (CPU, META)),
    (CPU, SIZE, lambda device: torch.ones(3, device=device).nonzero()),
    (CPU, SIZE, lambda device: torch.ones(3, device=device).unique()),
    (CPU, SIZE, lambda d: torch.ones(3, device=d).masked_select(torch.ones(3, device=d) > 0)),
    (CPU, SIZE, lambda d: torch.ones(3, device=d)[torch.ones(3, device=d) > 0]),
]


@pytest.mark.parametrize(('device', 'kind', 'fault'), FAULTS)
def test_the_watch_sees_what_a_step_may_not_do(device, kind, fault):
    watch = watched_step('plain', device, 'fp32', fault)
    assert kind in {found for found, _ in watch.found}


@pytest.mark.parametrize('width', [20, 21])
def test_the_fine_correlation_is_the_whole_one_at_whole_pixels(width):
    """Columns of half a transform count twice, but for the first and an even last one."""
    height = 12
    spectrum = torch.fft.rfft2(torch.rand(2, height, width))
    y, x = torch.arange(height).float(), torch.arange(width).float()
    fine = PhaseCorrelation(height, width, 'cpu').fine_correlation(
        spectrum, x.expand(2, -1), y.expand(2, -1)
    )
    whole = torch.fft.irfft2(spectrum, s=(height, width)) * height * width
    torch.testing.assert_close(fine, whole, atol=2e-3, rtol=1e-4)


@torch.inference_mode()
def test_in_half_precision_features_are_moved_by_the_shift_as_measured():
    """12.6 patches are 12.625 in bf16: a third of a pixel."""
    columns, shift = 40, 12.6
    torch.manual_seed(0)
    previous = torch.randn(1, 1, 1 + columns, 24).bfloat16()
    came = recall(
        [previous],
        torch.ones(1, 1, dtype=torch.bool),
        torch.tensor([[[shift, 0.0]]]),
        grid=(1, columns),
        dtype=torch.bfloat16,
    )
    patches = previous[:, 0, 1:].float()
    expected = 0.4 * patches[:, 1 : columns - 12] + 0.6 * patches[:, : columns - 13]
    assert (came.sums[0][:, 14:].float() - expected).abs().mean() < 0.01


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_a_model_stays_as_it_was_when_an_engine_is_made_of_it(precision):
    model = tiny_smoothdino()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    graded = [parameter.requires_grad for parameter in model.parameters()]
    with torch.inference_mode():
        depth_m = model.eval()(frames(), None)[0]
    model.train()
    make_engine(
        model, engine='torch', device=torch.device('cpu'), precision=precision, temporal=True
    )
    DepthPipeline(model, device='cpu', precision=precision).close()
    assert model.training
    assert [type(module) for module in model.modules()] == kinds
    assert [parameter.requires_grad for parameter in model.parameters()] == graded
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        assert torch.equal(after[name], value), name
    with torch.inference_mode():
        assert torch.equal(model.eval()(frames(), None)[0], depth_m)


def test_an_engine_shares_the_weights_that_it_takes_as_they_are():
    model = tiny_smoothdino()
    engine = make_engine(
        model, engine='torch', device=torch.device('cpu'), precision='fp32', temporal=True
    )
    ours = {value.data_ptr() for value in model.parameters()}
    shared = [value.data_ptr() in ours for value in engine.model.adapter.parameters()]
    assert all(shared)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_fp32_is_float32_in_convolutions_too_and_for_the_step_alone(precision):
    convolutions = getattr(torch.backends.cudnn, 'conv', None)
    if convolutions is None:
        pytest.skip('PyTorch before 2.9 has another name for it')
    before = convolutions.fp32_precision
    assert before != 'ieee'  # PyTorch's own choice is TF32
    engine = make_engine(
        tiny_smoothdino(),
        engine='torch',
        device=torch.device('cpu'),
        precision=precision,
        temporal=True,
    )
    seen = []
    network = engine.model.backbone.network
    network.backbone.register_forward_pre_hook(lambda *_: seen.append(convolutions.fp32_precision))
    with torch.inference_mode():
        engine(frames(), None)
        assert convolutions.fp32_precision == before
        with pytest.raises(ValueError, match='RGB uint8'):
            engine(frames().float(), None)
    assert seen == ['ieee' if precision == 'fp32' else before]
    assert convolutions.fp32_precision == before


@pytest.mark.slow
def test_importing_changes_no_environment():
    program = (
        'import torch, transformers, os; before = dict(os.environ);'
        'import smoothdino_model.pipeline, smoothdino_model.engines.choice;'
        'import smoothdino_model.engines.onnx_export;'
        'assert dict(os.environ) == before, set(os.environ) ^ set(before)'
    )
    subprocess.run([sys.executable, '-c', program], env=dict(os.environ), check=True, timeout=300)
