# SPDX-License-Identifier: Apache-2.0
"""A decoder on a DINOv2 encoder as it is: from kept features to the model that ships."""

import numpy as np
import pytest
import torch
from transformers import Dinov2Model

from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import load_model
from support.made_clips import write_clip
from support.small_training import fit, small
from support.tiny_networks import saved_encoder
from training import evaluate, export
from training.data.augment import augmented
from training.data.clips import Window, find_clips
from training.data.data_module import ClipSource, WindowData, WindowShape
from training.evaluation.measure import Measured, Moment, add
from training.evaluation.stretches import clips as clip_stretches
from training.network import NetworkSize, fresh_network

MOST_BYTES = 50_000_000  # of a file that code hosts take without large-file storage


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
    return saved_encoder(tmp_path_factory.mktemp('encoder'))


@pytest.fixture(scope='module')
def trained(encoder, tmp_path_factory):
    """The folder of a training of four steps, checkpoints of all kept."""
    folder = tmp_path_factory.mktemp('trained')
    write_clip(folder / 'clips' / 'hall', range(1, 51), height=56, width=70)
    config = small(
        'smoothdino_small.yaml',
        {
            'trainer.max_steps': 4,
            'trainer.val_check_interval': 4,
            'trainer.callbacks.0.init_args.every_n_train_steps': 2,
            'trainer.callbacks.0.init_args.save_top_k': -1,
            'model.network.encoder': str(encoder),
            'data.clips': [{'root': str(folder / 'clips'), 'block': 10, 'margin': 0}],
            'data.batch_size': 2,
            'data.val_windows': 2,
        },
        folder,
    )
    fit(config)
    return folder / 'runs' / 'smoothdino_small'


def checkpoints(trained):
    found = sorted(trained.glob('checkpoints/*step=*.ckpt'))
    assert len(found) == 2
    return found


@pytest.mark.slow
def test_the_encoder_is_the_given_one_and_the_decoder_has_learnt(trained, encoder):
    given = Dinov2Model.from_pretrained(encoder).state_dict()
    network = load_model(trained / 'model').backbone.network
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, given[name].float()), name
    first, last = (
        torch.load(path, weights_only=False)['state_dict'] for path in checkpoints(trained)
    )
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved
    assert not any('.network.backbone.' in name for name in moved)


@pytest.mark.slow
def test_the_second_part_goes_on_from_the_first_by_its_own_mixture(trained, tmp_path):
    write_clip(tmp_path / 'clips' / 'den', range(1, 51), height=56, width=70)
    write_clip(tmp_path / 'still' / 'nook', range(1, 4), height=56, width=70)
    shares = [
        {'root': str(tmp_path / 'clips'), 'block': 10, 'margin': 0, 'share': 0.7},
        {'root': str(tmp_path / 'still'), 'validate': False, 'share': 0.3},
    ]
    changes = {
        'trainer.max_steps': 1,
        'trainer.val_check_interval': 1,
        'model.backbone': str(trained / 'model'),
        'model.optimizer.learning_rate': 1e-6,
        'data.clips': shares,
    }
    first = small('smoothdino_small.yaml', {}, tmp_path)
    first = first.rename(tmp_path / 'first.yaml')
    second = small('smoothdino_small_places.yaml', changes, tmp_path)
    fit(first, '--config', second.name)
    before = load_model(trained / 'model').state_dict()
    after = load_model(tmp_path / 'runs' / 'smoothdino_small_places' / 'model').state_dict()
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], atol=1e-3, rtol=1e-2, msg=name)


@pytest.mark.slow
def test_a_model_says_nothing_of_the_machine_it_was_trained_on(trained, encoder):
    assert str(encoder) not in (trained / 'model' / 'config.json').read_text()


@pytest.mark.slow
def test_checkpoints_are_averaged_and_one_is_itself(trained, tmp_path):
    first, last = checkpoints(trained)
    alone, both = export.averaged([last]), export.averaged([first, last])
    weights = [torch.load(path, weights_only=False)['state_dict'] for path in (first, last)]
    for name, value in both.state_dict().items():
        assert torch.equal(alone.state_dict()[name], weights[1][name])
        torch.testing.assert_close(value, (weights[0][name] + weights[1][name]) / 2)
    export.main([str(last), '--output', str(tmp_path)])
    exported = load_model(tmp_path).state_dict()
    for name, value in load_model(trained / 'model').state_dict().items():
        assert torch.equal(exported[name], value)


