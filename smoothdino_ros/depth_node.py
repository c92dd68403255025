# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node `depth`: camera topics in, metric depth topics out.

configure loads the model, activate subscribes, deactivate forgets the previous frames, cleanup
frees the device. A camera whose outputs nobody subscribes to costs nothing: its frames are counted
and left; when a subscriber comes back, the gap decides whether the previous frames still count.
"""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from smoothdino_ros import conversions, diagnostics, parameters
from smoothdino_ros.inference_worker import CameraCounts, InferenceWorker, Waiting
from smoothdino_ros.parameters import NodeParameters

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from smoothdino_model.pipeline import CameraFrame, DepthPipeline, DepthResult

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
# A fresh profile for each topic, because an override is written into it.
_qos_in = partial(
    QoSProfile, history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
_qos_out = partial(
    QoSProfile, history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
)
_OVERRIDABLE = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)


@dataclass
class _Camera:
    """One camera's topics and what is remembered of it between messages."""

    depth: LifecyclePublisher
    depth_info: LifecyclePublisher
    info: CameraInfo | None = None
    tracking: diagnostics.Tracking = field(default_factory=diagnostics.Tracking)
    reported: CameraCounts = field(default_factory=CameraCounts)  # when last told of

    def wanted(self) -> bool:
        return any(p.get_subscription_count() > 0 for p in (self.depth, self.depth_info))


