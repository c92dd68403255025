# SPDX-License-Identifier: Apache-2.0
"""What one training step does: windows of frames through the model, in order."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import lightning
import torch
from torch import Tensor, nn
from transformers import Dinov2Config, DPTConfig, DPTForDepthEstimation

from smoothdino_model.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.backbone import DepthBackbone
from smoothdino_model.checkpoint import load_model, save_model
from smoothdino_model.model import SmoothDino, TemporalState
from smoothdino_model.phase_correlation import windowed_spectrum
from training.losses import (
    gradient_matching,
    log_ratio,
    masked_mse,
    scale_change,
    scale_invariant_log,
)

PARTS = ('encoder', 'decoder', 'adapter')
_MEAN_INDOOR_DEPTH_M = 2.5  # where the fresh head starts: at zero its last ReLU would be dead


@dataclass(frozen=True)
class NetworkSize:
    """A DINOv2-shaped DPT to train from nothing."""

    hidden: int = 192
    layers: int = 6
    heads: int = 3
    neck: tuple[int, int, int, int] = (24, 48, 96, 192)
    fusion: int = 48
    image_size: int = 294


@dataclass(frozen=True)
class AdapterSize:
    """A fresh adapter; see :class:`smoothdino_model.adapter.AdapterConfig`."""

    hidden: int = 128
    current: bool = True
    previous: bool = True
    align: bool = True
    recurrent: bool = True


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; see training.losses."""

    mse: float = 1.0
    silog: float = 0.0
    gradient: float = 0.0
    scale_change: float = 0.0


class DepthTraining(lightning.LightningModule):
    """Trains the named ``parts`` of a model, ``encoder``, ``decoder`` or ``adapter``.

    Starts from ``model`` (anything that ``smoothdino infer --model`` takes) or, without it, from a
    fresh network of ``network`` size whose input is ``input_height`` high. ``adapter`` adds a
    fresh adapter. The learning rate rises over ``warmup_steps`` and falls as a cosine to zero at
    ``trainer.max_steps``.
    """

    def __init__(
        self,
        parts: list[str],
        model: str | None = None,
        network: NetworkSize | None = None,
        adapter: AdapterSize | None = None,
        input_height: int = 0,
        loss: LossWeights | None = None,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        unknown = set(parts) - set(PARTS)
        if unknown or not parts:
            raise ValueError(f'parts: expected some of {", ".join(PARTS)}, got {parts}')
        if model is not None:
            backbone = load_model(model, adapter='none', input_height=input_height).backbone
        else:
            fresh = fresh_network(network or NetworkSize())
            backbone = DepthBackbone(fresh, input_height=input_height)
        size = vars(adapter) if adapter else None
        self.model = SmoothDino(
            backbone,
            TemporalAdapter(AdapterConfig(backbone.channels, backbone.n_levels, **size))
            if size
            else None,
        )
        self.loss_weights = loss or LossWeights()
        self.trained = [module for part in parts for module in self._modules_of(part)]
        self.requires_grad_(False)
        for module in self.trained:
            module.requires_grad_(True)
        self.encoder_frozen = 'encoder' not in parts

    def _modules_of(self, part: str) -> list[nn.Module]:
        network = self.model.backbone.network
        if part == 'encoder':
            return [cast(nn.Module, network.backbone)]
        if part == 'decoder':
            return [network.neck, network.head]
        if self.model.adapter is None:
            raise ValueError("parts: 'adapter' is to be trained, expected the settings of one")
        return [self.model.adapter]

    def forward(self, rgb: Tensor) -> Tensor:
        """Give depth (B, T, H, W) of windows (B, T, H, W, 3).

        All frames are encoded at once and decoded at once; only the adapter goes one by one.
        """
        batch, length = rgb.shape[:2]
        backbone = self.model.backbone
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            network_input = backbone.preprocess(rgb.flatten(0, 1))
            features = backbone.encode_input(network_input)
        if self.model.adapter is None:
            return backbone.decode(features).unflatten(0, (batch, length))
        spectra = windowed_spectrum(backbone.luma(network_input)).unflatten(0, (batch, length))
        levels = [level.unflatten(0, (batch, length)) for level in features.levels]
        adapted: list[tuple[Tensor, ...]] = []
        state: TemporalState | None = None
        for t in range(length):
            frame = replace(features, levels=tuple(level[:, t] for level in levels))
            frame, state = self.model.adapt(frame, spectra[:, t], state)
            adapted.append(frame.levels)
        together = tuple(
            torch.stack(level, dim=1).flatten(0, 1) for level in zip(*adapted, strict=True)
        )
        depth_m = backbone.decode(replace(features, levels=together))
        return depth_m.unflatten(0, (batch, length))

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        depth_m, truth_m = self(batch['rgb']), batch['depth_m']
        weights = self.loss_weights
        terms = {
            'mse': (weights.mse, masked_mse),
            'silog': (weights.silog, scale_invariant_log),
            'gradient': (weights.gradient, gradient_matching),
            'scale_change': (weights.scale_change, scale_change),
        }
        total = depth_m.new_zeros(())
        for name, (weight, loss) in terms.items():
            if weight:
                value = loss(depth_m, truth_m)
                self.log(f'train/{name}', value)
                total = total + weight * value
        self.log('train/loss', total, prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        depth_m, truth_m = self(batch['rgb']), batch['depth_m']
        for source, name in enumerate(('room', 'nyu')):
            of_source = batch['source'] == source
            if not of_source.any():
                continue
            mine, truth = depth_m[of_source], truth_m[of_source]
            count = int(of_source.sum())
            self.log(f'val/{name}_mse', masked_mse(mine, truth), prog_bar=True, batch_size=count)
            if depth_m.shape[1] > 1:
                scale = log_ratio(mine, truth).flatten(-2).nanmedian(-1).values
                self.log(f'val/{name}_flicker', scale.diff(dim=1).abs().mean(), batch_size=count)

    def configure_optimizers(self):
        parameters = [p for module in self.trained for p in module.parameters()]
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]  # biases and norms do not decay
        optimizer = torch.optim.AdamW(
            [
                {'params': matrices, 'weight_decay': self.hparams['weight_decay']},
                {'params': vectors, 'weight_decay': 0.0},
            ],
            lr=self.hparams['learning_rate'],
            betas=(0.9, 0.99),  # short trainings: the default forgets too slowly
        )
        warmup, last = self.hparams['warmup_steps'], self.trainer.max_steps

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, last - warmup))
            return 0.5 * (1 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }


