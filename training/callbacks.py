# SPDX-License-Identifier: Apache-2.0
"""What a training leaves behind: models that the software loads, and pictures for TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from smoothdino_model.recordings.depth_images import rgb_from_depth
from smoothdino_model.weights.checkpoint import save_adapter, save_model
from training.module import DepthTraining


class ExportModel(lightning.Callback):
    """Writes the trained model to a directory that every part of the software loads.

    ``directory`` is by default ``model`` in the run's own folder, or ``adapter`` with
    ``adapter_only``, which writes what ``--adapter`` takes. With ``monitor``, the name of a
    validation figure, the model is written whenever a validation was the best so far; without, at
    the end of the training, or when one that had ended is resumed. ``half`` stores half precision.
    """

    def __init__(
        self,
        directory: str | None = None,
        half: bool = False,
        adapter_only: bool = False,
        monitor: str | None = None,
    ) -> None:
        self.directory = Path(directory) if directory else None
        self.half = half
        self.adapter_only = adapter_only
        self.monitor = monitor
        self.best = math.inf

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # asked of all processes at once
        self.directory = self.directory or Path(folder) / (
            'adapter' if self.adapter_only else 'model'
        )

    @property
    def state_key(self) -> str:
        return self._generate_state_key(adapter_only=self.adapter_only, monitor=self.monitor)

    def state_dict(self) -> dict[str, Any]:
        return {'best': self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict['best']

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self.monitor is None or not fitting:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ', '.join(sorted(trainer.callback_metrics))
            raise ValueError(f'ExportModel.monitor: expected one of {known}, got {self.monitor}')
        value = float(trainer.callback_metrics[self.monitor])
        if value < self.best:
            self.best = value
            self._export(trainer, pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self.monitor is None:
            self._export(trainer, pl_module)

    def _export(self, trainer: lightning.Trainer, module: DepthTraining) -> None:
        if not trainer.is_global_zero:
            return
        directory, dtype = cast(Path, self.directory), torch.float16 if self.half else None
        if not self.adapter_only:
            save_model(module.model, directory, dtype=dtype)
        elif module.model.adapter is not None:
            backbone = module.model.backbone
            save_adapter(module.model.adapter, directory, backbone=backbone, dtype=dtype)


class DepthPictures(lightning.Callback):
    """Puts the last frame of the first ``windows`` validation windows on TensorBoard.

    Each is a row of picture, depth and truth, red at the nearest true depth and blue at the
    farthest.
    """

    def __init__(self, windows: int = 4) -> None:
        self.windows = windows
        self.rows: list[np.ndarray] = []

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.rows = []

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        last = zip(outputs[:, -1], batch['rgb'][:, -1], batch['depth_m'][:, -1], strict=True)
        for depth_m, rgb, truth_m in last:
            if len(self.rows) < self.windows and truth_m.isfinite().any():
                self.rows.append(depth_row(*(x.cpu().numpy() for x in (rgb, depth_m, truth_m))))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or not self.rows or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    'val/rgb_depth_truth',
                    np.concatenate(self.rows),
                    trainer.global_step,
                    dataformats='HWC',
                )


def depth_row(rgb: np.ndarray, depth_m: np.ndarray, truth_m: np.ndarray) -> np.ndarray:
    """Put picture (H, W, 3), depth and truth (H, W) beside one another."""
    near_m, far_m = float(np.nanmin(truth_m)), float(np.nanmax(truth_m))
    depths = [rgb_from_depth(x, near_m=near_m, far_m=far_m) for x in (depth_m, truth_m)]
    return np.concatenate([rgb, *depths], axis=1)
