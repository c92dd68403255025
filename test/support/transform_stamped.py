# SPDX-License-Identifier: Apache-2.0
"""Transforms as TF has them, of matrices."""

import math

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from std_msgs.msg import Header


def transform(parent: str, child: str, matrix: np.ndarray) -> TransformStamped:
    x_m, y_m, z_m = matrix[:3, 3].tolist()
    w = math.sqrt(max(0.0, 1 + np.trace(matrix[:3, :3]))) / 2
    r = matrix[:3, :3]
    x, y, z = ((r[2, 1] - r[1, 2]), (r[0, 2] - r[2, 0]), (r[1, 0] - r[0, 1]))
    rotation = Quaternion(x=x / (4 * w), y=y / (4 * w), z=z / (4 * w), w=w)
    one = Transform(translation=Vector3(x=x_m, y=y_m, z=z_m), rotation=rotation)
    return TransformStamped(header=Header(frame_id=parent), child_frame_id=child, transform=one)
