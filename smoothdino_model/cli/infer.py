# SPDX-License-Identifier: Apache-2.0
"""``smoothdino infer``: depth of a folder of images, a video or a rosbag, as files."""

from __future__ import annotations

import argparse
import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from smoothdino_model.cli.anchor_arguments import add_anchor_arguments, anchors_of
from smoothdino_model.cli.losses import exit_code
from smoothdino_model.cli.model_arguments import (
    add_camera_arguments,
    add_model_arguments,
    pipeline_of,
)
from smoothdino_model.recordings.depth_images import rgb_from_depth
from smoothdino_model.recordings.frames import Frame, Recording, UniqueNames
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.whole_files import write_whole

if TYPE_CHECKING:
    from smoothdino_model.bag_anchors import BagAnchors
    from smoothdino_model.pipeline import DepthPipeline, DepthResult

PREVIEW_FARS_M = (1, 2, 5, 10, 20, 50, 100, 200)


def add_to(commands: Any) -> None:
    infer = commands.add_parser('infer', help='depth of a folder of images, a video or a rosbag')
    infer.set_defaults(run=run)
    add = infer.add_argument
    add('input', metavar='INPUT', type=Path, help='folder of images, video file or rosbag')
    add('--output', metavar='DIR', type=Path, required=True, help='made if it is not there')
    add('--topic', metavar='T', help='the images in a rosbag that has several topics of them')
    add_camera_arguments(infer)
    add_anchor_arguments(infer)
    add_model_arguments(infer)


def run(args: argparse.Namespace) -> int:
    """Write <name>.npy and <name>.png per frame and summary.json, each whole or not at all."""
    _check_output(args.output, args.input)
    with (
        open_recording(args.input, topic=args.topic, bit_depth=args.bit_depth) as recording,
        anchors_of(args, recording) as anchors,
    ):
        pipeline = pipeline_of(args)
        summary: dict[str, Any] = {
            'input': str(args.input),
            'kind': recording.kind,
            'model': args.model,
            'adapter': args.adapter,
            'memory': pipeline.model.memory if pipeline.temporal else 0,
            'temporal': pipeline.temporal,
            'engine': pipeline.engine,
            'device': str(pipeline.device),
            'precision': pipeline.precision,
            'scale_anchor': anchors.told() if anchors else None,
            'preview_range_m': None,
            'doubts': (),
            'per_frame': [],
        }
        args.output.mkdir(parents=True, exist_ok=True)
        with _summary_at_the_end(summary, args.output / 'summary.json'):
            _write_frames(
                *(recording, pipeline, args.output, summary),
                anchors=anchors,
                focal_correction=not args.no_focal_correction,
            )
    print(
        f'wrote {summary["frames"]} depth maps (.npy, float32 metres), their previews (.png, 0 to '
        f'{summary["preview_range_m"][1]} m) and summary.json to {args.output} at '
        f'{summary["fps"]:.2f} frames/s by {summary["engine"]} on {summary["device"]} in '
        f'{summary["precision"]}'
    )
    if anchors:
        print(f'scale by {args.scale_anchor}: {anchors.scale_in_words()}')
    return exit_code(recording.lost)


def _check_output(output: Path, source: Path) -> None:
    if output.resolve() == source.resolve():
        raise ValueError(f'expected an output apart from the input, got {output} for both')
    if output.exists() and not output.is_dir():
        raise FileExistsError(f'{output} exists and is no folder: give another --output')
    if (output / 'summary.json').exists() or any(output.glob('*.npy')):
        raise ValueError(
            f'{output} holds the frames of another run: give another --output, or remove it'
        )


def _write_frames(
    recording: Recording,
    pipeline: DepthPipeline,
    output: Path,
    summary: dict[str, Any],
    *,
    anchors: BagAnchors | None,
    focal_correction: bool,
) -> None:
    """Write the depth of each frame and its preview, and add it to the summary."""
    file_name = UniqueNames()
    # disable=None: no bar where stderr is not a terminal
    for frame in tqdm(recording, total=len(recording) or None, unit='frame', disable=None):
        result = _step(pipeline, frame, anchors=anchors, focal_correction=focal_correction)
        summary['doubts'] = recording.doubts
        if summary['preview_range_m'] is None:
            summary['preview_range_m'] = [0, _preview_far_m(result.depth_m)]
        name = file_name(re.sub(r'[^\w.-]+', '_', frame.name).strip('.')[:150] or 'frame')
        write_whole(output / f'{name}.npy', _npy(result.depth_m))
        far_m = summary['preview_range_m'][1]
        write_whole(output / f'{name}.png', _preview_png(result.depth_m, far_m))
        summary['per_frame'].append(
            {
                'name': frame.name,
                'file': f'{name}.npy',
                'stamp_ns': frame.stamp_ns,
                'shift_px': list(result.shift_px),
                'confidence': result.confidence,
                'reset': result.reset,
                'scale': result.scale,
                'anchor_scale': result.anchor_scale,
                'anchors': {
                    anchor: one.why_none or vars(one) for anchor, one in result.measured.items()
                },
            }
        )


def _step(
    pipeline: DepthPipeline, frame: Frame, *, anchors: BagAnchors | None, focal_correction: bool
) -> DepthResult:
    from smoothdino_model.pipeline import CameraFrame

    lens = frame.intrinsics
    focal = lens.focal if lens and focal_correction else None
    measure = (
        anchors.of(lens, frame.frame_id, frame.stamp_ns, frame.received_ns, frame.rgb)
        if anchors
        else {}
    )
    shown = CameraFrame(frame.rgb, frame.stamp_ns, frame.frame_id, focal=focal, anchors=measure)
    result = pipeline.step({'': shown})['']
    if anchors:
        anchors.follow(result)
    return result


@contextmanager
def _summary_at_the_end(summary: dict[str, Any], path: Path) -> Iterator[None]:
    """Write the summary of the frames that were done, also of a run that breaks off."""
    start = time.monotonic()
    summary['interrupted'] = True
    try:
        yield
        summary['interrupted'] = False
    finally:
        frames = summary['per_frame']
        summary['frames'] = len(frames)
        summary['fps'] = len(frames) / max(time.monotonic() - start, 1e-9)
        # The first frame always starts afresh: it is no reset of what was there.
        summary['resets'] = sum(frame['reset'] is not None for frame in frames[1:])
        write_whole(path, (json.dumps(summary, indent=1) + '\n').encode())


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _preview_far_m(depth_m: np.ndarray) -> int:
    """Far end of the colours: fixed by the first frame, so that the previews do not flicker."""
    known = depth_m[np.isfinite(depth_m)]
    far_m = np.percentile(known, 98) if known.size else 0
    return next((far for far in PREVIEW_FARS_M if far >= far_m), PREVIEW_FARS_M[-1])


def _preview_png(depth_m: np.ndarray, far_m: float) -> bytes:
    colored = rgb_from_depth(depth_m, near_m=0, far_m=far_m)
    return cv2.imencode('.png', colored[..., ::-1])[1].tobytes()
