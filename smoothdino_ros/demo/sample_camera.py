# SPDX-License-Identifier: Apache-2.0
"""A camera without hardware: plays a procedural room or a recording as image topics.

Publishes `image` (rgb8), `camera_info` and, where the exact depth is known, `truth/depth` (32FC1,
metres, NaN unknown), all with the stamp of the moment of publishing, as a live camera would. In a
room `truth/floor` (Vector3Stamped) leads from the camera straight down to the floor, in metres, in
the axes of the image: what a robot knows of its camera's height and tilt.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import Vector3, Vector3Stamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from smoothdino_model.recordings.frames import Frame, Intrinsics
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.room.sample_room import NYU_FOCAL, SampleRoom
from smoothdino_model.scale.floor import floor_of_pose
from smoothdino_ros.conversions import depth_message, rgb_message

PARAMETERS: dict[str, tuple[Any, str]] = {
    'input': ('', 'Recording to play: a folder of images, a video or a bag; empty plays a room.'),
    'topic': ('', 'Image topic of a bag; empty takes the only one with colours.'),
    'seed': (0, 'Which room.'),
    'width': (640, 'Width of the room picture in pixels, 14 or more.'),
    'height': (480, 'Height of the room picture in pixels, 14 or more.'),
    'focal_px': (0.0, 'Focal length in a room in pixels; 0 takes that of NYUv2 at this width.'),
    'rate_hz': (5.0, 'Frames per second, more than 0 and at most 1000.'),
    'loop': (True, 'Whether a recording starts again at its end; a room has none.'),
    'frames': (0, 'End after so many frames; 0 goes on for ever.'),
    'frame_id': ('camera_color_optical_frame', 'frame_id of every message.'),
}


class SampleCamera(Node):
    """Raises ValueError, one sentence, on a wrong parameter or an unreadable recording."""

    def __init__(self) -> None:
        super().__init__('sample_camera')
        for name, (default, description) in PARAMETERS.items():
            descriptor = ParameterDescriptor(description=description, dynamic_typing=True)
            self.declare_parameter(name, default, descriptor)
        rate_hz = float(self._value('rate_hz', float))
        if not 0 < rate_hz <= 1000:
            raise ValueError(f'rate_hz: expected more than 0 and at most 1000, got {rate_hz:g}')
        self.finished: Future = Future()  # done when there is nothing left to play
        self._frames_left = self._value('frames', int) or None
        self._frame_id = self._value('frame_id', str)
        self._stream = self._frames(rate_hz)
        self._next: Frame | None = next(self._stream, None)
        if self._next is None:
            raise ValueError(f'{self._value("input", str)}: expected frames, got none')
        qos = QoSProfile(depth=5)  # reliable: serves both kinds of subscriber
        self._image = self.create_publisher(Image, 'image', qos)
        self._info = self.create_publisher(CameraInfo, 'camera_info', qos)
        self._truth = self.create_publisher(Image, 'truth/depth', qos)
        self._floor = self.create_publisher(Vector3Stamped, 'truth/floor', qos)
        self.create_timer(1 / rate_hz, self._tick)

    def _value(self, name: str, kind: type) -> Any:
        value = self.get_parameter(name).value
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise ValueError(f'{name}: expected {kind.__name__}, got {value!r}')
        return value

    def _frames(self, rate_hz: float) -> Iterator[Frame]:
        path = self._value('input', str)
        if not path:
            height, width = self._value('height', int), self._value('width', int)
            room = SampleRoom(
                self._value('seed', int),
                height=height,
                width=width,
                focal_px=self._value('focal_px', float) or NYU_FOCAL * width,
                rate_hz=rate_hz,
            )
            i = 0
            while True:
                yield room.frame(i)
                i += 1
        with open_recording(path, topic=self._value('topic', str) or None) as recording:
            yield from recording
            while self._value('loop', bool):
                yield from recording

    def _tick(self) -> None:
        """Publish the frame that is ready, then make the next one, so that the rate holds."""
        if self._next is None or self._frames_left == 0:
            self.finished.set_result(None)
            return
        frame = self._next
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        if frame.depth_m is not None:  # first, so that it is there when the answer to the image is
            truth = depth_message(
                frame.depth_m, header, encoding='32FC1', min_depth_m=0, max_depth_m=np.inf
            )
            self._truth.publish(truth)
        if frame.world_from_camera is not None:
            self._floor.publish(floor_message(frame.world_from_camera, header))
        height, width = frame.rgb.shape[:2]
        self._info.publish(camera_info(frame.intrinsics, header, height=height, width=width))
        self._image.publish(rgb_message(frame.rgb, header))
        if self._frames_left is not None:
            self._frames_left -= 1
        self._next = next(self._stream, None)


def camera_info(
    intrinsics: Intrinsics | None, header: Header, *, height: int, width: int
) -> CameraInfo:
    """A pinhole without distortion; with unknown intrinsics K stays zero: uncalibrated."""
    info = CameraInfo(header=header, height=height, width=width)
    if intrinsics is not None:
        fx, fy = intrinsics.fx_px, intrinsics.fy_px
        cx, cy = intrinsics.cx_px, intrinsics.cy_px
        info.distortion_model = 'plumb_bob'
        info.d = [0.0] * 5
        info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def floor_message(floor_from_camera: np.ndarray, header: Header) -> Vector3Stamped:
    """Tell of the floor by the pose (4, 4) of a camera in a frame that lies on it with z up."""
    floor = floor_of_pose(floor_from_camera)
    x, y, z = (floor.height_m * part for part in floor.down)
    return Vector3Stamped(header=header, vector=Vector3(x=x, y=y, z=z))


def main(args: list[str] | None = None) -> int:
    """Play to the end, or until SIGINT or SIGTERM."""
    signalled: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signalled.append(number))
    # Without rclpy's own handlers, which would invalidate the context under the publishers.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    try:
        camera = SampleCamera()
        executor.add_node(camera)
        while not signalled and not camera.finished.done():
            executor.spin_once(timeout_sec=0.2)  # how soon a signal is seen
    except ValueError as error:
        print(f'sample_camera: {error}', file=sys.stderr)
        return 1
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
