# SPDX-License-Identifier: Apache-2.0
"""Learn what looks like floor to a model's encoder: ``python -m training.floor_looks OUTPUT``.

A logistic regression on the features of single patches, of rooms, whose floor is known, and of the
clips whose floor ``configs/clip_floors.json`` tells, but for the kitchen, which tests are made on.
Printed is how well it tells floor from the rest in each source when it has learnt from the others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from smoothdino_model import SmoothDino, load_model
from smoothdino_model.network.floor_looks import FloorLooks
from smoothdino_model.weights.floor_looks import save_floor_looks
from training.data.clips import Window
from training.data.room import room_of_any_mount, room_window
from training.evaluate import FLOORS
from training.evaluation import stretches
from training.evaluation.anchored import Surroundings, height_over_floor_m

# The third of the four levels that are decoded: of single ones it does best on a clip left out.
_LEVEL = 2
_CLIPS = ('hololens_office', 'aims_lab_cart')
_EVERY = 6  # frames of a clip
_ROOMS, _VIEWS, _STRIDE = 64, 3, 16
_SIZE = (240, 320)  # of rooms
_FLOOR_M, _OTHER_M = 0.05, 0.1  # from the floor: within, and beyond; between is not learnt from
_MOSTLY = 0.75  # of the known pixels of a patch
_SAMPLES = 4  # by as many of a patch
_DECAY, _STEPS = 3e-3, 60


@dataclass(frozen=True, eq=False)
class Patches:
    """Features (N, C) of patches, and whether they are floor (N,), 0 or 1."""

    features: Tensor
    is_floor: Tensor


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='python -m training.floor_looks')
    parser.add_argument('output', type=Path, help='the folder for floor.json')
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--root', default=os.environ.get('CLIPS_ROOT'), help='($CLIPS_ROOT)')
    args = parser.parse_args(argv)
    if not args.root:
        parser.exit(2, 'expected the folder that holds the clips: --root or CLIPS_ROOT\n')
    model = load_model(args.model, adapter='none').eval()
    sources = {'rooms': _patches(model, _rooms())}
    for name in _CLIPS:
        sources[name] = _patches(model, _clip(args.root, name))
    for name, left_out in sources.items():
        weights, bias = fitted([sources[other] for other in sources if other != name])
        area = area_under_curve(left_out.features @ weights + bias, left_out.is_floor)
        print(
            f'{name}: {len(left_out.is_floor)} patches, left out: area under the curve {area:.3f}'
        )
    weights, bias = fitted(list(sources.values()))
    args.output.mkdir(parents=True, exist_ok=True)
    looks = FloorLooks(_LEVEL, weights, bias, model.backbone.input_height)
    save_floor_looks(looks, args.output)


def _rooms() -> Iterator[Window]:
    height, width = _SIZE
    for seed in tqdm(range(_ROOMS), unit='room'):
        room = room_of_any_mount(seed, height=height, width=width)
        yield room_window(room, 0, _VIEWS, _STRIDE)


def _clip(root: str, name: str) -> Iterator[Window]:
    for stretch in stretches.clips(
        root, split=None, size=None, names=[name], floors=FLOORS
    ).stretches:
        for at in tqdm(range(0, stretch.length, _EVERY), unit='frame'):
            yield stretch.read(range(at, at + 1))


@torch.inference_mode()
def _patches(model: SmoothDino, windows: Iterable[Window]) -> Patches:
    features, labels = [], []
    for window in windows:
        assert window.floors is not None
        encoded = model.backbone.encode(torch.from_numpy(window.rgb))
        # As the memory keeps them, which is where they are taken from.
        levels = encoded.levels[_LEVEL][:, 1:].half().float()
        for of_frame, floor, truth_m in zip(levels, window.floors, window.depth_m, strict=True):
            over_m = height_over_floor_m(Surroundings(window.camera, floor, truth_m, 0))
            label = torch.from_numpy(labels_of(over_m, encoded.grid).ravel())
            features.append(of_frame[label.isfinite()])
            labels.append(label[label.isfinite()])
    return Patches(torch.cat(features), torch.cat(labels))


def labels_of(over_m: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Tell of each patch (rows, columns) by the height over the floor (H, W): 1 floor, 0 not.

    NaN where it is both or neither, or mostly unknown.
    """
    rows, columns = grid
    size = (columns * _SAMPLES, rows * _SAMPLES)
    near = cv2.resize(over_m, size, interpolation=cv2.INTER_NEAREST)
    of_patch = near.reshape(rows, _SAMPLES, columns, _SAMPLES)
    known, floor, other = (
        one.mean(axis=(1, 3))
        for one in (
            np.isfinite(of_patch),
            np.abs(of_patch) < _FLOOR_M,
            np.abs(of_patch) > _OTHER_M,
        )
    )
    labels = np.full(grid, np.nan, np.float32)
    labels[(known > 0.5) & (floor > _MOSTLY * known)] = 1
    labels[(known > 0.5) & (other > _MOSTLY * known)] = 0
    return labels


def fitted(sources: Sequence[Patches]) -> tuple[Tensor, float]:
    """Give weights (C,) and bias; each source counts alike, whatever its number of patches."""
    features = torch.cat([source.features for source in sources])
    is_floor = torch.cat([source.is_floor for source in sources])
    counts = torch.cat(
        [torch.full_like(one.is_floor, 1 / len(sources) / len(one.is_floor)) for one in sources]
    )
    middle, deviation = features.mean(0), features.std(0) + 1e-6
    normal = (features - middle) / deviation
    weights = torch.zeros(normal.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=_STEPS, line_search_fn='strong_wolfe')

    def loss() -> Tensor:
        optimizer.zero_grad()
        odds = normal @ weights + bias
        each = functional.binary_cross_entropy_with_logits(odds, is_floor, reduction='none')
        total = (each * counts).sum() + _DECAY * (weights**2).sum()
        total.backward()
        return total

    optimizer.step(loss)
    scaled = weights.detach() / deviation
    return scaled, float(bias.detach() - scaled @ middle)


def area_under_curve(odds: Tensor, is_floor: Tensor) -> float:
    """Give the chance that a patch of floor has the larger odds than one that is none."""
    rank = torch.argsort(torch.argsort(odds)).double()
    floor = is_floor > 0
    number = int(floor.sum())
    above = rank[floor].sum() - number * (number - 1) / 2
    return float(above / (number * (len(odds) - number)))


if __name__ == '__main__':
    main()
