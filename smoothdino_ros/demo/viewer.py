# SPDX-License-Identifier: Apache-2.0
"""The demo's viewer: a live line while depth arrives, then a table and a picture strip.

It sees what any subscriber sees: the camera's images, the depth node's answers and, of a room, the
exact depth and where the floor is. After the stream the per-frame figures come from the same model
without its temporal part, run on the very frames that were answered, and the anchored ones from
the answers themselves: their scale by the floor, as the node has it with `scale_anchor: floor`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.depth_images import depth_m_of, rgb_from_depth
from smoothdino_model.recordings.frames import Intrinsics, stamp_ns_of
from smoothdino_model.recordings.images import rgb_of
from smoothdino_model.scale.filter import ScaleState, filtered
from smoothdino_model.scale.floor import Floor, floor_scale
from smoothdino_model.whole_files import write_whole
from smoothdino_ros.demo.demo import NO_DEPTH

PATIENCE_S = 90.0  # for the next depth image, the first included
LONGEST_S = 20.0  # of stream; a machine that cannot keep up shows fewer frames
WARM_UP = 1  # answers left out of the rate and the latency: the first one is slow everywhere
STRIP_MOMENTS = (0.2, 0.5, 0.8)  # of the stream
STRIP_HEIGHT = 240  # pixels of each picture


@dataclass(frozen=True, eq=False)
class Answer:
    """A frame and what came back for it; depth in metres, NaN where invalid."""

    stamp_ns: int
    rgb: np.ndarray  # (H, W, 3) uint8
    depth_m: np.ndarray  # (H, W) float32
    truth_m: np.ndarray | None  # (H, W) float32
    received_ns: int  # on the camera's clock
    floor: Floor | None = None  # under the camera
    camera: Intrinsics | None = None
    anchored_m: np.ndarray | None = None  # (H, W) float32, at the scale by the floor

    @property
    def latency_ms(self) -> float:
        return (self.received_ns - self.stamp_ns) / 1e6


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    try:
        _view(options)
    except (ValueError, ImportError, TimeoutError) as error:
        print(f'viewer: {error}', file=sys.stderr)
        return NO_DEPTH if isinstance(error, TimeoutError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='demo_viewer', description=__doc__.splitlines()[0])
    parser.add_argument('--model', required=True)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--frames', type=int, required=True)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--viewer', choices=('line', 'rerun'), default='line')
    return parser.parse_args(argv)


def _view(options: argparse.Namespace) -> None:
    # Takes seconds: not before Ctrl-C is caught.
    from smoothdino_model.pipeline import DepthPipeline

    show_stream = _rerun(options.output) if options.viewer == 'rerun' else None
    # Before the stream: a model that cannot be loaded ends the demo at once, with the reason.
    per_frame = DepthPipeline.from_pretrained(options.model, device=options.device, temporal=False)
    answers = _watch(options.frames, show_stream)
    if all(answer.floor for answer in answers[WARM_UP:]):
        answers = _anchored(answers, scale_range=per_frame.scale_range)
    # The first answers may lack the truth where its topic was found later than the others.
    truths_m = {a.stamp_ns: a.truth_m for a in answers if a.truth_m is not None}
    judged = [answer for answer in answers if answer.stamp_ns in truths_m]
    print(f'\n{_pace(answers)}')
    if len(judged) > 1:
        print(f'Against exact depth, {len(judged)} frames:', flush=True)
        ways = {
            'per frame': _per_frame_depths_m(per_frame, judged),
            'temporal': [answer.depth_m for answer in judged],
            'anchored': [a.anchored_m for a in judged if a.anchored_m is not None],
        }
        ways = {name: depths_m for name, depths_m in ways.items() if depths_m}
        print(_table(ways, list(truths_m.values())))
    else:
        print('RMSE, AbsRel and flicker: n/a, the recording has no exact depth.')
    path = options.output / 'strip.png'
    _write_png(path, _strip(judged or answers))
    columns = ['RGB', 'depth', *(['anchored'] if answers[-1].anchored_m is not None else [])]
    columns += ['truth'] if judged else []
    print(f'Pictures ({" | ".join(columns)}): {path.absolute()}', flush=True)


class _Stream:
    """What has come so far of what a demo shows."""

    def __init__(self, frames: int, show: Any) -> None:
        self.answers: list[Answer] = []
        self._frames = frames
        self._show = show
        self._waiting: dict[str, dict[int, Any]] = {'rgb': {}, 'truth': {}, 'floor': {}}
        self._camera: Intrinsics | None = None
        self._shift = ''
        self._bit_depth = BitDepth()

    def on_image(self, message: Any) -> None:
        self._keep('rgb', message.header, rgb_of(message, self._bit_depth))

    def on_truth(self, message: Any) -> None:
        self._keep('truth', message.header, depth_m_of(message))

    def on_floor(self, message: Any) -> None:
        down = np.array((message.vector.x, message.vector.y, message.vector.z))
        height_m = float(np.linalg.norm(down))
        self._keep('floor', message.header, Floor(height_m, tuple((down / height_m).tolist())))

    def on_info(self, message: Any) -> None:
        if message.k.any():  # else it is not calibrated
            self._camera = Intrinsics.from_k(message.k, message.width, message.height)

    def _keep(self, kind: str, header: Any, what: Any) -> None:
        waiting = self._waiting[kind]
        waiting[stamp_ns_of(header)] = what
        while len(waiting) > 30:  # frames that the node skipped
            del waiting[next(iter(waiting))]

    def on_depth(self, message: Any, received_ns: int) -> None:
        stamp = stamp_ns_of(message.header)
        rgb, truth_m, floor = (waiting.pop(stamp, None) for waiting in self._waiting.values())
        if rgb is None:  # of a frame before this process listened
            return
        depth_m = depth_m_of(message)
        self.answers.append(Answer(stamp, rgb, depth_m, truth_m, received_ns, floor, self._camera))
        if self._show is not None:
            self._show(self.answers[-1])
        _live_line(self.answers, self._frames, self._shift)

    def on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            for pair in status.values:
                if pair.key == 'shift [px]':
                    self._shift = pair.value


def _watch(frames: int, show_stream: Any) -> list[Answer]:
    """Subscribe until so many depth images have come. Raises TimeoutError where none comes."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from geometry_msgs.msg import Vector3Stamped
    from sensor_msgs.msg import CameraInfo, Image

    stream = _Stream(frames, show_stream)

    def on_depth(message: Image) -> None:
        stream.on_depth(message, node.get_clock().now().nanoseconds)

    rclpy.init(args=[])
    try:
        node = rclpy.create_node('demo_viewer')
        node.create_subscription(Image, 'image', stream.on_image, 10)
        node.create_subscription(Image, 'truth/depth', stream.on_truth, 10)
        node.create_subscription(Vector3Stamped, 'truth/floor', stream.on_floor, 10)
        node.create_subscription(CameraInfo, 'camera_info', stream.on_info, 10)
        node.create_subscription(Image, 'depth/image', on_depth, 10)
        node.create_subscription(DiagnosticArray, '/diagnostics', stream.on_diagnostics, 10)
        print('Waiting for the first depth image …', flush=True)
        seen, last_s = 0, time.monotonic()
        while len(stream.answers) < frames and not _long_enough(stream.answers):
            rclpy.spin_once(node, timeout_sec=0.5)
            if len(stream.answers) > seen:
                seen, last_s = len(stream.answers), time.monotonic()
            elif time.monotonic() - last_s > PATIENCE_S:
                raise TimeoutError(f'no depth image came for {PATIENCE_S:.0f} s')
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return stream.answers[:frames]


