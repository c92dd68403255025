# SPDX-License-Identifier: Apache-2.0
"""A bag of pictures beside an IMU and a laser scan of a wall that comes nearer, and transforms."""

import math

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from support.made_recordings import START_NS, camera_info

PERIOD_NS, SCAN_PERIOD_NS = 200_000_000, 50_000_000
SCAN, IMAGE, INFO = '/front/scan', '/cam/image_raw', '/cam/camera_info'
IMU = '/imu/data_raw'
FRAMES = {SCAN: 'laser', IMAGE: 'optical', INFO: 'optical', IMU: 'base'}
BEAMS = 121  # over 60 degrees to each side
POSE = (0.1, -0.05, 0.02, 0.0, 0.0, 20.0)  # of the laser in the camera, as parameters tell it
TF = 'tf2_msgs/msg/TFMessage'


def wall_m(at_ns: int) -> float:
    """How far the wall is ahead of the laser."""
    return 3.0 - 0.5 * (at_ns - START_NS) / 1e9


def ranges_m(at_ns: int) -> np.ndarray:
    angles = np.linspace(-math.pi / 3, math.pi / 3, BEAMS)
    return (wall_m(at_ns) / np.cos(angles)).astype(np.float32)


def write_scan_bag(path, frames, storage='mcap', *, tf=True, scans=(SCAN,)):
    """The pictures five a second, and scans twenty, each received before what is of its time.

    The laser stands on a mast, which stands on the base: by /tf_static, by /tf.
    """
    ros1 = storage == 'ros1'
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    if ros1:
        store.register(get_types_from_msg('geometry_msgs/TransformStamped[] transforms', TF))
    writer = (
        Writer1(path)
        if ros1
        else Writer2(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    )
    make = _Messages(store.types, ros1=ros1)
    height, width = frames[0].shape[:2]
    written = []  # received_ns, topic, message
    end_ns = START_NS + (len(frames) - 1) * PERIOD_NS
    for at_ns in range(START_NS - PERIOD_NS, end_ns + 1, SCAN_PERIOD_NS):
        written += [(at_ns - 60_000_000, topic, make.scan(at_ns)) for topic in scans]
        written.append((at_ns - 60_000_000, IMU, make.imu(at_ns)))
        if tf:
            written.append((at_ns - 60_000_000, '/tf', make.moving(at_ns)))
    for i, rgb in enumerate(frames):
        at_ns = START_NS + i * PERIOD_NS
        info = camera_info(store.types, make.header(at_ns, INFO), height, width, ros1)
        written += [(at_ns, INFO, info), (at_ns + 1, IMAGE, make.image(at_ns, rgb))]
    if tf:
        written.append((START_NS - PERIOD_NS, '/tf_static', make.static()))
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in {topic: one.__msgtype__ for _, topic, one in written}.items()
        }
        encode = store.serialize_ros1 if ros1 else store.serialize_cdr
        for received_ns, topic, message in sorted(written, key=lambda one: one[0]):
            writer.write(connections[topic], received_ns, encode(message, message.__msgtype__))
    return path


class _Messages:
    def __init__(self, types, *, ros1: bool) -> None:
        self._types, self._sequence = types, {'seq': 0} if ros1 else {}

    def header(self, at_ns: int, topic: str):
        stamp = self._types['builtin_interfaces/msg/Time'](*divmod(at_ns, 10**9))
        frame_id = FRAMES.get(topic, topic)
        return self._types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id, **self._sequence)

    def image(self, at_ns: int, rgb):
        height, width = rgb.shape[:2]
        return self._types['sensor_msgs/msg/Image'](
            self.header(at_ns, IMAGE), height, width, 'rgb8', 0, 3 * width, rgb.ravel()
        )

    def scan(self, at_ns: int):
        return self._types['sensor_msgs/msg/LaserScan'](
            self.header(at_ns, SCAN),
            angle_min=-math.pi / 3,
            angle_max=math.pi / 3,
            angle_increment=2 * math.pi / 3 / (BEAMS - 1),
            time_increment=0.0,
            scan_time=0.0,
            range_min=0.1,
            range_max=30.0,
            ranges=ranges_m(at_ns),
            intensities=np.empty(0, np.float32),
        )

    def imu(self, at_ns: int):
        """At rest, without an orientation."""
        vector, zeros = self._types['geometry_msgs/msg/Vector3'], np.zeros(9)
        return self._types['sensor_msgs/msg/Imu'](
            self.header(at_ns, IMU),
            self._types['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 0.0),
            np.array([-1.0, *zeros[1:]]),
            vector(0.0, 0.0, 0.0),
            zeros,
            vector(0.0, 0.0, 9.8),
            zeros,
        )

    def static(self):
        """The laser on the mast by POSE, and the lens on the base, which looks along its x."""
        yaw = math.radians(POSE[5]) / 2
        return self._transforms(
            (0, 'mast', 'laser', POSE[:3], (0.0, 0.0, math.sin(yaw), math.cos(yaw))),
            (0, 'base', 'optical', (0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5)),
        )

    def moving(self, at_ns: int):
        return self._transforms((at_ns, 'base', 'mast', (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))

    def _transforms(self, *joints):
        types = self._types
        transforms = [
            types['geometry_msgs/msg/TransformStamped'](
                self.header(at_ns, parent),
                child,
                types['geometry_msgs/msg/Transform'](
                    types['geometry_msgs/msg/Vector3'](*moved),
                    types['geometry_msgs/msg/Quaternion'](*turned),
                ),
            )
            for at_ns, parent, child, moved, turned in joints
        ]
        return types[TF](transforms)
