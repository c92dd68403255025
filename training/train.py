# SPDX-License-Identifier: Apache-2.0
"""Train: ``python -m training.train fit --config training/configs/adapter_nyu.yaml``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO

from smoothdino_model.whole_files import clear_partial, written_whole
from training.data.data_module import WindowData
from training.module import DepthTraining


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint is there whole or not at all.

    Lightning writes to the folder of temporary files and moves; on another disk that is a copy.
    What an earlier training that was killed had begun goes when the folder is first written to.
    """

    def __init__(self) -> None:
        super().__init__()
        self._entered: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *_: Any, **__: Any) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in self._entered:
            clear_partial(path.parent)
            self._entered.add(path.parent)
        with written_whole(path) as place:
            super().save_checkpoint(checkpoint, place)


class TrainingCLI(LightningCLI):
    def instantiate_trainer(self, **settings: Any) -> lightning.Trainer:
        """Build the trainer of one long pass through a stream that can be entered anywhere."""
        if self._get(self.config_init, 'trainer')['max_epochs'] not in (None, 1):
            raise ValueError(
                'trainer.max_epochs: the stream is passed through once, expected data.epochs '
                '(passes through the clips) or trainer.max_steps instead'
            )
        return super().instantiate_trainer(
            max_epochs=1,
            use_distributed_sampler=False,  # the stream gives each process its own samples
            plugins=[AtomicCheckpointIO()],
            **settings,
        )


def main(argv: list[str] | None = None) -> None:
    with warnings.catch_warnings():
        # It is: the stream is entered at the step that the checkpoint names.
        warnings.filterwarnings('ignore', message='.*your dataloader is not resumable')
        # What is frozen stays as it was loaded.
        warnings.filterwarnings('ignore', message='.*in eval mode at the start of training')
        TrainingCLI(
            DepthTraining,
            WindowData,
            seed_everything_default=0,
            save_config_kwargs={'overwrite': True},
            args=argv,
        )


if __name__ == '__main__':
    main()