def _long_enough(answers: Sequence[Answer]) -> bool:
    enough = len(answers) > WARM_UP + 1
    return enough and answers[-1].received_ns - answers[0].received_ns > LONGEST_S * 1e9


def _live_line(answers: Sequence[Answer], frames: int, shift: str) -> None:
    """One line, updated in place on a terminal; elsewhere, now and then a new one."""
    answer, recent = answers[-1], answers[-10:]
    words = [f'frame {len(answers):3d}/{frames}']
    if len(recent) > 1:
        words.append(f'{_rate_hz(recent):4.1f} Hz')
    words.append(f'latency {answer.latency_ms:4.0f} ms')
    if shift:
        words.append(f'shift ({shift}) px')
    if answer.truth_m is not None:
        from smoothdino_model.metrics import rmse

        valid_m = _where_known(answer.truth_m, [answer.depth_m])
        if np.isfinite(valid_m).any():
            words.append(f'error {rmse(answer.depth_m, valid_m):.2f} m RMSE')
    line = '  '.join(words)
    if sys.stdout.isatty():
        print(f'\r{line:<90}', end='', flush=True)
    elif len(answers) % 15 in (0, 1) or len(answers) == frames:
        print(line, flush=True)


def _rate_hz(answers: Sequence[Answer]) -> float:
    return (len(answers) - 1) * 1e9 / max(answers[-1].received_ns - answers[0].received_ns, 1)


def _pace(answers: Sequence[Answer]) -> str:
    latency_ms = [answer.latency_ms for answer in answers[WARM_UP:]]
    p50, p99 = np.percentile(latency_ms, [50, 99])
    return (
        f'{len(answers)} depth images at {_rate_hz(answers[WARM_UP:]):.1f} Hz; from the camera to '
        f'this viewer p50 {p50:.0f} ms, p99 {p99:.0f} ms'
    )


