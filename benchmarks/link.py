# SPDX-License-Identifier: Apache-2.0
"""What each output of the node weighs on the link, and what it costs to make it.

Depth is the bundled model's of a ride through a room, at 640x480.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from std_msgs.msg import Header

from smoothdino_model.pipeline import CameraFrame, DepthPipeline, DepthResult
from smoothdino_model.recordings.depth_images import compressed_depth, depth_bytes
from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.room.sample_room import NYU_FOCAL, SampleRoom
from smoothdino_ros.conversions import rgb_message
from smoothdino_ros.depth_colors import depth_colors
from smoothdino_ros.point_cloud import point_cloud_message

RANGE_M: dict[str, Any] = {'min_depth_m': 0.1, 'max_depth_m': 10.0}
LEVELS = (0, 1, 3, 6, 9)
THINNINGS: tuple[dict[str, Any], ...] = (
    {'stride': 2},
    {'stride': 4},
    {'max_range_m': 3.0},
    {'voxel_m': 0.02},
    {'voxel_m': 0.05},
    {'voxel_m': 0.1},
    {'stride': 2, 'voxel_m': 0.05},
)
Output = Callable[[CameraFrame, DepthResult], int]  # makes it, and gives its bytes


def raw(_: CameraFrame, result: DepthResult, *, encoding: str) -> int:
    return len(depth_bytes(result.depth_m, encoding=encoding, **RANGE_M))


def packed(_: CameraFrame, result: DepthResult, **settings: Any) -> int:
    return len(compressed_depth(result.depth_m, **settings, **RANGE_M)[1])


def points(frame: CameraFrame, result: DepthResult, **thinning: Any) -> int:
    height, width = result.depth_m.shape
    pinhole = Intrinsics(
        NYU_FOCAL * width, NYU_FOCAL * width, width / 2, height / 2, width, height
    )
    message = point_cloud_message(
        result.depth_m, frame.rgb, pinhole, Header(), **thinning, **RANGE_M
    )
    return len(message.data)


def colors(_: CameraFrame, result: DepthResult) -> int:
    return len(rgb_message(depth_colors(result.depth_m, **RANGE_M), Header()).data)


def outputs() -> dict[str, Output]:
    """By a name that says its parameters."""
    made: dict[str, Output] = {}
    for encoding in ('32FC1', '16UC1'):
        made[f'depth/image {encoding}'] = partial(raw, encoding=encoding)
        pack = partial(packed, encoding=encoding)
        for level in LEVELS:
            name = f'compressedDepth {encoding} png {level}'
            made[name] = partial(pack, kind='png', png_level=level)
        made[f'compressedDepth {encoding} rvl'] = partial(pack, kind='rvl', png_level=0)
    made['depth/image_color'] = colors
    made['depth/points'] = partial(points)
    for thinning in THINNINGS:
        name = ', '.join(f'points_{key} {value:g}' for key, value in thinning.items())
        made[f'depth/points, {name}'] = partial(points, **thinning)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=10)
    frames = parser.parse_args().frames
    pipeline, room = DepthPipeline.from_pretrained('smoothdino-small'), SampleRoom(7)
    seen: list[tuple[CameraFrame, DepthResult]] = []
    for i in range(frames):
        shown = room.frame(i)
        frame = CameraFrame(shown.rgb, shown.stamp_ns, 'camera')
        seen.append((frame, pipeline.step({'': frame})['']))
    print('| output | kB a frame | MB/s at 30 Hz | ms of one core |\n|---|---|---|---|')
    for name, output in outputs().items():
        sizes, times_s = [], []
        for frame, result in seen:
            began_s = time.thread_time()
            sizes.append(output(frame, result))
            times_s.append(time.thread_time() - began_s)
        kilobytes = median(sizes) / 1000
        print(
            f'| {name} | {kilobytes:.0f} | {kilobytes * 0.03:.2f} | {1000 * median(times_s):.2f} |'
        )


if __name__ == '__main__':
    main()
