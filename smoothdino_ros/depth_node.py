# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node `depth`: camera topics in, metric depth topics out.

configure loads the model, activate subscribes, deactivate forgets the previous frames, cleanup
frees the device. A camera whose outputs nobody subscribes to costs nothing: its frames are left,
and after a while it is not subscribed to; later the gap decides whether previous frames count.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from dataclasses import dataclass, replace
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

from smoothdino_model.recordings.frames import stamp_ns_of
from smoothdino_ros import conversions, diagnostics, parameters
from smoothdino_ros import declared_parameters as declared
from smoothdino_ros.camera import Camera
from smoothdino_ros.inference_worker import InferenceWorker
from smoothdino_ros.loading import imported, load_pipeline
from smoothdino_ros.parameters import NodeParameters
from smoothdino_ros.ros_log import ToRosLog
from smoothdino_ros.tf_listener import TfListener
from smoothdino_ros.topics import namesake

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthPipeline

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_WATCH_PERIOD_S = 1.0
_THREADS_TAKE_TURNS_S = 0.0002


@dataclass(frozen=True, eq=False)
class _Configured:
    """What configure makes and cleanup gives up; ``worker`` is there while the node is active."""

    settings: NodeParameters
    pipeline: DepthPipeline
    cameras: dict[str, Camera]
    tf: TfListener
    worker: InferenceWorker | None = None


