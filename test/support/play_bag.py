# SPDX-License-Identifier: Apache-2.0
"""``ros2 bag play`` where there is none: the options that replay.launch.py gives, over real DDS.

Messages go out byte for byte at their times of receipt, of which /clock tells.
"""

import argparse
import sys
import time
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, LaserScan

from smoothdino_model.recordings.bags import CAMERA_INFO, COMPRESSED, IMAGE

KINDS = {
    IMAGE: Image,
    COMPRESSED: CompressedImage,
    CAMERA_INFO: CameraInfo,
    'sensor_msgs/msg/LaserScan': LaserScan,
    'sensor_msgs/msg/Imu': Imu,
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('verbs', nargs=2, choices=('bag', 'play'))
    parser.add_argument('bag')
    parser.add_argument('--clock', type=float, required=True)
    parser.add_argument('--rate', type=float, default=1.0)
    parser.add_argument('--delay', type=float, default=0.0)
    parser.add_argument('--loop', action='store_true')
    parser.add_argument('--disable-keyboard-controls', action='store_true', required=True)
    options = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node('player')
    clock = node.create_publisher(Clock, '/clock', 10)
    try:
        with AnyReader([Path(options.bag)]) as reader:
            publishers = {
                c.topic: node.create_publisher(KINDS[c.msgtype], c.topic, QoSProfile(depth=10))
                for c in reader.connections
            }
            lap = True
            while lap and rclpy.ok():
                time.sleep(options.delay)
                began_s, start_ns = time.monotonic(), None
                for connection, at_ns, raw in reader.messages():
                    start_ns = start_ns or at_ns
                    due_s = began_s + (at_ns - start_ns) / 1e9 / options.rate
                    while rclpy.ok():
                        wait_s = max(0.0, due_s - time.monotonic())
                        now = Clock()
                        now_ns = at_ns - int(wait_s * options.rate * 1e9)
                        now.clock.sec, now.clock.nanosec = divmod(now_ns, 10**9)
                        clock.publish(now)
                        if not wait_s:
                            break
                        time.sleep(min(wait_s, 1 / options.clock))
                    publishers[connection.topic].publish(bytes(raw))
                lap = options.loop
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    return 0


if __name__ == '__main__':
    sys.exit(main())
