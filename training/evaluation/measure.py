# SPDX-License-Identifier: Apache-2.0
"""Every method on every frame: errors, steadiness, and a few pictures to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from smoothdino_model import metrics
from smoothdino_model.network.trained_camera import NYU
from smoothdino_model.recordings.frames import PERIOD_NS
from training.evaluation.anchored import Anchored, Surroundings, floor_share
from training.evaluation.methods import PER_FRAME, Methods
from training.evaluation.stretches import Stretch

MEAN_MAP = 'mean_map'
_TOGETHER = 4  # frames in a batch
_PICTURES = 3  # of each scene
_EDGE_ROWS = 240  # edges are looked for in about so many rows
ERRORS = (
    *('mse', 'abs_rel', 'abs_rel_aligned', 'log10', 'delta1', 'delta2', 'delta3'),
    *('edge_f1', 'scale_error', 'scale_bias'),
)


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame, its truth and all methods' depth (H, W) of it, in metres.

    ``published_m`` is what the published code would evaluate, where that differs.
    """

    rgb: np.ndarray | None
    truth_m: np.ndarray
    depths_m: Mapping[str, np.ndarray]
    published_m: Mapping[str, np.ndarray]
    world_from_camera: np.ndarray | None
    focal_px: float
    floor_share: float = np.nan


@dataclass(eq=False)
class Measured:
    """Figures of each frame: for each method and metric (N,) values, NaN where there is none.

    Frame i is number ``positions[i]`` of ``scenes[i]``; ``starts`` holds the i at which a stretch
    of consecutive frames begins. ``truth`` has what the true depth itself scores where the
    camera's own motion counts, ``floor_share`` how much of each frame is floor, where that is
    known. ``pictures`` are some moments, by (scene, position). The last methods, ``anchored``, are
    that named ``unanchored`` at another scale.
    """

    methods: list[str]
    scenes: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    truth: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pictures: dict[tuple[str, int], Moment] = field(default_factory=dict)
    floor_share: list[float] = field(default_factory=list)
    anchored: Sequence[str] = ()
    unanchored: str = PER_FRAME

    def __post_init__(self) -> None:
        self.values = {name: defaultdict(list) for name in self.methods}

    def array(self, method: str, metric: str) -> np.ndarray:
        return np.array(self.values[method][metric])


def measure(
    stretches: Iterable[Stretch],
    methods: Methods,
    *,
    mean_map_m: np.ndarray | None = None,
    pictured_scenes: int = 0,
    anchored: Anchored | None = None,
) -> Measured:
    """Run all methods over all stretches, in each of which they start afresh.

    A few moments of the first ``pictured_scenes`` scenes are kept as pictures. What is anchored is
    the first method that is steadied over time.
    """
    anchored = anchored or Anchored(())
    unanchored = [*methods.names, PER_FRAME][1]
    names = [*([] if mean_map_m is None else [MEAN_MAP]), *methods.names, *anchored.ways]
    measured = Measured(names, anchored=anchored.ways, unanchored=unanchored)
    for stretch in stretches:
        pictured: set[int] = set()
        if stretch.scene not in measured.scenes and pictured_scenes > 0:
            pictured_scenes -= 1
            last = stretch.length - 1
            pictured = {round(last * part / (_PICTURES - 1)) for part in range(_PICTURES)}
        before: Moment | None = None
        measured.starts.append(len(measured.scenes))
        for number, moment in enumerate(
            _moments(stretch, methods, mean_map_m, anchored, unanchored)
        ):
            if number >= stretch.context:
                add(measured, stretch.scene, stretch.first + number, moment, before)
                before = moment
            if number in pictured:
                measured.pictures[stretch.scene, stretch.first + number] = moment
    return measured


def add(
    measured: Measured, scene: str, position: int, moment: Moment, before: Moment | None
) -> None:
    """Add a frame; ``before`` is the one before it in the same stretch, if that counts."""
    measured.scenes.append(scene)
    measured.positions.append(position)
    measured.floor_share.append(moment.floor_share)
    metric, difference = _difference(before, moment)
    measured.truth[metric].append(
        np.nan if before is None else difference(before.truth_m, moment.truth_m)
    )
    for name in measured.methods:
        values, depth_m = measured.values[name], moment.depths_m[name]
        figures = _errors(depth_m, moment.truth_m)
        figures['mse_published'] = _mse_of_all(
            moment.published_m.get(name, depth_m), moment.truth_m
        )
        figures['flicker'] = figures[metric] = np.nan
        if before is not None:
            figures['flicker'] = abs(figures['scale_bias'] - values['scale_bias'][-1])
            figures[metric] = difference(before.depths_m[name], depth_m)
        for key, value in figures.items():
            values[key].append(value)