class ExportModel(lightning.Callback):
    """Writes the trained model to a directory that every part of the software loads."""

    def __init__(self, directory: str, half: bool = False) -> None:
        self.directory = Path(directory)
        self.half = half

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            save_model(
                cast(DepthTraining, module).model,
                self.directory,
                dtype=torch.float16 if self.half else None,
            )


def fresh_network(size: NetworkSize) -> DPTForDepthEstimation:
    encoder = Dinov2Config(  # type: ignore[call-arg]  # out_indices is there, says its docstring
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        patch_size=14,
        image_size=size.image_size,
        out_indices=[math.ceil(size.layers * quarter / 4) for quarter in (1, 2, 3, 4)],
        apply_layernorm=False,
        reshape_hidden_states=False,
        layerscale_value=1.0,  # DINOv2's 1e-5 is for far longer trainings
    )
    network = DPTForDepthEstimation(
        DPTConfig(
            backbone_config=encoder,
            neck_hidden_sizes=list(size.neck),
            fusion_hidden_size=size.fusion,
            readout_type='project',
            is_hybrid=False,
            head_in_index=-1,
            use_batch_norm_in_fusion_residual=False,
            add_projection=False,
        )
    )
    _initialise(network)
    return network


@torch.no_grad()
def _initialise(network: DPTForDepthEstimation) -> None:
    """Start so that the signal keeps its size on the way through.

    transformers draws every weight with a deviation of 0.02, which suits wide networks that are
    to be fine-tuned. In one as narrow as this the picture would hardly reach the output, and
    thousands of steps would go by before it did.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity='linear')
    for name, module in network.neck.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity='linear')
        if name.endswith('convolution2'):  # residual units start as the identity
            nn.init.zeros_(cast(nn.Conv2d, module).weight)
    last = [module for module in network.head.modules() if isinstance(module, nn.Conv2d)][-1]
    nn.init.normal_(last.weight, std=0.1)
    nn.init.constant_(cast(Tensor, last.bias), _MEAN_INDOOR_DEPTH_M)
    for name, parameter in network.named_parameters():
        if name.endswith('patch_embeddings.projection.weight'):
            parameter.copy_(_whitened_cosines(parameter.shape[0], parameter.shape[-1]))
        if name.endswith('position_embeddings'):
            parameter[0, 1:] = 0.5 * _position_waves(parameter.shape[1] - 1, parameter.shape[2])


def _whitened_cosines(filters: int, patch: int) -> Tensor:
    """The lowest cosines of a patch (filters, 3, patch, patch), grey ones before coloured ones.

    Pictures hold less of a frequency the higher it is, about as its inverse; the filters make up
    for it, so that a token tells edges and textures from its first step on, not colour alone.
    """
    t = torch.arange(patch)
    waves = torch.cos(math.pi * (t + 0.5) * t[:, None] / patch)  # DCT-II
    waves = waves / waves.norm(dim=1, keepdim=True)
    gray = torch.full((3,), 3**-0.5)
    colors = torch.tensor([[0.0, 0.5, -0.5], [0.5, -0.5, 0.0]]) * 2**0.5
    bank = [
        (frequency * cost + extra, color, frequency, row, column)
        for color, cost, extra in ((gray, 1, 0), (colors[0], 3, 2), (colors[1], 3, 2))
        for row in range(patch)
        for column in range(patch)
        for frequency in (math.hypot(row, column),)
    ]
    bank.sort(key=lambda entry: entry[0])
    return torch.stack(
        [
            color[:, None, None] * torch.outer(waves[row], waves[column]) * max(0.12, 0.35 * f)
            for _, color, f, row, column in bank[:filters]
        ]
    )


def _position_waves(positions: int, channels: int) -> Tensor:
    """Sines and cosines of row and column (positions, channels) on a square grid (MAE, 2022)."""
    side = math.isqrt(positions)
    frequencies = 10000 ** -(torch.arange(channels // 4) / (channels // 4))
    angles = torch.arange(side)[:, None] * frequencies  # (side, C / 4)
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)  # (side, C / 2)
    rows = waves[:, None].expand(-1, side, -1)
    columns = waves[None].expand(side, -1, -1)
    return torch.cat((rows, columns), dim=2).reshape(positions, channels)
