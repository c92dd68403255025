# SPDX-License-Identifier: Apache-2.0
"""A training that is killed, resumed or shared between processes learns the very same."""

import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.small_training import fit, small, start, write_moving_clip
from training.train import AtomicCheckpointIO

pytestmark = pytest.mark.slow

RUN = Path('runs', 'adapter_nyu_regularized')


@pytest.fixture(scope='module')
def recipe(tiny_model_dir, tmp_path_factory):
    """Write the published recipe, small: 8 passes through 11 pairs, 20 steps of 2 x 2."""
    root = tmp_path_factory.mktemp('clips')
    write_moving_clip(root / 'nyu2_train' / 'hall', 15)
    for part, numbers in (('train', range(2, 13)), ('val', (13, 14))):
        (root / f'{part}.json').write_text(str([['hall', i] for i in numbers]).replace("'", '"'))
    changes = {
        'trainer.val_check_interval': 0.25,
        'trainer.accumulate_grad_batches': 2,
        'trainer.callbacks.1.init_args.every_n_train_steps': 3,
        'model.backbone': str(tiny_model_dir),
        'model.adapter.hidden': 8,
        'model.optimizer.learning_rate': 1e-2,
        'model.optimizer.schedule': 'cosine',
        'model.features': 'features',
        'model.loss.scale_change': 1.0,
        'data.clips.0.root': str(root),
        'data.clips.0.train_list': 'train.json',
        'data.clips.0.val_list': 'val.json',
        'data.epochs': 8,
        'data.val_windows': 2,
        'data.batch_size': 2,
    }
    return lambda folder, more: small('adapter_nyu_regularized.yaml', changes | more, folder)


@pytest.fixture(scope='module')
def alone(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('alone')
    fit(recipe(folder, {}))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / RUN / 'adapter' / 'adapter.safetensors')


def assert_equal(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == others.keys()
    different = [name for name in ours if not torch.equal(ours[name], others[name])]
    assert not different


def test_validations_and_checkpoints_fall_on_the_quarters(alone):
    names = {path.name for path in (alone / RUN / 'checkpoints').glob('val-*')}
    assert names == {f'val-step={step}.ckpt' for step in (5, 10, 15, 20)}
    step_3 = torch.load(alone / RUN / 'checkpoints' / 'val-step=5.ckpt', weights_only=False)
    last = torch.load(alone / RUN / 'checkpoints' / 'val-step=20.ckpt', weights_only=False)
    name = next(name for name in last['state_dict'] if name.endswith('patches.0.2.weight'))
    assert not torch.equal(step_3['state_dict'][name], last['state_dict'][name])


@pytest.fixture(scope='module')
def killed(recipe, tmp_path_factory) -> Path:
    """A run that SIGKILL ended in the middle of a pass, some time after its tenth step."""
    folder = tmp_path_factory.mktemp('killed')
    process = start(recipe(folder, {}))
    deadline = time.monotonic() + 200
    while not (folder / RUN / 'checkpoints' / 'val-step=10.ckpt').exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / RUN / 'adapter').exists()
    return folder


@pytest.mark.parametrize('checkpoint', ['last', RUN / 'checkpoints' / 'val-step=10.ckpt'], ids=str)
def test_a_killed_run_resumed_ends_with_the_same_weights(killed, alone, tmp_path, checkpoint):
    folder = tmp_path / 'resumed'
    shutil.copytree(killed, folder)
    fit(folder / 'small.yaml', '--ckpt_path', str(checkpoint))
    assert_equal(weights(folder), weights(alone))


def test_a_run_that_had_ended_still_leaves_its_adapter(alone, tmp_path):
    """It may have been killed between its last checkpoint and the end."""
    folder = tmp_path / 'ended'
    shutil.copytree(alone, folder)
    shutil.rmtree(folder / RUN / 'adapter')
    last = RUN / 'checkpoints' / 'val-step=20.ckpt'
    fit(folder / 'small.yaml', '--ckpt_path', str(last))
    assert_equal(weights(folder), weights(alone))


def test_a_run_that_had_ended_goes_on_when_it_is_asked_for_more(alone, tmp_path):
    folder = tmp_path / 'longer'
    shutil.copytree(alone, folder)
    fit(folder / 'small.yaml', '--ckpt_path', 'last', '--data.epochs', '16')
    last = torch.load(folder / RUN / 'checkpoints' / 'last.ckpt', weights_only=False)
    assert last['global_step'] >= 40  # it had ended at half of that


def test_two_processes_share_the_samples_and_end_with_the_same_weights(recipe, tmp_path):
    config = recipe(tmp_path, {'trainer.callbacks.2': {'class_path': 'support.witness.Witness'}})
    process = start(config, '--trainer.devices', '2')
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    first, second = (torch.load(tmp_path / f'rank_{rank}.pt') for rank in (0, 1))
    assert_equal(first['weights'], second['weights'])
    fresh = torch.load(tmp_path / RUN / 'checkpoints' / 'val-step=2.ckpt', weights_only=False)
    name = next(name for name in first['weights'] if name.endswith('patches.0.2.weight'))
    assert not torch.equal(fresh['state_dict'][name], first['weights'][name])  # they learnt
    # 8 steps of 2 batches of 2 each. A pass of 11 pairs has no pair twice: the first two batches
    # of both and the third of the first are within one.
    assert len(first['samples']) == len(second['samples']) == 8 * 4
    within_a_pass = first['samples'][:6] + second['samples'][:4]
    assert len(set(within_a_pass)) == 10


@pytest.mark.skipif(not os.access('/dev/shm', os.W_OK), reason='needs a second file system')
def test_who_reads_a_checkpoint_reads_a_whole_one(tmp_path, monkeypatch):
    """Also where the folder of temporary files is on another disk."""
    monkeypatch.setattr(tempfile, 'tempdir', '/dev/shm')
    path, writer = tmp_path / 'last.ckpt', AtomicCheckpointIO()
    (tmp_path / '.step=3.ckpt.0badcafe.partial').mkdir()  # of a training that was killed
    written = torch.zeros(2_000_000)
    writer.save_checkpoint({'weights': written}, path)
    ended = threading.Event()

    def write() -> None:
        for value in range(1, 30):
            writer.save_checkpoint({'weights': torch.full_like(written, value)}, path)
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while not ended.is_set():
        found = torch.load(path, weights_only=True)['weights']
        assert found.shape == written.shape
        assert (found == found[0]).all()
        reads += 1
    thread.join()
    assert reads > 3
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']
