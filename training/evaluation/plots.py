# SPDX-License-Identifier: Apache-2.0
"""Errors over time and strips of pictures, one file of each per scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from smoothdino_model.recordings.depth_images import rgb_from_depth
from training.evaluation.measure import MEAN_MAP, Measured

SCENES = 8  # that are plotted; more would fill a folder, and the memory, that nobody looks at


def write_plots(measured: Measured, directory: Path, *, source: str) -> list[Path]:
    """Write ``<source>_<scene>_time.png`` and ``…_strip.png`` for the first scenes.

    ``strip`` is left out where no pictures were kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for scene in list(dict.fromkeys(measured.scenes))[:SCENES]:
        figures = {'time': _over_time(measured, scene), 'strip': _strip(measured, scene)}
        for kind, figure in figures.items():
            if figure is not None:
                path = directory / f'{source}_{scene.replace("/", "_")}_{kind}.png'
                figure.savefig(path, dpi=100, bbox_inches='tight')
                written.append(path)
    return written


def _over_time(measured: Measured, scene: str) -> Figure:
    at = np.flatnonzero(np.array(measured.scenes) == scene)
    numbers = np.array(measured.positions)[at]
    breaks = [i for i in range(1, len(at)) if at[i] in measured.starts]  # no line across these
    figure = Figure(figsize=(9, 5))
    errors, scales = figure.subplots(2, sharex=True)
    for name in measured.methods:
        rmse_m = np.sqrt(measured.array(name, 'mse')[at])
        scale = 100 * np.expm1(measured.array(name, 'scale_bias')[at])
        style = {'label': name, 'linewidth': 1.2, 'color': '0.7' if name == MEAN_MAP else None}
        for axes, values in ((errors, rmse_m), (scales, scale)):
            axes.plot(np.insert(numbers.astype(float), breaks, np.nan),
                      np.insert(values, breaks, np.nan), **style)  # fmt: skip
    errors.set(ylabel='RMSE [m]', title=scene)
    scales.set(ylabel='scale error [%]', xlabel='frame')
    scales.axhline(0, color='0.5', linewidth=0.6)
    errors.legend(fontsize='small', ncols=4)
    return figure


def _strip(measured: Measured, scene: str) -> Figure | None:
    """Rows of RGB, truth and each method, all in the range of the truth, red near, blue far."""
    moments = [(at, moment) for (of, at), moment in measured.pictures.items() if of == scene]
    if not moments:
        return None
    names = [name for name in measured.methods if name != MEAN_MAP]
    columns = ['RGB', 'truth', *names]
    height, width = moments[0][1].truth_m.shape
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * len(moments) * height / width + 0.3))
    all_axes = figure.subplots(len(moments), len(columns), squeeze=False)
    for axes, (at, moment) in zip(all_axes, moments, strict=True):
        known_m = moment.truth_m[np.isfinite(moment.truth_m)]
        near_m, far_m = np.percentile(known_m, [1, 99]) if known_m.size else (0.0, 1.0)
        depths_m = [moment.truth_m, *(moment.depths_m[name] for name in names)]
        pictures = [moment.rgb]
        pictures += [rgb_from_depth(one, near_m=near_m, far_m=far_m) for one in depths_m]
        for place, picture in zip(axes, pictures, strict=True):
            place.imshow(picture)
            place.set(xticks=[], yticks=[])
        axes[0].set_ylabel(f'frame {at}')
    for place, title in zip(all_axes[0], columns, strict=True):
        place.set_title(title, fontsize='medium')
    figure.subplots_adjust(wspace=0.02, hspace=0.02)
    return figure