def _errors(depth_m: np.ndarray, truth_m: np.ndarray) -> dict[str, float]:
    """Errors of one frame; NaN where nothing of its truth is known."""
    if not (np.isfinite(truth_m) & (truth_m > 0)).any():
        return dict.fromkeys(ERRORS, np.nan)
    scale_bias = metrics.scale_error(depth_m, truth_m)
    step = max(1, round(len(truth_m) / _EDGE_ROWS))
    return {
        'mse': metrics.mse(depth_m, truth_m),
        'abs_rel': metrics.abs_rel(depth_m, truth_m),
        'abs_rel_aligned': metrics.abs_rel(depth_m / np.exp(scale_bias), truth_m),
        'log10': metrics.log10(depth_m, truth_m),
        'delta1': metrics.delta(depth_m, truth_m, power=1),
        'delta2': metrics.delta(depth_m, truth_m, power=2),
        'delta3': metrics.delta(depth_m, truth_m, power=3),
        'edge_f1': metrics.edge_f1(depth_m[::step, ::step], truth_m[::step, ::step]),
        'scale_error': abs(scale_bias),
        'scale_bias': scale_bias,
    }


def _mse_of_all(depth_m: np.ndarray, truth_m: np.ndarray) -> float:
    """As published: of all pixels, an unknown one's truth being 0, as it is stored."""
    return float(np.mean((depth_m - np.nan_to_num(truth_m)) ** 2, dtype=np.float64))


def _difference(
    before: Moment | None, now: Moment
) -> tuple[str, Callable[[np.ndarray, np.ndarray], float]]:
    """What tells how two consecutive depth maps differ, and its name.

    With poses it is the temporal alignment error, without them the flow's consistency; with
    neither poses nor pictures nothing can be told.
    """
    if now.world_from_camera is not None:
        motion = np.eye(4)
        if before is not None and before.world_from_camera is not None:
            motion = np.linalg.solve(now.world_from_camera, before.world_from_camera)
        return 'tae', partial(
            metrics.temporal_alignment_error,
            current_from_previous=motion,
            focal_px=now.focal_px,
        )
    if before is None or before.rgb is None or now.rgb is None:
        return 'consistency', lambda *_: np.nan
    was_at = metrics.optical_flow(before.rgb, now.rgb)
    return 'consistency', partial(metrics.flow_consistency, was_at=was_at)


def _moments(
    stretch: Stretch,
    methods: Methods,
    mean_map_m: np.ndarray | None,
    anchored: Anchored,
    unanchored: str,
) -> Iterator[Moment]:
    methods.reset()
    anchored.reset()
    for start in range(0, stretch.length, _TOGETHER):
        window = stretch.read(range(start, min(start + _TOGETHER, stretch.length)))
        depths_m, published_m, looks = methods.depths(window.rgb)
        height, width = window.depth_m.shape[1:]
        camera = {'focal': window.focal, 'height': height, 'width': width}
        zoom = np.float32(methods.backbone.trained_camera.scale(**camera))
        mean_m = {}
        if mean_map_m is not None:
            scaled_m = np.float32(NYU.scale(**camera)) * mean_map_m
            mean_m = {MEAN_MAP: cv2.resize(scaled_m, (width, height))}
        for i, (rgb, truth_m) in enumerate(zip(window.rgb, window.depth_m, strict=True)):
            scaled_m = {name: zoom * depth_m[i] for name, depth_m in depths_m.items()}
            pose = None if window.world_from_camera is None else window.world_from_camera[i]
            around = Surroundings(
                window.camera,
                window.floors[i] if window.floors else None,
                truth_m,
                window.stamps_ns[i] if window.stamps_ns else (start + i) * PERIOD_NS,
                rgb,
                pose,
                looks[i],
            )
            yield Moment(
                rgb,
                truth_m,
                mean_m | scaled_m | anchored.depths(scaled_m[unanchored], around),
                {name: zoom * depth_m[i] for name, depth_m in published_m.items()},
                pose,
                window.focal * width,
                floor_share(around) if anchored.ways else np.nan,
            )