class DepthNode(LifecycleNode):
    """Wiring only: callbacks put messages into the worker's slots, the worker publishes."""

    def __init__(self) -> None:
        super().__init__('depth')
        self.loading = False  # a model, which may take minutes
        self.ended = False  # by a signal
        self._state = 'unconfigured'
        self._fault = ''
        self._enabled = True
        self._configured: _Configured | None = None  # replaced whole
        declared.declare(self)
        if text := declared.without_effect(self, qos=False):
            self.get_logger().warning(text)
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
        now, self._configured = self._configured, None
        if now is not None:
            for camera in now.cameras.values():
                camera.destroy()
            now.tf.destroy()
            now.pipeline.close()

    # Transitions. An exception in one of them would end in `finalized`, out of reach.

    def on_configure(self, _: LifecycleState) -> TransitionCallbackReturn:
        try:
            p = declared.read(self)
            now = _Configured(p, self._load(p), {}, TfListener(self, wanted=bool(p.anchors)))
            self._configured = now
            for name, prefix in p.prefixes.items():
                now.cameras[name] = Camera(self, prefix, p, now.tf)
        except Exception as error:
            self.close()
            return self._failed('Cannot configure', error)
        self._settle(now)
        pipeline = now.pipeline
        self.get_logger().info(
            f'Loaded {diagnostics.without_home(p.model)} on {pipeline.device} '
            f'in {pipeline.precision}, '
            + ('with' if pipeline.temporal else 'without')
            + ' the previous frames.'
        )
        self._state, self._fault = 'inactive', ''
        return _SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        now = self._configured
        if now is None:
            return self._failed('Cannot activate', RuntimeError('it is not configured'))
        worker = InferenceWorker(
            now.cameras,
            step=now.pipeline.step,
            prepare=now.pipeline.warm_up,
            report=self._report,
            max_rate_hz=now.settings.max_rate_hz,
            max_latency_s=now.settings.max_latency_s,
        )
        self._configured = replace(now, worker=worker)
        try:
            super().on_activate(state)
            for name, camera in now.cameras.items():
                camera.subscribe(partial(self._on_image, name))
        except Exception as error:
            self._unsubscribe()
            super().on_deactivate(state)
            return self._failed('Cannot activate', error)
        worker.start()
        if text := declared.without_effect(self, qos=True):
            self.get_logger().warning(text, once=True)
        self._state, self._fault = 'active', ''
        return _SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._unsubscribe()
        if self._configured is not None:
            self._configured.pipeline.reset(reason='deactivated')
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
        self.get_logger().debug(''.join(traceback.format_exception(error)))
        return _FAILURE

    def _load(self, p: NodeParameters) -> DepthPipeline:
        imported()  # a signal waits: an exception in torch's start would abort the process
        self.loading = True
        try:
            if self.ended:
                raise SystemExit
            return load_pipeline(p)
        finally:
            self.loading = False

    def _unsubscribe(self) -> None:
        now = self._configured
        if now is None:
            return
        for camera in now.cameras.values():
            camera.unsubscribe()
        if now.worker is not None:
            now.worker.stop()
        self._configured = replace(now, worker=None)

    # Callbacks, in the executor's thread.

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        now = self._configured
        if now is None or now.worker is None:
            return
        try:
            conversions.check_at_a_glance(message)
        except ValueError as error:
            now.worker.reject(camera, str(error))
            return
        now.worker.offer(
            camera,
            message,
            stamp_ns=stamp_ns_of(message.header),
            wanted=self._enabled and now.cameras[camera].wanted(),
        )

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        now = self._configured
        if now is None or now.worker is None:
            response.message = f'The node is {self._state}: there is nothing to reset.'
            return response
        # In the worker's thread, because the pipeline may be at work there.
        now.worker.before_next_batch(partial(now.pipeline.reset, reason='requested'))
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

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Take an integer for a number, and refuse what is of another type or out of range."""
        return declared.set_typed(self, parameter_list, super().set_parameters_atomically)

    def _on_set_parameters(self, new: list[Parameter]) -> SetParametersResult:
        now = self._configured
        if now is None:  # configure will check
            return SetParametersResult(successful=True)
        try:
            p = parameters.changed(now.settings, {one.name: one.value for one in new})
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._settle(replace(now, settings=p))
        return SetParametersResult(successful=True)

    def _settle(self, now: _Configured) -> None:
        """Let the settings hold in all that is configured."""
        p, self._configured = now.settings, now
        self._diagnostics_timer.timer_period_ns = int(p.diagnostics_period_s * 1e9)
        now.pipeline.max_gap_s = p.max_gap_s
        now.pipeline.scale_range = (p.scale_min, p.scale_max)
        for camera in now.cameras.values():
            camera.settings = p
        if now.worker is not None:
            now.worker.max_rate_hz = p.max_rate_hz
            now.worker.max_latency_s = p.max_latency_s

    def _on_watch(self) -> None:
        if text := namesake(self):
            self.get_logger().warning(text, once=True)
        for camera in self._configured.cameras.values() if self._configured else ():
            camera.check_topics()

    def _on_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().lstrip('/')
        now = self._configured
        statuses = [
            diagnostics.node_status(
                f'{name}: node',
                self._state,
                fault=self._fault,
                enabled=self._enabled,
                device=str(now.pipeline.device) if now else '',
                values=diagnostics.pipeline_values(now.settings.model, now.pipeline)
                if now
                else {},
            )
        ]
        if now is not None and now.worker is not None:
            statuses += [
                now.cameras[camera].status(
                    f'{name}: {camera or "camera"}', counts, enabled=self._enabled
                )
                for camera, counts in now.worker.counts().items()
            ]
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.diagnostic_array(stamp, statuses))

    # In the worker's thread.

    def _report(self, text: str) -> None:
        self.get_logger().warning(diagnostics.without_home(text), throttle_duration_sec=5.0)


def main(args: list[str] | None = None) -> int:
    """Spin until SIGINT or SIGTERM; one more of them after two seconds ends at once."""
    node: DepthNode | None = None
    signalled_s: list[float] = []

    def on_signal(number: int, _: object) -> None:
        signalled_s.append(monotonic())
        if signalled_s[-1] - signalled_s[0] > 2:  # sooner, it is a launcher passing on the first
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if node is not None:
            node.ended = True
        if node is not None and node.loading and len(signalled_s) == 1:  # perhaps a download
            # Not KeyboardInterrupt: one that passes through an exec or eval, which libraries do
            # on import, makes Python end itself by the signal, caught or not.
            raise SystemExit

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    # Without rclpy's own handlers, which would invalidate the context under the worker.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = DepthNode()
    for package in ('smoothdino_model', 'smoothdino_ros'):
        logging.getLogger(package).setLevel(logging.DEBUG)
        logging.getLogger(package).addHandler(ToRosLog(node.get_logger()))
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
