# SPDX-License-Identifier: Apache-2.0
"""A camera in a process of its own: plays an array of frames, each after the answer to the last.

Frame i of lap n has the stamp start + i * period: each lap repeats the stamps, like a looping bag.
Its last word is how many answers it has seen.
"""

import argparse
import sys
import time

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from support.discovery import wait_until_known


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('frames', help='.npy of (N, H, W, 3) uint8 RGB')
    parser.add_argument('--prefix', default='')
    parser.add_argument('--start-ns', type=int, default=1_000_000_000)
    parser.add_argument('--period-ns', type=int, default=33_333_333)
    parser.add_argument('--focal-px', type=float, default=500.0)
    parser.add_argument('--info-readers', type=int, default=1, help='of camera_info: waited for')
    parser.add_argument('--laps', type=int, default=1)
    parser.add_argument('--answer-within-s', type=float, default=60.0)
    parser.add_argument('--compressed', action='store_true')
    parser.add_argument('--garbage-before', type=int, default=-1, help='a frame of the first lap')
    options = parser.parse_args(rclpy.utilities.remove_ros_args()[1:])
    frames = np.load(options.frames)
    rclpy.init()
    node = rclpy.create_node('camera')
    kind, topic = (CompressedImage, 'image/compressed') if options.compressed else (Image, 'image')
    images = node.create_publisher(kind, options.prefix + topic, QoSProfile(depth=5))
    infos = node.create_publisher(CameraInfo, options.prefix + 'camera_info', QoSProfile(depth=5))
    answers: list[Image] = []
    node.create_subscription(Image, options.prefix + 'depth/image', answers.append, 10)
    rejected: dict[str, int] = {}  # by each camera's own count

    def diagnosed(message: DiagnosticArray) -> None:
        for one in message.status:
            rejected.update((one.name, int(v.value)) for v in one.values if v.key == 'rejected')

    node.create_subscription(DiagnosticArray, '/diagnostics', diagnosed, 10)

    def wait_for(condition, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        return condition()

    if not wait_for(
        lambda: (
            images.get_subscription_count()
            and infos.get_subscription_count() >= options.info_readers
        ),
        60.0,
    ):
        print('too few subscribe to the camera', file=sys.stderr)
        return 1
    wait_until_known(node)

    def send_garbage() -> None:
        """Each when the one before is rejected, as what has no time to be is dropped."""
        wait_for(lambda: rejected, 20.0)
        for message in garbage(kind):
            before = sum(rejected.values())
            images.publish(message)
            wait_for(lambda n=before: sum(rejected.values()) > n, 20.0)

    for lap in range(options.laps):
        for i, rgb in enumerate(frames):
            if lap == 0 and i == options.garbage_before:
                send_garbage()
            info = camera_info(rgb, options.focal_px)
            stamp_ns = options.start_ns + i * options.period_ns
            info.header.stamp.sec, info.header.stamp.nanosec = divmod(stamp_ns, 10**9)
            infos.publish(info)
            seen = len(answers)
            images.publish(picture(kind, rgb, info.header))
            wait_for(
                lambda stamp=info.header.stamp, n=seen: any(
                    one.header.stamp == stamp for one in answers[n:]
                ),
                options.answer_within_s,
            )
    print(len(answers))
    return 0


def picture(kind, rgb: np.ndarray, header):
    if kind is CompressedImage:
        png = cv2.imencode('.png', rgb[..., ::-1])[1]
        return CompressedImage(header=header, format='png', data=png.tobytes())
    height, width = rgb.shape[:2]
    padded = np.pad(rgb[..., ::-1].reshape(height, width * 3), ((0, 0), (0, 8)))
    return Image(
        header=header,
        height=height,
        width=width,
        encoding='bgr8',
        step=width * 3 + 8,
        data=padded.tobytes(),
    )


def camera_info(rgb: np.ndarray, focal_px: float = 500.0) -> CameraInfo:
    height, width = rgb.shape[:2]
    info = CameraInfo(height=height, width=width)
    info.header.frame_id = 'camera_optical_frame'
    f, cx, cy = focal_px, width / 2, height / 2
    info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
    info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def garbage(kind):
    if kind is CompressedImage:
        return [CompressedImage(format='jpeg', data=b'\xff\xd8\xff nothing'), CompressedImage()]
    return [
        Image(),
        Image(height=480, width=640, encoding='rgb8', step=1920, data=b'short'),
        Image(height=2, width=2, encoding='rgb8', step=1, data=b'abcd'),
        Image(height=2**31, width=2**31, encoding='mono8', step=2**31, data=b'x'),
        Image(height=2, width=2, encoding='no such encoding', step=6, data=bytes(12)),
    ]


if __name__ == '__main__':
    sys.exit(main())
