# SPDX-License-Identifier: Apache-2.0
"""What the focal length does to the scale of depth, on rooms that no training saw:

python -m benchmarks.focal_length --model smoothdino-small

Each line is a lens and a shape of picture: the mean AbsRel of depth as the model says it, and as
the pipeline scales it.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from smoothdino_model import CameraFrame, DepthPipeline
from smoothdino_model.metrics import abs_rel
from smoothdino_model.room.sample_room import NYU_FOCAL, SampleRoom

FIRST_UNSEEN_ROOM = 1_000_000
SHAPES = ((240, 320), (180, 320))
TIMES = (0.7, 1.0, 1.5)  # the focal length of NYUv2 at this width


def main() -> None:
    parser = argparse.ArgumentParser(prog='focal_length', description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--rooms', type=int, default=12)
    options = parser.parse_args()
    pipeline = DepthPipeline.from_pretrained(
        options.model, adapter='none', temporal=False, device=options.device
    )
    print(f'{"picture":>9}{"focal":>7}{"scale":>7}{"as it is":>10}{"corrected":>11}')
    for height, width in SHAPES:
        for times in TIMES:
            errors, scale = [], 1.0
            for number in tqdm(range(options.rooms), disable=None, leave=False):
                focal_px = times * NYU_FOCAL * width
                room = SampleRoom(
                    FIRST_UNSEEN_ROOM + number, height=height, width=width, focal_px=focal_px
                )
                for i in (0, 60, 120):
                    frame = room.frame(i)
                    truth_m = np.asarray(frame.depth_m)
                    asked = CameraFrame(frame.rgb, frame.stamp_ns, focal=focal_px / width)
                    result = pipeline.step({'': asked})['']
                    scale = result.scale
                    errors.append(
                        [abs_rel(d, truth_m) for d in (result.depth_m / scale, result.depth_m)]
                    )
            plain, corrected = np.mean(errors, axis=0)
            picture = f'{width}x{height}'
            print(f'{picture:>9}{times:7.1f}{scale:7.2f}{plain:10.3f}{corrected:11.3f}')


if __name__ == '__main__':
    main()
