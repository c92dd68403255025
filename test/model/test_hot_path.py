# SPDX-License-Identifier: Apache-2.0
"""What a frame asks of the device, and what engines leave as it was."""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from smoothdino_model.engines.choice import make_engine
from smoothdino_model.network.memory import recall
from smoothdino_model.network.phase_correlation import PhaseCorrelation
from smoothdino_model.pipeline import DepthPipeline
from support.tiny_networks import tiny_smoothdino


def frames(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 75, 98, 3), dtype=torch.uint8, generator=generator)


class Forbidden(TorchDispatchMode):
    """Collects what a stream's recording forbids: values from and to Python, and by index."""

    names = ('_local_scalar_dense', 'lift_fresh', 'index_put')

    def __init__(self):
        super().__init__()
        self.came, self.calls = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        self.came += [str(func) for name in self.names if name in str(func)]
        return func(*args, **(kwargs or {}))


@torch.no_grad()  # inference mode hides what item() is made of
def test_a_frame_brings_no_number_from_python_and_asks_for_none():
    model = tiny_smoothdino().eval()
    _, state = model(frames(0), None)
    model(frames(1), state)  # what is made once for a size is made
    with Forbidden() as forbidden:
        _, state = model(frames(2), None)
        model(frames(3), state)
    assert forbidden.calls > 100
    assert forbidden.came == []


@torch.no_grad()  # inference mode hides what item() is made of
def test_the_watch_sees_what_it_forbids():
    with Forbidden() as forbidden:
        weight = torch.zeros(3)
        weight[torch.tensor([0])] = torch.ones(1)
        weight[1].item()
    assert {name for name in Forbidden.names if name in ' '.join(forbidden.came)} == set(
        Forbidden.names
    )


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
