# SPDX-License-Identifier: Apache-2.0
"""Training: what is drawn, what is learnt, and that nothing is lost when it is killed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from training.data.clips import TRAINED_FOCAL, Window, augmented
from training.data.nyu import NyuWindows
from training.data.room import unseen_room
from training.data.stream import FromStep, WindowStream
from training.losses import gradient_matching, masked_mse, scale_change, scale_invariant_log

REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / 'training' / 'configs'


def stream(**settings) -> WindowStream:
    return WindowStream(
        **{
            'seed': 3,
            'size': (56, 70),
            'window': 2,
            'strides': (1, 5),
            'room_share': 1.0,
            'nyu_root': None,
        }
        | settings
    )


def test_a_sample_depends_on_seed_and_index_alone():
    forward, backward, other = stream(), stream(), stream(seed=4)
    ahead = [forward[i] for i in range(3)]
    behind = [backward[i] for i in (2, 1, 0)][::-1]
    for a, b in zip(ahead, behind, strict=True):
        assert torch.equal(a['rgb'], b['rgb'])
        assert torch.equal(a['depth_m'], b['depth_m'])
    assert not torch.equal(ahead[0]['rgb'], other[0]['rgb'])
    assert ahead[0]['rgb'].shape == (2, 56, 70, 3)
    assert list(FromStep(4, 7)) == [4, 5, 6]


def test_a_crop_lengthens_the_focal_length_and_so_shortens_the_trained_depth():
    truth_m = np.full((1, 100, 140), 2.0, np.float32)
    window = Window(np.zeros((1, 100, 140, 3), np.uint8), truth_m, TRAINED_FOCAL)
    cropped = augmented(window, np.random.default_rng(0))
    part = cropped.rgb.shape[2] / 140
    assert part < 0.99
    assert math.isclose(cropped.focal, TRAINED_FOCAL / part, rel_tol=0.02)
    np.testing.assert_allclose(cropped.at_trained_focal().depth_m, 2.0 * part, rtol=0.02)


def test_a_room_seen_with_a_longer_lens_is_trained_as_a_nearer_one():
    focal_px = TRAINED_FOCAL * 70
    near = stream().rooms.window(np.random.default_rng(0), 1, index=0)
    scaled = near.at_trained_focal()
    np.testing.assert_allclose(
        scaled.depth_m * near.focal, near.depth_m * TRAINED_FOCAL, rtol=1e-5
    )
    assert unseen_room(0, height=56, width=70).intrinsics.fx_px == pytest.approx(focal_px)


def test_held_out_blocks_of_nyu_keep_their_distance(nyu_root):
    train = {path for block in NyuWindows(nyu_root, part='train').blocks for path in block}
    held_out = [path for block in NyuWindows(nyu_root, part='val').blocks for path in block]
    assert 0.1 < len(held_out) / len(train) < 0.4
    for path in held_out:
        number = int(path.stem)
        neighbours = {path.with_stem(str(number + step)) for step in range(-3, 4)}
        assert not neighbours & train
    rng = np.random.default_rng(0)
    window = NyuWindows(nyu_root, part='train').window(rng, 4, 5)
    assert window.rgb.shape == (4, 480, 640, 3)
    assert np.nanmin(window.depth_m) > 0.3
    assert np.nanmax(window.depth_m) <= 10


def test_losses_by_hand():
    truth_m = torch.full((1, 2, 8, 8), 2.0)
    truth_m[0, 0, 0, 0] = math.nan
    depth_m = truth_m.nan_to_num(7.0) * torch.tensor([1.0, math.e]).view(1, 2, 1, 1)
    depth_m.requires_grad_()
    expected = (2 * math.e - 2) ** 2 * 64 / 127
    assert masked_mse(depth_m, truth_m).item() == pytest.approx(expected, rel=1e-5)
    assert scale_change(depth_m, truth_m).item() == pytest.approx(1.0, rel=1e-5)
    # Frame 0 is perfect; frame 1 is off by exactly one in the logarithm, and nothing else.
    assert scale_invariant_log(depth_m, truth_m).item() == pytest.approx(0.25, rel=1e-4)
    assert scale_invariant_log(depth_m, truth_m, invariance=1).item() == pytest.approx(0, abs=1e-5)
    assert gradient_matching(depth_m, truth_m).item() == pytest.approx(0, abs=1e-5)
    scale_invariant_log(depth_m, truth_m).backward()
    assert depth_m.grad.isfinite().all()


def small(config: str, *, steps: int, **model) -> dict:
    """Give a shipped configuration made small enough for a test."""
    settings = yaml.safe_load((CONFIGS / config).read_text())
    settings['trainer'] |= {
        'max_steps': steps,
        'precision': '32-true',
        'accelerator': 'cpu',
        'limit_val_batches': 0,
    }
    settings['trainer']['callbacks'][0]['init_args']['every_n_train_steps'] = 2
    settings['data'] |= {'size': [56, 70], 'room_share': 1.0, 'batch_size': 2}
    settings['model'] |= {'input_height': 56} | model
    return settings


TINY = {'hidden': 24, 'layers': 4, 'heads': 2, 'neck': [8, 8, 16, 16], 'fusion': 16}


def train(folder: Path, settings: dict, *arguments: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    (folder / 'config.yaml').write_text(yaml.safe_dump(settings))
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        [sys.executable, '-m', 'training.train', 'fit', '--config', 'config.yaml', *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('trained')
    finish(train(folder, small('room_1_coarse.yaml', steps=8, network=TINY)))
    return folder / 'runs' / 'room_1_coarse' / 'model'


def test_a_killed_run_resumed_ends_with_the_same_weights(trained, tmp_path):
    settings = small('room_1_coarse.yaml', steps=8, network=TINY)
    process = train(tmp_path, settings)
    checkpoints = tmp_path / 'runs' / 'room_1_coarse' / 'checkpoints'
    deadline = time.monotonic() + 120
    while not (checkpoints / 'last.ckpt').exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / 'runs' / 'room_1_coarse' / 'model').exists()
    finish(train(tmp_path, settings, '--ckpt_path', 'last'))
    resumed = load_file(tmp_path / 'runs' / 'room_1_coarse' / 'model' / 'model.safetensors')
    alone = load_file(trained / 'model.safetensors')
    assert resumed.keys() == alone.keys()
    assert all(torch.equal(resumed[name], alone[name]) for name in alone)


def test_an_adapter_is_trained_on_a_frozen_base_and_then_evaluated(trained, tmp_path):
    settings = small('room_3_adapter.yaml', steps=3, model=str(trained))
    settings['data']['window'] = 3
    finish(train(tmp_path, settings))
    model = tmp_path / 'runs' / 'room_3_adapter' / 'model'
    before, after = (load_file(path / 'model.safetensors') for path in (trained, model))
    assert all(torch.equal(before[name].half(), after[name]) for name in before)
    weights = load_file(model / 'adapter.safetensors')
    assert all(weights[name].any() for name in weights if name.endswith('weight'))

    table = tmp_path / 'rows.json'
    arguments = f'--source room --model {model} --rooms 1 --frames 3 --size 56x70 --json {table}'
    printed = subprocess.run(
        [sys.executable, '-m', 'training.evaluate', *arguments.split()],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = {row['name']: row for row in json.loads(table.read_text())['rows']}
    assert list(rows) == ['mean_map', 'per_frame', 'temporal']
    assert all(name in printed for name in rows)
    assert rows['mean_map']['frames'] == 3
    assert rows['per_frame']['mse'] != rows['temporal']['mse']
    assert rows['per_frame']['rmse'] == pytest.approx(math.sqrt(rows['per_frame']['mse']))
