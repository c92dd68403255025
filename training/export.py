# SPDX-License-Identifier: Apache-2.0
"""A model out of checkpoints: ``python -m training.export CHECKPOINT... --output DIR``.

For a run that was broken off before its learning rate had fallen. Several checkpoints of one run
are averaged, weight by weight, which does much of what the fall would have done (Izmailov et al.
2018); what was frozen is the same in all of them and stays as it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from smoothdino_model.weights.checkpoint import save_model
from training.module import DepthTraining


def averaged(checkpoints: Sequence[Path]) -> DepthTraining:
    """Give what the checkpoints of one run have on average.

    Like all of a Lightning checkpoint they are pickles: take only those of your own trainings.
    Raises ``ValueError`` where they hold different weights.
    """
    module = DepthTraining.load_from_checkpoint(
        checkpoints[0], map_location='cpu', weights_only=False
    )
    total = {name: value.double() for name, value in module.state_dict().items()}
    for path in checkpoints[1:]:
        weights = _weights(path)
        shapes = {name: value.shape for name, value in weights.items()}
        if shapes != {name: value.shape for name, value in total.items()}:
            raise ValueError(f'{path}: expected the weights of {checkpoints[0]}, got others')
        for name, value in weights.items():
            total[name] += value
    module.load_state_dict({name: value / len(checkpoints) for name, value in total.items()})
    return module


def _weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog='python -m training.export', description=__doc__.split('\n')[0]
    )
    parser.add_argument('checkpoints', type=Path, nargs='+', metavar='CHECKPOINT')
    parser.add_argument('--output', type=Path, required=True, help='the folder of the model')
    options = parser.parse_args(argv)
    try:
        module = averaged(options.checkpoints)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{parser.prog}: {error}\n')
    save_model(module.model, options.output, dtype=torch.float16)


if __name__ == '__main__':
    main()
