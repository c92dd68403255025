# SPDX-License-Identifier: Apache-2.0
"""The command line, in processes of its own, on every kind of recording."""

import json
import re
import resource
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from smoothdino_model.cli.main import main
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.recordings.images import rgb_from_compressed
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.weights.checkpoint import load_model, save_model
from support.checkpoints import cached
from support.command_line import COMMAND, ENVIRONMENT
from support.made_recordings import START_NS, K, pictures, write_bag, write_folder, write_video
from support.tiny_networks import tiny_dpt

pytestmark = pytest.mark.slow


def smoothdino(*args, **environment):
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def made(kind, tmp_path, frames):
    if kind == 'folder':
        return write_folder(tmp_path / 'in', frames)
    if kind == 'video':
        return write_video(tmp_path / 'in.avi', frames)
    return write_bag(tmp_path / 'in', frames)


def pixels_of(png):
    return rgb_from_compressed(png.read_bytes())


@pytest.mark.parametrize('kind', ['folder', 'video', 'bag'])
def test_infer_writes_what_the_pipeline_gives(kind, tmp_path, tiny_model_dir):
    path, out = made(kind, tmp_path, pictures(5)), tmp_path / 'out'
    how = ('--model', tiny_model_dir, '--device', 'cpu', '--precision', 'fp32')
    done = smoothdino('infer', path, '--output', out, *how)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['input'] == str(path)
    assert summary['kind'] == kind
    assert summary['model'] == str(tiny_model_dir)
    assert (summary['device'], summary['precision']) == ('cpu', 'fp32')
    assert (summary['frames'], summary['resets'], summary['interrupted']) == (5, 0, False)
    assert summary['fps'] > 0

    pipeline = DepthPipeline.from_pretrained(tiny_model_dir, device='cpu', precision='fp32')
    with open_recording(path) as recording:
        frames = list(recording)
    for frame, entry in zip(frames, summary['per_frame'], strict=True):
        focal = K[0] / 64 if kind == 'bag' else None  # of the camera_info
        expected = pipeline.step({'': CameraFrame(frame.rgb, frame.stamp_ns, focal=focal)})['']
        assert entry['scale'] == expected.scale
        assert (entry['name'], entry['stamp_ns']) == (frame.name, frame.stamp_ns)
        assert entry['reset'] == expected.reset
        np.testing.assert_allclose(entry['shift_px'], expected.shift_px, atol=1e-3)
        assert entry['confidence'] == pytest.approx(expected.confidence, abs=1e-4)
        depth_m = np.load(out / f'{frame.name}.npy')
        assert depth_m.dtype == np.float32
        assert np.isfinite(depth_m).all()
        np.testing.assert_allclose(depth_m, expected.depth_m, rtol=1e-4, atol=1e-5)
        assert pixels_of(out / f'{frame.name}.png').shape == frame.rgb.shape
    assert len(list(out.iterdir())) == 2 * len(frames) + 1


def test_infer_without_time_gives_every_frame_for_itself(tmp_path, tiny_model_dir, capsys):
    out = tmp_path / 'out'
    path = write_bag(tmp_path / 'in', pictures(3), topics=('/a/image', '/b/image'))
    arguments = [path, '--output', out, '--model', tiny_model_dir, '--topic', '/b/image']
    options = ['--no-temporal', '--adapter', 'none', '--input-height', '28', '--device', 'cpu']
    assert main(['infer', *map(str, arguments), *options]) == 0
    assert 'wrote 3 depth maps' in capsys.readouterr().out
    assert json.loads((out / 'summary.json').read_text())['temporal'] is False
    pipeline = DepthPipeline.from_pretrained(
        tiny_model_dir, temporal=False, input_height=28, device='cpu'
    )
    expected = pipeline.step({'': CameraFrame(pictures(3)[2], 0)})[''].depth_m
    depth_m = np.load(out / f'{START_NS + 80_000_000}.npy')
    np.testing.assert_allclose(depth_m, expected, rtol=1e-4, atol=1e-5)


