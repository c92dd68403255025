# SPDX-License-Identifier: Apache-2.0
"""Small recordings of the same pictures, written for the tests as a folder, a video and bags."""

from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

PERIOD_NS = 40_000_000
START_NS = 1_700_000_000_000_000_000
COMPRESSED = '/cam/image_raw/compressed'
K = [50.0, 0.0, 32.0, 0.0, 51.0, 24.0, 0.0, 0.0, 1.0]
BAGS = ('sqlite3', 'mcap', 'ros1')


def pictures(count: int = 12, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """RGB pictures whose brightness tells their place in the sequence; mean = 20 + 15 i."""
    x = np.linspace(-8, 8, width)[None, :, None]
    ramp = np.broadcast_to(x, (height, width, 3))
    return [np.clip(20 + 15 * i + ramp, 0, 255).round().astype(np.uint8) for i in range(count)]


def place_of(rgb: np.ndarray) -> int:
    return round((float(rgb.mean()) - 20) / 15)


def write_folder(path, frames):
    path.mkdir()
    for i, rgb in enumerate(frames):
        assert cv2.imwrite(str(path / f'{i + 1}.png'), rgb[..., ::-1])
    return path


def write_video(path, frames, codec='MJPG', rate_hz=25.0):
    height, width = frames[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate_hz, (width, height))
    assert video.isOpened()
    for rgb in frames:
        video.write(np.ascontiguousarray(rgb[..., ::-1]))
    video.release()
    return path


def write_bag(
    path,
    frames,
    storage='mcap',
    *,
    topics=('/cam/image_raw',),
    stamp=True,
    encoding='rgb8',
    broken=(),
    focals_px=None,
    info_late=False,
    first=0,
    forms=None,
    frame_ids=None,
):
    """A bag of the frames on every topic; '/compressed' at the end of one makes it JPEG.

    broken are the places of the JPEGs to cut short; focals_px the fx of a zooming lens, frame by
    frame; with info_late each camera_info is received after its image. first is the place of the
    first frame in time, forms the formats by topic of compressed images ('jpeg'), frame_ids those
    of the frames ('optical').
    """
    ros1 = storage == 'ros1'
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    types = store.types
    encode = store.serialize_ros1 if ros1 else store.serialize_cdr
    writer: Any = (
        Writer1(path)
        if ros1
        else Writer2(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    )

    def header(stamp_ns, i):
        time = types['builtin_interfaces/msg/Time'](*divmod(stamp_ns if stamp else 0, 10**9))
        sequence = {'seq': 0} if ros1 else {}
        return types['std_msgs/msg/Header'](
            stamp=time, frame_id=frame_ids[i] if frame_ids else 'optical', **sequence
        )

    with writer:
        kinds = {
            t: 'Compressed' * t.endswith(('/compressed', '/compressedDepth')) + 'Image'
            for t in topics
        }
        kinds['/cam/camera_info'] = 'CameraInfo'
        connections = {
            topic: writer.add_connection(topic, f'sensor_msgs/msg/{kind}', typestore=store)
            for topic, kind in kinds.items()
        }
        for i, rgb in enumerate(frames):
            stamp_ns = START_NS + (first + i) * PERIOD_NS
            height, width = rgb.shape[:2]
            for topic, connection in connections.items():
                if kinds[topic] == 'CameraInfo':
                    message = camera_info(types, header(stamp_ns, i), height, width, ros1)
                    if focals_px is not None:
                        (message.K if ros1 else message.k)[[0, 4]] = focals_px[i]
                elif kinds[topic] == 'CompressedImage':
                    jpeg = cv2.imencode('.jpg', rgb[..., ::-1])[1].ravel()
                    jpeg = jpeg[: len(jpeg) // 2] if i in broken else jpeg
                    form = (forms or {}).get(topic, 'jpeg')
                    message = types[connection.msgtype](header(stamp_ns, i), form, jpeg)
                elif encoding == '32FC1':
                    data = np.ones((height, width), np.float32).view(np.uint8).ravel()
                    message = types[connection.msgtype](
                        header(stamp_ns, i), height, width, encoding, 0, 4 * width, data
                    )
                else:
                    message = types[connection.msgtype](
                        header(stamp_ns, i), height, width, encoding, 0, 3 * width, rgb.ravel()
                    )
                late_ns = 10 if info_late and kinds[topic] == 'CameraInfo' else 0
                writer.write(
                    connection, stamp_ns + 5 + late_ns, encode(message, connection.msgtype)
                )
    return path


def camera_info(types, header, height, width, ros1):
    matrices = {
        'd': np.zeros(5),
        'k': np.array(K),
        'r': np.eye(3).ravel(),
        'p': np.zeros(12),
    }
    if ros1:
        matrices = {name.upper(): matrix for name, matrix in matrices.items()}
    region = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    return types['sensor_msgs/msg/CameraInfo'](
        header=header,
        height=height,
        width=width,
        distortion_model='plumb_bob',
        binning_x=0,
        binning_y=0,
        roi=region,
        **matrices,
    )
