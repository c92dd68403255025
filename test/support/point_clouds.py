# SPDX-License-Identifier: Apache-2.0
"""Clouds read as a stranger would: by their fields."""

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField


def points_of(message: PointCloud2) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) metres and (H, W, 3) colours, read as a stranger would: by the fields."""
    order = '>' if message.is_bigendian else '<'
    types = {PointField.FLOAT32: 'f4'}
    layout = np.dtype(
        {
            'names': [f.name for f in message.fields],
            'formats': [order + types[f.datatype] for f in message.fields],
            'offsets': [f.offset for f in message.fields],
            'itemsize': message.point_step,
        }
    )
    assert message.row_step == message.width * message.point_step
    assert len(message.data) == message.height * message.row_step
    points = np.frombuffer(message.data, layout).reshape(message.height, message.width)
    packed = points['rgb'].copy().view(order + 'u4')
    rgb = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1)
    # A reader that skips NaN in any field must not skip a colour.
    assert np.isfinite(points['rgb']).all()
    return np.stack([points[name] for name in 'xyz'], axis=-1), rgb