def _per_frame_depths_m(pipeline: Any, answers: Sequence[Answer]) -> list[np.ndarray]:
    from smoothdino_model.pipeline import CameraFrame

    return [
        pipeline.step({'camera': CameraFrame(answer.rgb, answer.stamp_ns)})['camera'].depth_m
        for answer in answers
    ]


def _anchored(answers: Sequence[Answer], *, scale_range: tuple[float, float]) -> list[Answer]:
    """The same with depth whose scale is anchored by the floor, one after the other."""
    least, most = scale_range
    state: ScaleState | None = None
    anchored = []
    for answer in answers:
        measured = (
            [floor_scale(answer.depth_m, answer.camera, answer.floor)]
            if answer.camera and answer.floor
            else []
        )
        state = filtered(state, measured, stamp_ns=answer.stamp_ns, least=least, most=most)
        anchored.append(replace(answer, anchored_m=answer.depth_m * np.float32(state.scale)))
    return anchored


def _errors(depths_m: Sequence[np.ndarray], truths_m: Sequence[np.ndarray]) -> list[float]:
    """RMSE in metres and AbsRel, means over the frames, and flicker."""
    from smoothdino_model.metrics import abs_rel, flicker, rmse

    pairs = list(zip(depths_m, truths_m, strict=True))
    rmse_m = float(np.mean([rmse(depth_m, truth_m) for depth_m, truth_m in pairs]))
    relative = float(np.mean([abs_rel(depth_m, truth_m) for depth_m, truth_m in pairs]))
    return [rmse_m, relative, float(flicker(depths_m, truths_m))]


def _where_known(truth_m: np.ndarray, depths_m: Sequence[np.ndarray]) -> np.ndarray:
    """The truth, NaN where one of the depths (invalid or out of the node's range) is not known."""
    return np.where(np.all(np.isfinite(depths_m), axis=0), truth_m, np.nan)


def _table(ways: dict[str, list[np.ndarray]], truths_m: Sequence[np.ndarray]) -> str:
    """Each way of estimating depth against the truth, on the pixels that all of them answered."""
    valid_m = [
        _where_known(truth_m, depths_m)
        for truth_m, *depths_m in zip(truths_m, *ways.values(), strict=True)
    ]
    lines = [f'{"":12}{"RMSE [m]":>10}{"AbsRel":>10}{"flicker":>10}']
    for name, depths_m in ways.items():
        lines.append(f'{name:12}' + ''.join(f'{e:10.4f}' for e in _errors(depths_m, valid_m)))
    return '\n'.join(lines)


def _strip(answers: Sequence[Answer]) -> np.ndarray:
    """(rows, columns, 3) RGB: a row per moment, RGB | depth | anchored | truth, yellow is near."""
    rows = []
    for answer in (answers[int(moment * len(answers))] for moment in STRIP_MOMENTS):
        height, width = answer.rgb.shape[:2]
        size = (max(1, round(width * STRIP_HEIGHT / height)), STRIP_HEIGHT)
        shown = (answer.depth_m, answer.anchored_m, answer.truth_m)
        depths_m = [depth_m for depth_m in shown if depth_m is not None]
        known_m = depths_m[-1][np.isfinite(depths_m[-1])]
        near_m, far_m = np.percentile(known_m, [1, 99]) if known_m.size else (0.0, 1.0)
        pictures = [answer.rgb]
        pictures += [rgb_from_depth(one, near_m=near_m, far_m=far_m) for one in depths_m]
        rows.append(
            np.hstack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures])
        )
    return np.vstack(rows)


def _write_png(path: Path, rgb: np.ndarray) -> None:
    write_whole(path, cv2.imencode('.png', rgb[..., ::-1])[1].tobytes())


def _rerun(output: Path) -> Any:
    """A function that shows an answer in rerun; without a display it goes to a file."""
    try:
        import rerun as rr
    except ImportError as error:
        raise ImportError(
            'the rerun viewer is not installed: install it with '
            f"{sys.executable} -m pip install 'rerun-sdk>=0.23', or leave --viewer out"
        ) from error
    rr.init('smoothdino')
    if sys.platform != 'linux' or os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY'):
        rr.spawn()
    else:
        rr.save(str(output / 'stream.rrd'))
        print(f'No display here: rerun {output / "stream.rrd"} shows the stream.', flush=True)

    def show(answer: Answer) -> None:
        rr.set_time('camera', timestamp=answer.stamp_ns * 1e-9)
        rr.log('image', rr.Image(answer.rgb))
        rr.log('depth', rr.DepthImage(np.nan_to_num(answer.depth_m), meter=1.0))
        if answer.truth_m is not None:
            rr.log('truth', rr.DepthImage(np.nan_to_num(answer.truth_m), meter=1.0))
        rr.log('latency_ms', rr.Scalars(answer.latency_ms))

    return show


if __name__ == '__main__':
    sys.exit(main())
