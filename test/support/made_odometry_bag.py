# SPDX-License-Identifier: Apache-2.0
"""A bag of a drive through a room: pictures, odometry, and where the camera is on the base."""

import cv2
import numpy as np
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from smoothdino_model.scale.ranges import mounted
from support.driven_room import FOCAL_PX, HEIGHT, PERIOD_NS, POSE, WIDTH, DrivenRoom
from support.made_recordings import START_NS

ODOMETRY, IMAGE, INFO = '/wheels/odom', '/cam/image_raw', '/cam/camera_info'
_EVERY_NS = 20_000_000  # odometry comes


def write_odometry_bag(path, room: DrivenRoom, frames: int, *, way: float = 1.0, tf: bool = True):
    """Odometry counts ``way`` metres for one, and is received before what is of its time."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    written = []  # received_ns, topic, message
    for i, frame in enumerate(room.frames(frames)):
        at_ns = START_NS + i * PERIOD_NS
        written += [
            (at_ns, INFO, _info(types, at_ns)),
            (at_ns + 1, IMAGE, _image(types, at_ns, frame)),
        ]
    for at_ns in range(0, frames * PERIOD_NS, _EVERY_NS):
        message = _odometry(types, START_NS + at_ns, *room.base(at_ns, way=way))
        written.append((START_NS + at_ns + 5_000_000, ODOMETRY, message))
    if tf:
        written.append((START_NS - 1, '/tf_static', _static(types)))
    with Writer(path, version=9) as writer:
        connections = {
            topic: writer.add_connection(topic, one.__msgtype__, typestore=store)
            for topic, one in {topic: one for _, topic, one in written}.items()
        }
        for received_ns, topic, message in sorted(written, key=lambda one: one[0]):
            data = store.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], received_ns, data)
    return path


def _header(types, at_ns: int, frame_id: str):
    stamp = types['builtin_interfaces/msg/Time'](*divmod(at_ns, 10**9))
    return types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)


def _info(types, at_ns: int):
    k = np.array((FOCAL_PX, 0, (WIDTH - 1) / 2, 0, FOCAL_PX, (HEIGHT - 1) / 2, 0, 0, 1), float)
    p = np.concatenate((k.reshape(3, 3), np.zeros((3, 1))), axis=1).ravel()
    return types['sensor_msgs/msg/CameraInfo'](
        header=_header(types, at_ns, 'lens'),
        height=HEIGHT,
        width=WIDTH,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=p,
        binning_x=0,
        binning_y=0,
        roi=types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
    )


def _image(types, at_ns: int, frame):
    return types['sensor_msgs/msg/Image'](
        _header(types, at_ns, 'lens'), HEIGHT, WIDTH, 'rgb8', 0, 3 * WIDTH, frame.rgb.ravel()
    )


def _odometry(types, at_ns: int, position, quaternion):
    of, zeros = types.__getitem__, np.zeros(36)
    pose = of('geometry_msgs/msg/Pose')(
        of('geometry_msgs/msg/Point')(*position), of('geometry_msgs/msg/Quaternion')(*quaternion)
    )
    still = of('geometry_msgs/msg/Vector3')(0.0, 0.0, 0.0)
    return of('nav_msgs/msg/Odometry')(
        _header(types, at_ns, 'odom'),
        'base',
        of('geometry_msgs/msg/PoseWithCovariance')(pose, zeros),
        of('geometry_msgs/msg/TwistWithCovariance')(
            of('geometry_msgs/msg/Twist')(still, still), zeros
        ),
    )


def _static(types):
    """The base, as a child of the lens."""
    matrix = mounted(*POSE)
    turn = cv2.Rodrigues(matrix[:3, :3])[0].ravel()
    angle = float(np.linalg.norm(turn))
    quaternion = (*(np.sin(angle / 2) * turn / angle).tolist(), float(np.cos(angle / 2)))
    transform = types['geometry_msgs/msg/Transform'](
        types['geometry_msgs/msg/Vector3'](*matrix[:3, 3].tolist()),
        types['geometry_msgs/msg/Quaternion'](*quaternion),
    )
    one = types['geometry_msgs/msg/TransformStamped'](_header(types, 0, 'lens'), 'base', transform)
    return types['tf2_msgs/msg/TFMessage']([one])
