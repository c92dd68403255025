# SPDX-License-Identifier: Apache-2.0
"""What one training step does: windows of frames through the model, in order."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn

from smoothdino_model.network.backbone import DepthBackbone, Features
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.weights.checkpoint import load_adapter, load_model
from training.feature_cache import FeatureCache
from training.losses import (
    LossWeights,
    gradient_matching,
    log_ratio,
    masked_mse,
    scale_change,
    scale_invariant_log,
)
from training.network import (
    BACKBONES,
    AdapterSize,
    NetworkSize,
    fresh_adapter,
    fresh_network,
)
from training.optimizer import OptimizerSettings

PARTS = ('encoder', 'decoder', 'adapter')
Levels = tuple[Tensor, ...]  # of windows: (B, T, 1 + N, C) each


class DepthTraining(lightning.LightningModule):
    """Trains the named ``parts`` of a model, ``encoder``, ``decoder`` or ``adapter``.

    Starts from ``backbone``, one of ``small``, ``base``, ``large`` and ``giant`` (DINOv2 + DPT on
    NYUv2) or anything that ``smoothdino infer --model`` takes, or, without it, from a fresh
    network of ``network`` size; its input is ``input_height`` high. ``adapter`` is the size of a
    fresh adapter, or a trained one to go on with: a directory or a published ``.pth``.

    Of a window of frames only the last ``learnt_frames`` are decoded and learnt from (by default
    all), and the ones before them lead up to their state. ``features`` is a folder that keeps what
    a frozen encoder gave, see :class:`training.feature_cache.FeatureCache`.
    """

    def __init__(
        self,
        parts: list[str],
        backbone: str | None = None,
        network: NetworkSize | None = None,
        adapter: AdapterSize | str | None = None,
        input_height: int = 0,
        loss: LossWeights | None = None,
        optimizer: OptimizerSettings | None = None,
        learnt_frames: int | None = None,
        features: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        unknown = set(parts) - set(PARTS)
        if unknown or not parts:
            raise ValueError(f'parts: expected some of {", ".join(PARTS)}, got {parts}')
        if backbone is not None:
            name = BACKBONES.get(backbone, backbone)
            start = load_model(name, adapter='none', input_height=input_height).backbone
        else:
            fresh = fresh_network(network or NetworkSize())
            start = DepthBackbone(fresh, input_height=input_height)
        if isinstance(adapter, AdapterSize):
            self.model = SmoothDino(start, fresh_adapter(adapter, start))
        else:
            self.model = SmoothDino(start, load_adapter(adapter) if adapter else None)
        self.loss = loss or LossWeights()
        self.optimization = optimizer or OptimizerSettings()
        self.trained = [module for part in parts for module in self._modules_of(part)]
        self.requires_grad_(False)
        for module in self.trained:
            module.requires_grad_(True)
        self.encoder_frozen = 'encoder' not in parts
        # A first frame has no previous one: of it an adapter learns nothing.
        self.first_learnt = 1 if set(parts) == {'adapter'} else 0
        if self.loss.original and not self.first_learnt:
            raise ValueError(f"loss.original: expected parts ['adapter'], got {parts}")
        if features and not self.encoder_frozen:
            raise ValueError('features: expected a frozen encoder, got one that is trained')
        self.cache = FeatureCache(features, start) if features else None

    def _modules_of(self, part: str) -> list[nn.Module]:
        network = self.model.backbone.network
        if part == 'encoder':
            return [cast(nn.Module, network.backbone)]
        if part == 'decoder':
            return [network.neck, network.head]
        if self.model.adapter is None:
            raise ValueError("parts: 'adapter' is to be trained, expected the settings of one")
        return [self.model.adapter]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Of a run that had ended. Asked for more steps, Lightning would end it there once more.
        checkpoint['loops']['fit_loop']['epoch_loop.batch_progress']['is_last_batch'] = False

    def setup(self, stage: str) -> None:
        if stage == 'fit':
            self._leave_out_unused()

    def _leave_out_unused(self) -> None:
        """Freeze what no depth depends on, a mask token or layers behind the last level.

        Several processes would wait for its gradient for ever.
        """
        side = 4 * self.model.backbone.patch
        rgb = torch.zeros(1, 2, side, side, 3, dtype=torch.uint8, device=self.device)
        with torch.enable_grad():
            self(rgb).sum().backward()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None

    def forward(self, rgb: Tensor) -> Tensor:
        """Give depth (B, T, H, W) in metres of windows (B, T, H, W, 3)."""
        frame, _, adapted = self.encode(rgb)
        return self.decode(frame, adapted)

    def encode(self, rgb: Tensor, first: int = 0) -> tuple[Features, Levels, Levels]:
        """Encode windows (B, T, H, W, 3) all at once, and adapt them frame by frame.

        Gives the features before and after, and :class:`Features` whose shape fits single frames.
        An adapter learns from the frames from ``first`` on.
        """
        batch, length = rgb.shape[:2]
        frames = rgb.flatten(0, 1)
        kept = partial(self.cache.encode, frames) if self.cache else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            seen = self.model.see(frames, kept)
        levels = tuple(level.unflatten(0, (batch, length)) for level in seen.features.levels)
        if self.model.adapter is None:
            return seen.features, levels, levels
        adapted: list[Levels] = []
        state: TemporalState | None = None
        for t in range(length):
            # Of each window the frame t. In full precision: what is remembered is kept in half,
            # which autocast on a CPU does not put together.
            with (
                torch.set_grad_enabled(torch.is_grad_enabled() and t >= first),
                torch.autocast(rgb.device.type, enabled=False),
            ):
                frame, state = self.model.adapt(seen.of(slice(t, None, length)), state)
            adapted.append(frame.levels)
        together = tuple(torch.stack(level, dim=1) for level in zip(*adapted, strict=True))
        return seen.features, levels, together

    def decode(self, frame: Features, levels: Levels) -> Tensor:
        """Give depth (B, T, H, W) in metres of the features of windows."""
        shape = levels[0].shape[:2]
        flat = replace(frame, levels=tuple(level.flatten(0, 1) for level in levels))
        return self.model.backbone.decode(flat).unflatten(0, shape)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        truth_m = batch['depth_m']
        weights, length = self.loss, truth_m.shape[1]
        first = max(self.first_learnt, length - (self.hparams['learnt_frames'] or length))
        if length < (2 if first or weights.scale_change else 1):
            raise ValueError(
                'data.windows.frames: expected at least 2 frames for what is to be learnt'
            )
        frame, plain, adapted = self.encode(batch['rgb'], first)
        depth_m = self.decode(frame, _frames(adapted, first, None))
        learnt_m = truth_m[:, first:]
        terms: dict[str, Tensor] = {}
        if weights.mse:
            terms['mse'] = masked_mse(depth_m, learnt_m)
        if weights.silog:
            terms['silog'] = scale_invariant_log(depth_m, learnt_m)
        if weights.gradient:
            terms['gradient'] = gradient_matching(depth_m, learnt_m)
        if weights.original:
            with torch.no_grad():
                original_m = self.decode(frame, _frames(plain, first, None))
            terms['original'] = masked_mse(depth_m, original_m)
        if weights.scale_change:
            all_m = depth_m
            if first:
                with torch.no_grad():
                    before_m = self.decode(frame, _frames(adapted, first - 1, first))
                all_m = torch.cat((before_m, depth_m), dim=1)
            terms['scale_change'] = scale_change(all_m, truth_m[:, -all_m.shape[1] :])
        total = depth_m.new_zeros(())
        for name, value in terms.items():
            self.log(f'train/{name}', value)
            total = total + getattr(weights, name) * value
        self.log('train/loss', total, prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Log figures of all windows as ``val/…`` and of each source as ``val/<source>_…``."""
        depth_m, truth_m = self(batch['rgb']), batch['depth_m']
        self._log_figures('val/', depth_m, truth_m)
        sources: list[str] = self.trainer.datamodule.sources  # type: ignore[attr-defined]
        for source, name in enumerate(sources if len(sources) > 1 else []):
            of_source = batch['source'] == source
            if of_source.any():
                self._log_figures(f'val/{name}_', depth_m[of_source], truth_m[of_source])
        return depth_m

    def _log_figures(self, prefix: str, depth_m: Tensor, truth_m: Tensor) -> None:
        first = self.first_learnt
        ratio = log_ratio(depth_m, truth_m)
        figures = {
            'mse': masked_mse(depth_m[:, first:], truth_m[:, first:]),
            'abs_rel': torch.expm1(ratio[:, first:]).abs().nanmean(),
        }
        if depth_m.shape[1] > 1:
            scale = ratio.flatten(-2).nanmedian(-1).values
            figures['flicker'] = scale.diff(dim=1).abs().nanmean()
        for name, value in figures.items():
            if value.isfinite():  # no window may have two frames with truth
                self.log(
                    prefix + name,
                    value,
                    prog_bar=prefix + name == 'val/mse',
                    batch_size=len(depth_m),
                    sync_dist=True,
                )

    def configure_optimizers(self):
        optimizer = self.optimization.optimizer(self.trained)
        # Not trainer.estimated_stepping_batches: that opens the stream, before it is known where.
        last = self.trainer.datamodule.steps(self.trainer)  # type: ignore[attr-defined]
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.optimization.factor(step, last)
        )
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }


def _frames(levels: Levels, first: int, last: int | None) -> Levels:
    return tuple(level[:, first:last] for level in levels)
