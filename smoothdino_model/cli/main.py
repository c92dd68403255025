# SPDX-License-Identifier: Apache-2.0
"""The command line: ``smoothdino infer``, ``bag``, ``export``, ``info`` and ``download``.

Exit codes: 0 done, 2 an input that cannot be used (one line says why), 3 done with what could be
read of a damaged bag (each loss is said), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cv2
import numpy as np
from tqdm import tqdm

from smoothdino_model.recordings.depth_images import rgb_from_depth
from smoothdino_model.recordings.frames import UniqueNames
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.whole_files import written_whole

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthPipeline

# torch and transformers take seconds to import: each command does so when it needs them.

PREVIEW_FARS_M = (1, 2, 5, 10, 20, 50, 100, 200)
LISTED = ('torch', 'transformers', 'huggingface_hub', 'numpy', 'rosbags', 'onnxruntime', 'rclpy')


def main(argv: list[str] | None = None) -> int:
    """Run one command and give the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format='smoothdino: %(message)s', level=logging.WARNING)
    logging.getLogger('smoothdino_model').setLevel(logging.INFO)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        print('smoothdino: interrupted', file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f'smoothdino: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    """Errors in one line, where argparse prints the whole usage before them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'smoothdino: error: {message} (see {self.prog} --help)\n')


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog='smoothdino', description='Steady metric depth from one camera.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    infer = commands.add_parser('infer', help='depth of a folder of images, a video or a rosbag')
    infer.set_defaults(run=_infer)
    add = infer.add_argument
    add('input', metavar='INPUT', type=Path, help='folder of images, video file or rosbag')
    add('--output', metavar='DIR', type=Path, required=True, help='made if it is not there')
    add('--topic', metavar='T', help='the images in a rosbag that has several topics of them')
    _add_model_arguments(infer)

    bag = commands.add_parser('bag', help='a rosbag of images made into one of depth')
    bag.set_defaults(run=_bag)
    add = bag.add_argument
    add('input', metavar='IN', type=Path, help='rosbag of ROS 1 or ROS 2: a folder or a file')
    add('output', metavar='OUT', type=Path, help='rosbag of ROS 2, a folder not there yet')
    add('--image', metavar='T', help='topic of the images, raw or compressed, if several')
    add('--camera-info', metavar='T', help='its topic; by default the one beside the images')
    add('--storage', default='mcap', choices=('mcap', 'sqlite3'), help='default: %(default)s')
    add('--keep-input', action='store_true', help='copy the images and their camera_info too')
    add('--depth-encoding', default='32FC1', choices=('32FC1', '16UC1'), help='metres or mm')
    add('--min-depth', metavar='M', type=float, default=0.1, help='metres; closer is -Inf or 0')
    add('--max-depth', metavar='M', type=float, default=10.0, help='metres; farther is +Inf or 0')
    add('--no-focal-correction', action='store_true', help="depth as the model's own camera sees")
    _add_model_arguments(bag)

    export = commands.add_parser('export', help='the network as an ONNX file')
    export.set_defaults(run=_export)
    add = export.add_argument
    add('model', metavar='MODEL', help="Hugging Face id, directory or 'sample-room' (bundled)")
    add('--output', metavar='PATH', type=Path, required=True, help='a new folder, or FILE.onnx')
    add('--size', metavar='HxW', default='480x640', help='of the frames; default: %(default)s')
    add('--adapter', metavar='A', help="directory, file, published .pth or 'none'")
    add('--precision', metavar='P', default='fp32', help='fp32 or fp16; default: %(default)s')
    _add_input_height(export)

    info = commands.add_parser('info', help='versions, devices, bundled and cached models')
    info.set_defaults(run=_info)

    download = commands.add_parser('download', help='fetch a model into the local cache')
    download.set_defaults(run=_download)
    download.add_argument('model', metavar='MODEL', help='Hugging Face id')
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command that runs a model takes; _pipeline reads it."""
    add = parser.add_argument
    add('--model', metavar='M', help="Hugging Face id, directory or 'sample-room' (bundled)")
    add('--adapter', metavar='A', help="directory, file, published .pth or 'none'")
    add(
        '--engine',
        metavar='E',
        default='auto',
        help='auto, torch, onnxruntime, onnxruntime:openvino or onnxruntime:tensorrt',
    )
    add('--device', metavar='D', default='auto', help='auto, cpu, cuda, cuda:1, ...')
    add('--precision', metavar='P', default='auto', help='auto, fp32, bf16 or fp16')
    add('--no-temporal', action='store_true', help='every frame for itself')
    _add_input_height(parser)


def _add_input_height(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--input-height',
        metavar='N',
        type=int,
        default=0,
        help="pixels that the network sees; 0 is the checkpoint's or else the frame's own",
    )


def _pipeline(args: argparse.Namespace) -> DepthPipeline:
    from smoothdino_model.pipeline import DepthPipeline
    from smoothdino_model.weights.hub import DEFAULT_MODEL

    args.model = args.model or DEFAULT_MODEL
    return DepthPipeline.from_pretrained(
        args.model,
        adapter=args.adapter,
        engine=args.engine,
        device=args.device,
        precision=args.precision,
        temporal=not args.no_temporal,
        input_height=args.input_height,
    )


def _infer(args: argparse.Namespace) -> None:
    """Write <name>.npy and <name>.png per frame and summary.json, each whole or not at all."""
    if args.output.resolve() == args.input.resolve():
        raise ValueError(f'expected an output apart from the input, got {args.output} for both')
    with open_recording(args.input, topic=args.topic) as recording:
        args.output.mkdir(parents=True, exist_ok=True)
        from smoothdino_model.pipeline import CameraFrame

        pipeline = _pipeline(args)
        summary: dict[str, Any] = {
            'input': str(args.input),
            'kind': recording.kind,
            'model': args.model,
            'adapter': args.adapter,
            'temporal': pipeline.temporal,
            'engine': pipeline.engine,
            'device': str(pipeline.device),
            'precision': pipeline.precision,
            'preview_range_m': None,
            'per_frame': [],
        }
        file_name = UniqueNames()
        with _summary_at_the_end(summary, args.output / 'summary.json'):
            # disable=None: no bar where stderr is not a terminal
            for frame in tqdm(recording, total=len(recording) or None, unit='frame', disable=None):
                result = pipeline.step({'': CameraFrame(frame.rgb, frame.stamp_ns)})['']
                if summary['preview_range_m'] is None:
                    summary['preview_range_m'] = [0, _preview_far_m(result.depth_m)]
                name = file_name(re.sub(r'[^\w.-]+', '_', frame.name).strip('.')[:150] or 'frame')
                _write_whole(args.output / f'{name}.npy', _npy(result.depth_m))
                far_m = summary['preview_range_m'][1]
                _write_whole(args.output / f'{name}.png', _preview_png(result.depth_m, far_m))
                summary['per_frame'].append(
                    {
                        'name': frame.name,
                        'file': f'{name}.npy',
                        'stamp_ns': frame.stamp_ns,
                        'shift_px': list(result.shift_px),
                        'confidence': result.confidence,
                        'reset': result.reset,
                    }
                )
    print(
        f'wrote {summary["frames"]} depth maps (.npy, float32 metres), their previews (.png, 0 to '
        f'{summary["preview_range_m"][1]} m) and summary.json to {args.output} at '
        f'{summary["fps"]:.2f} frames/s by {summary["engine"]} on {summary["device"]} in '
        f'{summary["precision"]}'
    )


def _bag(args: argparse.Namespace) -> int:
    """Write the depth of every frame of a bag as a bag, whole or not at all."""
    with open_recording(args.input, topic=args.image, info_topic=args.camera_info) as recording:
        from smoothdino_model.depth_bag import DepthFormat, check_output, write_depth_bag
        from smoothdino_model.recordings.bags import BagRecording

        if not isinstance(recording, BagRecording):
            raise ValueError(f'expected a rosbag, got {args.input}: infer takes it')
        depth_format = DepthFormat(args.depth_encoding, args.min_depth, args.max_depth)
        check_output(args.output)  # before a model is loaded
        pipeline = _pipeline(args)
        _make_deterministic(pipeline.device.type)
        account = write_depth_bag(
            recording,
            args.output,
            pipeline,
            storage=args.storage,
            depth_format=depth_format,
            focal_correction=not args.no_focal_correction,
            keep_input=args.keep_input,
            custom_data={
                'smoothdino_model': str(args.model),
                'smoothdino_adapter': str(args.adapter or 'the one beside the model'),
                'smoothdino_temporal': str(pipeline.temporal).lower(),
                'smoothdino_engine': ' '.join(
                    (pipeline.engine, 'on', str(pipeline.device), 'in', pipeline.precision)
                ),
                'smoothdino_focal_correction': str(not args.no_focal_correction).lower(),
            },
        )
    print(f'wrote the depth of {account.frames} frames ({account.resets} resets) to {args.output}')
    if not account.lost:
        return 0
    for one in account.lost[:5]:
        print(f'smoothdino: lost: {one}', file=sys.stderr)
    if len(account.lost) > 5:
        print(f'smoothdino: lost: {len(account.lost) - 5} more like these', file=sys.stderr)
    return 3


def _make_deterministic(device_type: str) -> None:
    """A GPU may otherwise add in another order in the next run; a CPU of as many threads not."""
    if device_type == 'cuda':
        import torch

        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read at the first product
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


@contextmanager
def _summary_at_the_end(summary: dict[str, Any], path: Path) -> Iterator[None]:
    """Write the summary of the frames that were done, also of a run that breaks off."""
    start = time.monotonic()
    summary['interrupted'] = True
    try:
        yield
        summary['interrupted'] = False
    finally:
        frames = summary['per_frame']
        summary['frames'] = len(frames)
        summary['fps'] = len(frames) / max(time.monotonic() - start, 1e-9)
        # The first frame always starts afresh: it is no reset of what was there.
        summary['resets'] = sum(frame['reset'] is not None for frame in frames[1:])
        _write_whole(path, (json.dumps(summary, indent=1) + '\n').encode())


def _write_whole(path: Path, data: bytes) -> None:
    with written_whole(path) as place:
        place.write_bytes(data)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _preview_far_m(depth_m: np.ndarray) -> int:
    """Far end of the colours: fixed by the first frame, so that the previews do not flicker."""
    known = depth_m[np.isfinite(depth_m)]
    far_m = np.percentile(known, 98) if known.size else 0
    return next((far for far in PREVIEW_FARS_M if far >= far_m), PREVIEW_FARS_M[-1])


def _preview_png(depth_m: np.ndarray, far_m: float) -> bytes:
    colored = rgb_from_depth(depth_m, near_m=0, far_m=far_m)
    return cv2.imencode('.png', colored[..., ::-1])[1].tobytes()


def _export(args: argparse.Namespace) -> None:
    size = re.fullmatch(r'([1-9]\d{0,4})[xX]([1-9]\d{0,4})', args.size)
    if size is None:
        raise ValueError(f'--size: expected HEIGHTxWIDTH such as 480x640, got {args.size!r}')
    if args.precision not in ('fp32', 'fp16'):
        raise ValueError(f'--precision: expected fp32 or fp16, got {args.precision!r}')
    from smoothdino_model.engines.choice import set_precision
    from smoothdino_model.engines.onnx_export import export_onnx
    from smoothdino_model.weights.checkpoint import load_model

    model = load_model(args.model, adapter=args.adapter, input_height=args.input_height).eval()
    set_precision(model, args.precision)
    path = export_onnx(model, args.output, size=(int(size[1]), int(size[2])))
    what = 'the network' if model.adapter is None else 'the network with its adapter'
    print(f'wrote {what} for frames of {size[2]}x{size[1]} in {args.precision} to {path}')


def _info(_: argparse.Namespace) -> None:
    print(f'smoothdino      {_version("smoothdino_ros") or "run from a clone, not installed"}')
    print(f'python          {platform.python_version()} on {platform.platform()}')
    print(f'opencv          {cv2.__version__}')
    for name in LISTED:
        print(f'{name:<15} {_version(name) or "not installed"}')
    for line in _devices():
        print(f'device          {line}')

    from smoothdino_model.weights.hub import BUNDLED_MODELS

    for name, directory in BUNDLED_MODELS.items():
        state = directory if (directory / 'config.json').is_file() else 'missing'
        print(f'bundled model   {name} ({state})')
    for line in _cached_models() or ['none']:
        print(f'cached model    {line}')


def _version(distribution: str) -> str | None:
    """From the metadata alone: importing rclpy would take its libraries along."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    from smoothdino_model.engines.choice import cpu_computes_in_bf16

    bf16 = 'bf16 in hardware' if cpu_computes_in_bf16() else 'bf16 emulated'
    devices = [f'cpu ({torch.get_num_threads()} threads, {bf16})']
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        devices.append(f'cuda:{i} ({gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)')
    return devices


def _cached_models() -> list[str]:
    """The depth models in the local Hugging Face cache that are there with their weights."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    lines = set()
    for repo in repos:
        for revision in repo.revisions:
            paths = {file.file_name: file.file_path for file in revision.files}
            weights = {'model.safetensors', 'pytorch_model.bin'} & set(paths)
            if 'config.json' not in paths or not weights:
                continue
            try:
                kind = json.loads(paths['config.json'].read_text(encoding='utf-8'))['model_type']
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if kind in ('dpt', 'depth_anything'):
                lines.add(f'{repo.repo_id} ({repo.size_on_disk / 2**20:.0f} MiB)')
    return sorted(lines)


def _download(args: argparse.Namespace) -> None:
    from smoothdino_model.weights.hub import resolve_model

    directory = resolve_model(args.model)
    print(
        f'{args.model} is in {directory}; for a machine without a network, copy it '
        "('cp -rL', its files are links) and pass the copy as --model"
    )