class DepthNode(LifecycleNode):
    """Wiring only: callbacks put messages into the worker's slots, the worker publishes."""

    def __init__(self) -> None:
        super().__init__('depth')
        self.loading = False  # a model, which may take minutes
        self._state = 'unconfigured'
        self._fault = ''
        self._enabled = True
        self._settings: NodeParameters | None = None
        self._pipeline: DepthPipeline | None = None
        self._worker: InferenceWorker | None = None
        self._cameras: dict[str, _Camera] = {}
        self._inputs: list[Subscription] = []
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._diagnostics_timer = self.create_timer(1.0, self._on_diagnostics)

    def start(self) -> None:
        """Bring the node to active, unless the parameter autostart is false."""
        # Anything but false goes on to configure, which reports a value that is no boolean.
        wanted = self.get_parameter('autostart').value is not False
        if wanted and self.trigger_configure() == _SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Stop the worker and free everything; in any state, more than once."""
        self._unsubscribe()
        for camera in self._cameras.values():
            self.destroy_lifecycle_publisher(camera.depth)
            self.destroy_lifecycle_publisher(camera.depth_info)
        self._cameras = {}
        pipeline, self._pipeline, self._settings = self._pipeline, None, None
        if pipeline is not None:
            pipeline.close()

    # Transitions. An exception in one of them would end in `finalized`, out of reach.

    def on_configure(self, _: LifecycleState) -> TransitionCallbackReturn:
        try:
            p = parameters.read(self)
            self._pipeline = self._load(p)
            for name, prefix in p.prefixes.items():
                self._cameras[name] = _Camera(
                    depth=self._output(Image, f'{prefix}depth/image'),
                    depth_info=self._output(CameraInfo, f'{prefix}depth/camera_info'),
                )
        except Exception as error:
            self.close()
            return self._failed('Cannot configure', error)
        self._set_parameters(p)
        self.get_logger().info(
            f'Loaded {p.model} on {self._pipeline.device} in {self._pipeline.precision}, '
            + ('with' if self._pipeline.temporal else 'without')
            + ' the previous frames.'
        )
        self._state, self._fault = 'inactive', ''
        return _SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._settings is not None
        assert self._pipeline is not None
        self._worker = InferenceWorker(
            self._cameras,
            read=self._read,
            step=self._pipeline.step,
            publish=self._publish,
            report=self._report,
            max_rate_hz=self._settings.max_rate_hz,
        )
        try:
            super().on_activate(state)
            self._subscribe(self._settings)
        except Exception as error:
            self._unsubscribe()
            super().on_deactivate(state)
            return self._failed('Cannot activate', error)
        self._worker.start()
        self._state, self._fault = 'active', ''
        return _SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._unsubscribe()
        if self._pipeline is not None:
            self._pipeline.reset(reason='deactivated')
        for camera in self._cameras.values():
            camera.reported = CameraCounts()
        self._state = 'inactive'
        return super().on_deactivate(state)

    def on_cleanup(self, _: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        self._state = 'unconfigured'
        return _SUCCESS

    def on_shutdown(self, _: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        self._state = 'finalized'
        return _SUCCESS

    def on_error(self, _: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        self._state = 'unconfigured'
        return _SUCCESS

    def _failed(self, what: str, error: Exception) -> TransitionCallbackReturn:
        text = ' '.join(str(error).split()) or type(error).__name__
        self._fault = f'{what}: {text}'
        self.get_logger().error(self._fault)
        return _FAILURE

    def _load(self, p: NodeParameters) -> DepthPipeline:
        self.loading = True
        try:
            # Here, and not above: the import takes seconds, and a node should start at once.
            from smoothdino_model.pipeline import DepthPipeline

            return DepthPipeline.from_pretrained(
                p.model,
                adapter=p.adapter or None,
                device=p.device,
                precision=p.precision,
                input_height=p.input_height,
                temporal=p.temporal,
                max_gap_s=p.max_gap_s,
            )
        finally:
            self.loading = False

    def _output(self, message_type: type, topic: str) -> LifecyclePublisher:
        return self.create_lifecycle_publisher(
            message_type, topic, _qos_out(), qos_overriding_options=_OVERRIDABLE
        )

    def _subscribe(self, p: NodeParameters) -> None:
        compressed = p.image_transport == 'compressed'
        for name, prefix in p.prefixes.items():
            for message_type, topic, callback in (
                (CameraInfo, 'camera_info', self._on_camera_info),
                (CompressedImage, 'image/compressed', self._on_image)
                if compressed
                else (Image, 'image', self._on_image),
            ):
                self._inputs.append(
                    self.create_subscription(
                        message_type,
                        prefix + topic,
                        partial(callback, name),
                        _qos_in(),
                        qos_overriding_options=_OVERRIDABLE,
                    )
                )

    def _unsubscribe(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self._worker is not None:
            self._worker.stop()
        self._worker = None

    # Callbacks, in the executor's thread.

    def _on_camera_info(self, camera: str, message: CameraInfo) -> None:
        self._cameras[camera].info = message

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        if self._worker is None:
            return
        try:
            conversions.check_at_a_glance(message)
        except ValueError as error:
            self._worker.reject(camera, str(error))
            return
        self._worker.offer(
            camera,
            message,
            stamp_ns=conversions.stamp_ns(message.header),
            wanted=self._enabled and self._cameras[camera].wanted(),
        )

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None or self._pipeline is None:
            response.message = f'The node is {self._state}: there is nothing to reset.'
            return response
        # In the worker's thread, because the pipeline may be at work there.
        self._worker.before_next_batch(partial(self._pipeline.reset, reason='requested'))
        response.success = True
        response.message = 'The next frame of every camera starts afresh.'
        return response

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'Depth is computed.' if request.data else 'Depth is not computed.'
        return response

    def _on_set_parameters(self, new: list[Parameter]) -> SetParametersResult:
        if self._settings is None:  # configure will check
            return SetParametersResult(successful=True)
        try:
            p = parameters.changed(self._settings, {one.name: one.value for one in new})
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._set_parameters(p)
        return SetParametersResult(successful=True)

    def _set_parameters(self, p: NodeParameters) -> None:
        self._settings = p
        self._diagnostics_timer.timer_period_ns = int(p.diagnostics_period_s * 1e9)
        if self._pipeline is not None:
            self._pipeline.max_gap_s = p.max_gap_s
        if self._worker is not None:
            self._worker.max_rate_hz = p.max_rate_hz

    def _on_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().lstrip('/')
        values: dict[str, object] = {}
        if self._settings is not None and self._pipeline is not None:
            values = {
                'model': self._settings.model,
                'device': self._pipeline.device,
                'precision': self._pipeline.precision,
                'temporal': self._pipeline.temporal,
            }
        statuses = [
            diagnostics.node_status(
                f'{name}: node',
                self._state,
                fault=self._fault,
                enabled=self._enabled,
                values=values,
            )
        ]
        for camera, now in (self._worker.counts() if self._worker is not None else {}).items():
            c = self._cameras[camera]
            statuses.append(
                diagnostics.camera_status(
                    f'{name}: {camera or "camera"}',
                    now,
                    c.reported,
                    c.tracking,
                    now_s=monotonic(),
                    wanted=self._enabled and c.wanted(),
                )
            )
            c.reported = now
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.diagnostic_array(stamp, statuses))

    # In the worker's thread.

    def _read(self, _: str, waiting: Waiting) -> CameraFrame:
        from smoothdino_model.pipeline import CameraFrame

        return CameraFrame(
            rgb=conversions.rgb_from_message(waiting.message),
            stamp_ns=waiting.stamp_ns,
            frame_id=waiting.message.header.frame_id,
            skipped_ns=waiting.skipped_ns,
        )

    def _publish(self, camera: str, waiting: Waiting, result: DepthResult) -> None:
        c, p, header = self._cameras[camera], self._settings, waiting.message.header
        assert p is not None
        if c.depth_info.get_subscription_count() > 0 and c.info is not None:
            height, width = result.depth_m.shape
            c.depth_info.publish(
                conversions.depth_camera_info(c.info, header, height=height, width=width)
            )
        if c.depth.get_subscription_count() > 0:
            c.depth.publish(
                conversions.depth_message(
                    result.depth_m,
                    header,
                    encoding=p.depth_encoding,
                    min_depth_m=p.min_depth_m,
                    max_depth_m=p.max_depth_m,
                )
            )
        c.tracking = diagnostics.Tracking(
            resets=c.tracking.resets + (result.reset is not None),
            last_reset=result.reset or c.tracking.last_reset,
            shift_px=result.shift_px,
            confidence=result.confidence,
        )

    def _report(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=5.0)


class _ToRosLog(logging.Handler):
    """What the model's side logs, such as a download, in the node's log."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:  # rclpy wants one line of code for one severity
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


def main(args: list[str] | None = None) -> int:
    """Spin until SIGINT or SIGTERM; one more of them after two seconds ends at once."""
    node: DepthNode | None = None
    signalled_s: list[float] = []

    def on_signal(number: int, _: object) -> None:
        signalled_s.append(monotonic())
        if signalled_s[-1] - signalled_s[0] > 2:  # sooner, it is a launcher passing on the first
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if node is not None and node.loading and len(signalled_s) == 1:  # perhaps a download
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    # Without rclpy's own handlers, which would invalidate the context under the worker.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = DepthNode()
    model_log = logging.getLogger('smoothdino_model')
    model_log.setLevel(logging.INFO)
    model_log.addHandler(_ToRosLog(node.get_logger()))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not signalled_s:
            node.start()
        while not signalled_s:
            try:
                executor.spin_once(timeout_sec=0.2)  # how soon a signal is seen
            except Exception as error:  # such as rclpy's own, on a transition that does not exist
                node.get_logger().error(f'{type(error).__name__}: {error}')
    except KeyboardInterrupt:
        node.get_logger().info('Interrupted while loading.')
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
