# SPDX-License-Identifier: Apache-2.0
"""A callback that tells what one of several training processes saw and learnt."""

import hashlib
from pathlib import Path

import lightning
import torch


class Witness(lightning.Callback):
    """Leaves rank_<n>.pt: the samples seen, as hashes, and the final weights."""

    def __init__(self) -> None:
        self.samples: list[str] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.samples += [hashlib.sha256(rgb.numpy().tobytes()).hexdigest() for rgb in batch['rgb']]

    def on_train_end(self, trainer, pl_module) -> None:
        found = {'samples': self.samples, 'weights': pl_module.state_dict()}
        torch.save(found, Path(f'rank_{trainer.global_rank}.pt'))
