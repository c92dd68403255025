# SPDX-License-Identifier: Apache-2.0
"""Train: ``python -m training.train fit --config training/configs/room_1_coarse.yaml``."""

from __future__ import annotations

import warnings

from lightning.pytorch.cli import LightningCLI

from training.data.stream import WindowData
from training.module import DepthTraining


def main() -> None:
    # It is: the stream is entered at the step that the checkpoint names.
    warnings.filterwarnings('ignore', message='.*your dataloader is not resumable')
    LightningCLI(
        DepthTraining,
        WindowData,
        seed_everything_default=0,
        save_config_kwargs={'overwrite': True},
    )


if __name__ == '__main__':
    main()
