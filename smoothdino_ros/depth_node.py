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
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from smoothdino_ros import conversions, diagnostics, parameters
from smoothdino_ros.camera import Camera
from smoothdino_ros.inference_worker import InferenceWorker, Waiting
from smoothdino_ros.parameters import NodeParameters

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from smoothdino_model.pipeline import CameraFrame, DepthPipeline, DepthResult

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_WATCH_PERIOD_S = 1.0
_THREADS_TAKE_TURNS_S = 0.0002


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
        self._cameras: dict[str, Camera] = {}
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # Steady, because sim time may stand still, and that is no reason to fall silent.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(1.0, self._on_diagnostics, clock=steady)
        self.create_timer(_WATCH_PERIOD_S, self._on_watch, clock=steady)

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
            camera.destroy()
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
                self._cameras[name] = Camera(self, prefix)
        except Exception as error:
            self.close()
            return self._failed('Cannot configure', error)
        self._set_parameters(p)
        self.get_logger().info(
            f'Loaded {diagnostics.without_home(p.model)} on {self._pipeline.device} '
            f'in {self._pipeline.precision}, '
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
            ready=self._is_ready,
            read=self._read,
            kind=lambda frame: frame.rgb.shape,
            step=self._pipeline.step,
            publish=self._publish,
            report=self._report,
            max_rate_hz=self._settings.max_rate_hz,
            max_latency_s=self._settings.max_latency_s,
        )
        try:
            super().on_activate(state)
            for name, camera in self._cameras.items():
                camera.subscribe(self._settings, partial(self._on_image, name))
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
        self._fault = diagnostics.without_home(f'{what}: {text}')
        self.get_logger().error(self._fault)
        return _FAILURE

    def _load(self, p: NodeParameters) -> DepthPipeline:
        self.loading = True
        try:
            # Here, and not above: the import takes seconds, and a node should start at once.
            from smoothdino_model.engines.choice import large_pages
            from smoothdino_model.pipeline import DepthPipeline

            large_pages()
            return DepthPipeline.from_pretrained(
                p.model,
                adapter=p.adapter or None,
                engine=p.engine,
                device=p.device,
                precision=p.precision,
                input_height=p.input_height,
                temporal=p.temporal,
                max_gap_s=p.max_gap_s,
            )
        finally:
            self.loading = False

    def _unsubscribe(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()
        if self._worker is not None:
            self._worker.stop()
        self._worker = None

    # Callbacks, in the executor's thread.

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        if self._worker is None or self._settings is None:
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
            wanted=self._enabled and self._cameras[camera].wanted(self._settings),
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
            self._worker.max_latency_s = p.max_latency_s

    def _on_watch(self) -> None:
        for camera in self._cameras.values():
            camera.check_topics()

    def _on_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().lstrip('/')
        p, pipeline = self._settings, self._pipeline
        statuses = [
            diagnostics.node_status(
                f'{name}: node',
                self._state,
                fault=self._fault,
                enabled=self._enabled,
                device=str(pipeline.device) if pipeline is not None else '',
                values=diagnostics.pipeline_values(p.model, pipeline) if p and pipeline else {},
            )
        ]
        for camera, now in (self._worker.counts() if self._worker is not None else {}).items():
            c = self._cameras[camera]
            assert p is not None
            statuses.append(
                diagnostics.camera_status(
                    f'{name}: {camera or "camera"}',
                    now,
                    c.reported,
                    c.tracking,
                    now_s=monotonic(),
                    wanted=self._enabled and c.wanted(p),
                    focal_correction=p.focal_correction,
                )
            )
            c.reported = now
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.diagnostic_array(stamp, statuses))

    # In the worker's thread.

    def _is_ready(self, camera: str) -> bool:
        assert self._settings is not None
        return self._cameras[camera].ready(self._settings)

    def _read(self, camera: str, waiting: Waiting) -> CameraFrame:
        assert self._settings is not None
        return self._cameras[camera].frame(waiting, self._settings)

    def _publish(
        self, camera: str, waiting: Waiting, frame: CameraFrame, result: DepthResult
    ) -> None:
        assert self._settings is not None
        self._cameras[camera].publish(waiting, frame, result, self._settings)

    def _report(self, text: str) -> None:
        self.get_logger().warning(diagnostics.without_home(text), throttle_duration_sec=5.0)


class _ToRosLog(logging.Handler):
    """What the model's side logs, such as a download, in the node's log."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = diagnostics.without_home(record.getMessage())
        if record.levelno >= logging.WARNING:  # rclpy wants one line of code for one severity
            self._logger.warning(text)
        else:
            self._logger.info(text)


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
            # Not KeyboardInterrupt: one that passes through an exec or eval, which libraries do
            # on import, makes Python end itself by the signal, caught or not.
            raise SystemExit

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    # Without rclpy's own handlers, which would invalidate the context under the worker.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = DepthNode()
    model_log = logging.getLogger('smoothdino_model')
    model_log.setLevel(logging.INFO)
    model_log.addHandler(_ToRosLog(node.get_logger()))
    # The worker would wait up to 5 ms for each turn while the executor handles a message.
    sys.setswitchinterval(_THREADS_TAKE_TURNS_S)
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
    except SystemExit:
        node.get_logger().info('Interrupted while loading.')
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
