# SPDX-License-Identifier: Apache-2.0
"""A picture and its camera_info, as a driver sends them."""

from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def picture_and_info(stamp_s: int, focal_px: float) -> tuple[Image, CameraInfo]:
    header = Header(frame_id='camera')
    header.stamp.sec = stamp_s
    info = CameraInfo(header=header, height=48, width=64)
    info.k = [focal_px, 0.0, 32.0, 0.0, focal_px, 24.0, 0.0, 0.0, 1.0]
    pixels = bytes(range(192)) * 48
    return Image(header=header, height=48, width=64, encoding='rgb8', step=192, data=pixels), info