@pytest.mark.slow
def test_a_missing_checkpoint_is_said_in_words(trained, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export.main([str(tmp_path / 'none.ckpt'), '--output', str(tmp_path)])
    assert 'none.ckpt' in capsys.readouterr().err


# what it is trained on


def test_a_window_comes_in_so_many_variants_and_then_again(tmp_path):
    write_clip(tmp_path / 'hall', range(1, 51))
    source = ClipSource(root=str(tmp_path), block=10, margin=0)
    data = WindowData(windows=WindowShape((28, 42)), room_share=0, clips=[source], variants=2)
    n = data.stream.n_clip_windows
    passes = [
        {data.stream[i]['rgb'].numpy().tobytes() for i in range(start, start + n)}
        for start in (0, n, 2 * n, 3 * n)
    ]
    assert passes[0] == passes[2]
    assert passes[1] == passes[3]
    assert len(passes[0] - passes[1]) > n / 2


def test_the_rim_is_cut_off_and_the_rays_stay_where_they_were(tmp_path):
    write_clip(tmp_path / 'nyu', range(1, 26))
    (whole,) = find_clips(tmp_path)
    (cut,) = ClipSource(root=str(tmp_path), rim_px=4).clips()
    before, after = whole.read([3]), cut.read([3])
    np.testing.assert_array_equal(after.rgb, before.rgb[:, 4:-4, 4:-4])
    np.testing.assert_array_equal(after.depth_m, before.depth_m[:, 4:-4, 4:-4])
    assert after.focal * after.rgb.shape[2] == pytest.approx(before.focal * before.rgb.shape[2])


def test_left_out_places_are_never_read(tmp_path, monkeypatch):
    for name in ('kitchen_a', 'kitchen_b', 'hall'):
        write_clip(tmp_path / name, range(1, 26))
    monkeypatch.setenv('CLIPS_ROOT', str(tmp_path))
    source = ClipSource(root='$CLIPS_ROOT', leave_out=('kitchen_*',))
    assert [clip.name for clip in source.clips()] == ['hall']
    with pytest.raises(ValueError, match='expected clips besides'):
        ClipSource(root='$CLIPS_ROOT', leave_out=('*',)).clips()


@pytest.mark.parametrize(('height', 'width'), [(90, 160), (160, 90), (96, 128)])
def test_a_crop_has_the_shape_of_the_networks_input(height, width):
    picture = np.zeros((1, height, width, 3), np.uint8)
    window = Window(picture, np.ones((1, height, width), np.float32), 0.8)
    for seed in range(8):
        crop = augmented(window, np.random.default_rng(seed), aspect=4 / 3)
        _, rows, columns, _ = crop.rgb.shape
        assert abs(columns - rows * 4 / 3) <= 2
        # A pixel sees the same angle as before.
        assert crop.focal * columns == pytest.approx(window.focal * width)


# how it is judged


def test_only_clips_of_the_given_names_are_evaluated(tmp_path, monkeypatch):
    for name in ('kitchen_a', 'kitchen_b', 'hall'):
        write_clip(tmp_path / name, range(1, 5))
    source = clip_stretches(tmp_path, split=None, size=None, names=('kitchen_*',))
    assert {stretch.scene for stretch in source.stretches} == {'kitchen_a', 'kitchen_b'}
    with pytest.raises(ValueError, match='expected clips named cellar'):
        clip_stretches(tmp_path, split=None, size=None, names=('cellar',))
    monkeypatch.delenv('CLIPS_ROOT', raising=False)
    with pytest.raises(SystemExit):
        evaluate.main(['--source', 'clips', '--model', str(tmp_path / 'none')])


@pytest.mark.parametrize('factor', [0.5, 1.0, 1.7])
def test_aligned_error_does_not_know_the_scale(factor):
    rng = np.random.default_rng(0)
    truth_m = rng.uniform(1, 5, (12, 16))
    depth_m = truth_m * rng.uniform(0.9, 1.1, truth_m.shape)
    measured = Measured(['true_scale', 'other_scale'])
    depths_m = {'true_scale': depth_m, 'other_scale': factor * depth_m}
    add(measured, 'hall', 0, Moment(None, truth_m, depths_m, {}, None, 12.0), None)
    aligned = [measured.array(name, 'abs_rel_aligned')[0] for name in measured.methods]
    assert aligned[1] == pytest.approx(aligned[0])
    assert aligned[0] < 0.06


# what ships


@torch.no_grad()
@pytest.mark.slow
def test_the_decoder_sees_every_level_of_an_encoder_alike(encoder):
    """Tokens differ in size from level to level: what the first layers make of them does not."""
    model = Dinov2Model.from_pretrained(encoder)
    model.encoder.layer[-1].mlp.fc2.weight *= 2000.0
    model.save_pretrained(encoder.parent / 'uneven')
    network = fresh_network(NetworkSize(encoder=str(encoder.parent / 'uneven'), fusion=16))
    room = SampleRoom(0, height=224, width=294).frame(0)
    features = DepthBackbone(network).encode(torch.from_numpy(room.rgb)[None])
    sizes, seen = [], []
    projects = network.neck.reassemble_stage.readout_projects
    for tokens, project in zip(features.levels, projects, strict=True):
        class_token = tokens[:, :1].expand_as(tokens[:, 1:])
        sizes.append(float(tokens[:, 1:].std()))
        seen.append(float(project[0](torch.cat((tokens[:, 1:], class_token), dim=-1)).std()))
    assert max(sizes) > 5 * min(sizes)
    assert max(seen) < 3 * min(seen)