def test_frame_names_become_safe_file_names(tmp_path, tiny_model_dir):
    path, out = tmp_path / 'in', tmp_path / 'out'
    path.mkdir()
    names = ['a b.png', 'a;b.png', '...png', 'x.y.png', 'ä.png']
    for name in names:
        (path / name).write_bytes(cv2.imencode('.png', pictures(1)[0])[1].tobytes())
    arguments = [path, '--output', out, '--model', tiny_model_dir, '--device', 'cpu']
    assert main(['infer', *map(str, arguments)]) == 0
    assert {p.name for p in out.glob('*.npy')} == {
        *('a_b.npy', 'a_b_1.npy', 'x.y.npy', 'ä.npy')
    }  # the one with a leading dot is hidden and no frame


def test_ctrl_c_leaves_whole_files_only(tmp_path, tiny_model_dir):
    path, out = write_folder(tmp_path / 'in', pictures(1) * 2000), tmp_path / 'out'
    process = subprocess.Popen(
        [*COMMAND, 'infer', path, '--output', out, '--model', tiny_model_dir],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts the tests in the background has SIGINT ignored, and so would this
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    while len(list(out.glob('*.npy'))) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert 'Traceback' not in stderr
    assert stderr.strip().splitlines()[-1] == 'smoothdino: interrupted'
    assert not [p for p in out.iterdir() if p.name.startswith('.')]
    depths, previews = sorted(out.glob('*.npy')), sorted(out.glob('*.png'))
    for file in depths:
        assert np.load(file).shape == (48, 64)
    for file in previews:
        assert pixels_of(file).shape == (48, 64, 3)
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['interrupted'] is True
    assert 5 <= summary['frames'] == len(summary['per_frame']) < 2000
    assert summary['frames'] <= len(previews) <= len(depths) <= summary['frames'] + 1


def test_a_broken_frame_ends_the_run_in_words_and_keeps_what_was_done(
    tmp_path, tiny_model_dir, capsys
):
    path, out = write_folder(tmp_path / 'in', pictures(3)), tmp_path / 'out'
    (path / '3.png').write_bytes(b'broken')
    arguments = [path, '--output', out, '--model', tiny_model_dir, '--device', 'cpu']
    assert main(['infer', *map(str, arguments)]) == 2
    assert '3.png cannot be read' in capsys.readouterr().err
    summary = json.loads((out / 'summary.json').read_text())
    assert (summary['frames'], summary['interrupted']) == (2, True)


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, tiny_model_dir, capsys):
    path, out = write_folder(tmp_path / 'in', pictures(2)), tmp_path / 'out'
    arguments = [path, '--output', out, '--model', tiny_model_dir, '--device', 'cpu']
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # the depth has 12 kB
    try:
        assert main(['infer', *map(str, arguments)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.strip().endswith('File too large')
    assert [p.name for p in out.iterdir()] == ['summary.json']


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['infer', 'missing', '--output', 'out'], 'no such file'),
        (['infer', 'in'], '--output'),
        (['infer', 'in', '--output', 'in'], 'output apart from the input'),
        (['infer', 'in', '--output', 'in/1.png'], 'exists'),
        (['infer', 'in', '--output', 'out', '--topic', '/a'], 'expected a rosbag'),
        (['infer', 'in', '--output', 'out', '--input-height', 'tall'], 'invalid int'),
        (['nonsense'], 'nonsense'),
        ([], 'COMMAND'),
    ],
)
def test_bad_arguments_give_exit_code_2_and_one_line(arguments, reason, tmp_path):
    write_folder(tmp_path / 'in', pictures(1))
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('smoothdino: error: ')
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr
    assert not done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        (['--model', 'missing/directory/of/it'], 'neither a directory'),
        (['--device', 'abacus'], "device 'abacus' is not available"),
        (['--precision', 'int3'], "got 'int3'"),
        (['--threads', '-1'], 'threads: expected 0'),
        (['--adapter', 'missing.pth'], 'adapter missing.pth does not exist'),
        (['--input-height', '-5'], '-5'),
    ],
)
def test_what_cannot_be_loaded_gives_exit_code_2_and_one_line(
    options, reason, tmp_path, tiny_model_dir, capfd
):
    path = write_folder(tmp_path / 'in', pictures(1))
    arguments = ['infer', str(path), '--output', str(tmp_path / 'out')]
    assert main([*arguments, '--model', str(tiny_model_dir), '--device', 'cpu', *options]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('smoothdino: error: ')
    assert reason in last
    assert not list((tmp_path / 'out').glob('*'))


def test_download_without_a_network_says_what_else_to_do(tmp_path):
    done = smoothdino('download', 'facebook/dpt-dinov2-small-nyu', HF_HOME=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert 'HF_HUB_OFFLINE' in done.stderr
    assert 'copy what it gives' in done.stderr


def test_info_tells_versions_devices_and_models(tmp_path, tiny_model_dir):
    hub = tmp_path / 'hub'
    cached(hub, 'some/depth', tiny_model_dir)
    for name in ('some/sharded', 'some/incomplete'):
        directory = cached(hub, name, tiny_model_dir)
        (directory / 'model.safetensors').unlink()
        tiny_dpt().save_pretrained(directory, max_shard_size='50KB')
    shards = sorted(directory.glob('model-*.safetensors'))
    assert len(shards) > 1
    shards[-1].unlink()
    done = smoothdino('info', HF_HOME=tmp_path, HF_HUB_CACHE=hub)
    assert done.returncode == 0, done.stderr
    told = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    lines = dict(told)
    assert lines['python'].startswith(f'{sys.version_info.major}.{sys.version_info.minor}.')
    assert lines['opencv'] == cv2.__version__
    assert 'cpu' in done.stdout
    assert 'smoothdino-small' in done.stdout
    listed = [text.split()[1] for first, text in told if first == 'cached']
    assert listed == ['some/depth', 'some/sharded']


def test_info_of_a_model_names_its_parts_and_whether_they_belong_together(
    tmp_path, tiny_model_dir, capsys
):
    def parts(*options) -> dict[str, str]:
        assert main(['info', *map(str, options)]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line[:16].strip(): line[16:] for line in lines}

    bundled = parts('--model', 'smoothdino-small')
    assert bundled['encoder'].startswith('dinov2: 12 layers of 384 channels, patches of 14 px')
    assert bundled['decoder'].startswith('dpt: 48 channels')
    assert bundled['input'].startswith('294x224 ')
    assert '518.86 px at 640x480' in bundled['metric for']
    assert 'mean over the current and the last 2 frames' in bundled['adapter']
    assert bundled['looks of floor'] == 'known'

    own = parts('--model', tiny_model_dir)
    assert own['adapter'].endswith('trained on this encoder')
    assert own['looks of floor'].startswith('not known')
    model = load_model(tiny_model_dir)
    for value in model.backbone.network.backbone.parameters():
        value.data += 0.1 * value.std() * torch.randn_like(value)
    save_model(SmoothDino(model.backbone), tmp_path / 'tuned')
    tuned = parts('--model', tmp_path / 'tuned', '--adapter', tiny_model_dir)
    assert re.search(r'trained on an encoder .* differ from these by \d+ %', tuned['adapter'])
    assert main(['info', '--adapter', str(tiny_model_dir), '--model', 'smoothdino-small']) == 2
    assert 'does not fit smoothdino-small' in capsys.readouterr().err


def test_a_refused_infer_leaves_no_folder(tmp_path, capsys):
    path, out = made('folder', tmp_path, pictures(1)), tmp_path / 'out'
    assert main(['infer', str(path), '--output', str(out), '--model', '/no/model']) == 2
    assert not out.exists()


def test_infer_does_not_mix_its_frames_with_those_of_another_run(tmp_path, tiny_model_dir, capsys):
    path, out = made('folder', tmp_path, pictures(1)), tmp_path / 'out'
    command = ['infer', str(path), '--output', str(out), '--model', str(tiny_model_dir)]
    assert main(command) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert main(command) == 2
    assert 'another run' in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
