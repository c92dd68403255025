# SPDX-License-Identifier: Apache-2.0
"""Muon: what its steps are, and that it goes on where it was broken off."""

import copy

import pytest
import torch
from torch import nn

from support.tiny_networks import tiny_dpt
from training.muon import Muon, inner_matrices, orthogonal


@pytest.mark.parametrize('shape', [(24, 24), (24, 96), (96, 24)])
def test_a_step_has_the_directions_of_the_gradient_and_no_preference(shape):
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(2, *shape), full_matrices=False)
    strengths = torch.logspace(0, -1.5, min(shape))
    step = orthogonal((u * strengths) @ vh)
    spectrum = u.mT @ step @ vh.mT
    values = spectrum.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert (spectrum - torch.diag_embed(values)).abs().max() < 1e-3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({'layer': nn.ModuleDict({'0': nn.Linear(8, 8)}), 'last': nn.Linear(8, 3)})


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for seed in steps:
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
        loss = (model['last'](model['layer']['0'](x).relu()) - x[:, :3]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def muon(model: nn.Module) -> Muon:
    inner = {id(p) for p in inner_matrices(nn.ModuleDict({'net': model}))}
    others = [p for p in model.parameters() if id(p) not in inner]
    return Muon(
        [
            {'params': others},
            {'params': [p for p in model.parameters() if id(p) in inner], 'orthogonal': True},
        ],
        lr=1e-2,
    )


def test_what_is_no_inner_matrix_takes_the_step_of_adamw():
    ours, theirs = network(), network()
    learn(ours, muon(ours), range(1))
    learn(theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2), range(1))
    different = {
        name
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert different == {'layer.0.weight'}
    moved = ours['layer']['0'].weight - network()['layer']['0'].weight
    assert 0.12 < moved.square().mean().sqrt() / 1e-2 < 0.28  # as AdamW's usually are


def test_broken_off_and_restored_it_ends_with_the_same_weights():
    alone = network()
    learn(alone, muon(alone), range(6))
    first = network()
    optimizer = muon(first)
    learn(first, optimizer, range(3))
    second = network()
    second.load_state_dict(first.state_dict())
    restored = muon(second)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(second, restored, range(3, 6))
    for a, b in zip(alone.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_inner_matrices_of_an_encoder_are_those_of_its_layers():
    encoder = tiny_dpt().backbone
    found = inner_matrices(encoder)
    assert len(found) == 4 * 6  # query, key, value, output and two of the MLP
    assert all(p.ndim == 2 for p in found)
