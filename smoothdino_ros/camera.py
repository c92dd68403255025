# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: its topics, and what is remembered of it between messages."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.calibration import (
    NO_INFO,
    Calibration,
    calibrated,
    is_rectified,
)
from smoothdino_ros import conversions
from smoothdino_ros.compressed_depth import CompressedDepth
from smoothdino_ros.depth_colors import depth_colors
from smoothdino_ros.diagnostics import Tracking, camera_status
from smoothdino_ros.inference_worker import CameraCounts, Waiting
from smoothdino_ros.parameters import NodeParameters
from smoothdino_ros.point_cloud import point_cloud_message
from smoothdino_ros.scale_anchors import ScaleAnchors
from smoothdino_ros.tf_listener import TfListener
from smoothdino_ros.topics import WatchedSubscription, watched_publisher

if TYPE_CHECKING:
    from smoothdino_model.pipeline import CameraFrame, DepthResult

_INFOS_KEPT = 8  # to find the one of an image's stamp among
_INFO_WITHIN_S = 1.0  # of the first image


class Camera:
    """Publishers from the start; subscriptions between `subscribe` and `unsubscribe`.

    While nobody wants their depth, images are not subscribed to.

    `ready`, `read`, `kind` and `publish` are for the worker's thread, in turns; the rest is for
    the executor's.
    """

    def __init__(
        self,
        node: LifecycleNode,
        prefix: str,
        settings: NodeParameters,
        tf: TfListener,
    ) -> None:
        self._node, self._prefix, self._tf = node, prefix, tf
        self.settings = settings  # replaced whole, from any thread
        self._depth = watched_publisher(node, Image, f'{prefix}depth/image')
        self._compressed = CompressedDepth(node, self._depth.topic_name)
        self._depth_info = watched_publisher(node, CameraInfo, f'{prefix}depth/camera_info')
        self._points = watched_publisher(node, PointCloud2, f'{prefix}depth/points')
        self._color = watched_publisher(node, Image, f'{prefix}depth/image_color')
        self._anchors = ScaleAnchors(node, prefix, settings, tf)
        # Of camera_info and, while wanted, of what anchors the scale and of images.
        self._inputs: list[WatchedSubscription] = []
        self._subscribe_to_images: Callable[[], None] = lambda: None
        self._wanted_s = 0.0  # when last
        self.subscribed_s: float | None = None  # to images, since when
        self._rectified = False
        self._infos: tuple[CameraInfo, ...] = ()  # latest first; replaced whole
        self._info_due_s: float | None = None  # known from the first image on
        self._calibration = Calibration()  # of the frame in work
        self._said: set[str] = set()
        self._bit_depth = self._new_bit_depth()
        self._tracking = Tracking(anchors=self._anchors.values(self.settings))
        self._judged_from = self._judged = CameraCounts()

    def subscribe(self, on_image: Callable[[Image | CompressedImage], None]) -> None:
        self._anchors.forget()
        self._tracking, self._infos = Tracking(anchors=self._anchors.values(self.settings)), ()
        self._judged_from = self._judged = CameraCounts()
        self._info_due_s, self._bit_depth = None, self._new_bit_depth()
        self._compressed.dropped = 0
        # First, because the executor takes what is ready in this order: an image and its info that
        # come at the same moment belong together.
        info = WatchedSubscription(
            self._node,
            CameraInfo,
            f'{self._prefix}camera_info',
            self._on_info,
            without='depth is not scaled by the focal length and depth/camera_info and '
            'depth/points stay empty',
            last=True,
        )
        self._inputs.append(info)
        kind, topic = (
            (CompressedImage, 'image/compressed')
            if self.settings.image_transport == 'compressed'
            else (Image, 'image')
        )

        def on_any_image(message: Image | CompressedImage) -> None:
            if self._info_due_s is None:
                info.follow()
                published = self._node.count_publishers(info.topic) > 0
                self._info_due_s = monotonic() + (_INFO_WITHIN_S if published else 0.0)
            on_image(message)

        def subscribe_to_images() -> None:
            images = WatchedSubscription(
                self._node, kind, self._prefix + topic, on_any_image, without='there is no depth'
            )
            self._inputs += [*self._anchors.subscribe(), images]
            self._rectified = is_rectified(images.topic)
            self.subscribed_s = monotonic()

        self._wanted_s = monotonic()
        self._subscribe_to_images = subscribe_to_images
        subscribe_to_images()

    def unsubscribe(self) -> None:
        for one in self._inputs:
            one.destroy()
        self._inputs = []

    def destroy(self) -> None:
        self.unsubscribe()
        self._compressed.destroy()
        self._anchors.destroy()
        for publisher in (self._depth, self._depth_info, self._points, self._color):
            self._node.destroy_lifecycle_publisher(publisher)

    def check_topics(self) -> None:
        """Warn, once, where nothing arrives; let go of images, or take them up, as is wanted."""
        if not self._inputs:
            return
        self._tf.follow()
        resting, now_s = self.subscribed_s is None, monotonic()
        for one in self._inputs:
            if resting:  # a camera may send no camera_info alone
                one.excuse()
            else:
                one.check()
        if self.wanted():
            self._wanted_s = now_s
        unwanted = 0 < self.settings.unsubscribe_after_s < now_s - self._wanted_s
        if unwanted and not resting:
            for one in self._inputs[1:]:
                one.destroy()
            del self._inputs[1:]
            self.subscribed_s = None
        elif resting and not unwanted:
            self._subscribe_to_images()

    def wanted(self) -> bool:
        """Whether anybody would see an answer."""
        p = self.settings
        outputs = [self._depth, self._depth_info]
        outputs += [self._points] if p.publish_points else []
        outputs += [self._color] if p.publish_color else []
        return (
            any(one.get_subscription_count() > 0 for one in outputs)
            or self._compressed.wanted()
            or self._anchors.wanted()
        )

    def status(self, name: str, counts: CameraCounts, *, enabled: bool) -> DiagnosticStatus:
        """What has become of its images, for /diagnostics.

        Where none has ended since it was last told of, what was judged of those before them holds.
        """
        if counts.ended != self._judged.ended:
            self._judged_from, self._judged = self._judged, counts
        return camera_status(
            name,
            counts,
            self._judged_from,
            self._tracking,
            now_s=monotonic(),
            subscribed_s=self.subscribed_s,
            wanted=enabled and self.wanted(),
            focal_correction=self.settings.focal_correction,
        )

    def ready(self) -> bool:
        """Whether an image may be worked on.

        The first one waits for a camera_info that somebody publishes, but not for long: without
        it, depth would begin at the scale of another camera, or without its anchors, and jump.
        """
        if self._infos or not (self.settings.focal_correction or self.settings.anchors):
            return True
        return self._info_due_s is not None and monotonic() >= self._info_due_s

    def read(self, waiting: Waiting) -> CameraFrame:
        """The picture for the pipeline. Raises ValueError on one that cannot be decoded."""
        from smoothdino_model.pipeline import CameraFrame  # loaded with the model, not before

        rgb = conversions.rgb_from_message(waiting.message, self._bit_depth)
        self._calibration = self._calibrated(waiting.message.header, *rgb.shape[:2])
        focal = self._calibration.focal if self.settings.focal_correction else None
        if focal and self._tracking.uncalibrated == NO_INFO:
            self._warn_once(
                'late', 'camera_info has come late: from here on depth is of another scale.'
            )
        return CameraFrame(
            rgb=rgb,
            stamp_ns=waiting.stamp_ns,
            frame_id=waiting.message.header.frame_id,
            skipped_ns=waiting.skipped_ns,
            focal=focal,
            anchors=self._anchors.of(
                waiting.message.header, self._calibration, self.settings, rgb
            ),
        )

    def kind(self, frame: CameraFrame) -> tuple[int, ...]:
        return frame.rgb.shape

    def publish(self, waiting: Waiting, frame: CameraFrame, result: DepthResult) -> None:
        p, header, calibration = self.settings, waiting.message.header, self._calibration
        range_m = {'min_depth_m': p.min_depth_m, 'max_depth_m': p.max_depth_m}
        if calibration.info is not None and self._depth_info.get_subscription_count() > 0:
            self._depth_info.publish(calibration.info)
        if self._depth.get_subscription_count() > 0:
            self._depth.publish(
                conversions.depth_message(
                    result.depth_m, header, encoding=p.depth_encoding, **range_m
                )
            )
        if self._compressed.wanted():
            self._compressed.offer(result.depth_m, header, p)
        pinhole = calibration.intrinsics
        if p.publish_points and pinhole and self._points.get_subscription_count() > 0:
            self._points.publish(
                point_cloud_message(
                    result.depth_m,
                    frame.rgb,
                    pinhole,
                    header,
                    stride=p.points_stride,
                    max_range_m=p.points_max_range_m,
                    voxel_m=p.points_voxel_m,
                    **range_m,
                )
            )
        if p.publish_color and self._color.get_subscription_count() > 0:
            self._color.publish(
                conversions.rgb_message(depth_colors(result.depth_m, **range_m), header)
            )
        contradiction = self._anchors.follow(header, result, p)
        if contradiction and not self._tracking.contradiction:  # once, until it is over
            self._node.get_logger().warning(self._of + contradiction)
        self._tracking = Tracking(
            resets=self._tracking.resets + (result.reset is not None),
            last_reset=result.reset or self._tracking.last_reset,
            shift_px=result.shift_px,
            confidence=result.confidence,
            scale=result.scale,
            uncalibrated=calibration.fault,
            doubt=calibration.doubt,
            frame_id=header.frame_id[:80],
            compressed_dropped=self._compressed.dropped,
            anchors=self._anchors.values(self.settings),
            contradiction=contradiction,
        )

    def _on_info(self, message: CameraInfo) -> None:
        self._infos = (message, *self._infos[: _INFOS_KEPT - 1])

    def _calibrated(self, header: Header, height: int, width: int) -> Calibration:
        calibration = calibrated(
            self._infos, header, height=height, width=width, rectified=self._rectified
        )
        if calibration.distorted:
            self._warn_once(
                'distortion',
                'The camera_info tells of a distorted image, and the name of the image topic of '
                'none that is rectified: depth, points and scale are off towards the edges. Put '
                "image_proc's image_rect in between (RectifyNode).",
            )
        # Of one that has not come, the watched subscription speaks.
        if calibration.fault not in ('', NO_INFO):
            self._warn_once(
                'calibration',
                'Depth is not scaled by the focal length, and there are no points, because of '
                f'the camera_info: {calibration.fault}.',
            )
        if calibration.doubt:
            self._warn_once('doubt', f'The camera_info is doubtful: {calibration.doubt}.')
        return calibration

    def _new_bit_depth(self) -> BitDepth:
        def say(text: str) -> None:
            end = 'the parameter bit_depth says otherwise'
            self._node.get_logger().info(f'{self._of}{text}; {end}.')

        return BitDepth(self.settings.bit_depth, say)

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._node.get_logger().warning(self._of + text)

    @property
    def _of(self) -> str:
        return f'{self._prefix.rstrip("/")}: ' if self._prefix else ''
