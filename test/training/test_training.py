# SPDX-License-Identifier: Apache-2.0
"""Training: which parts learn what, what a run leaves behind, and the arms of the ablation."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import load_adapter, load_model, save_model
from support.small_training import CONFIGS, fit, small
from support.tiny_networks import saved_encoder, tiny_depth_anything, tiny_smoothdino
from training import ablate, train
from training.losses import LossWeights
from training.module import DepthTraining
from training.network import AdapterSize, NetworkSize, fresh_network

pytestmark = pytest.mark.slow

ARMS = yaml.safe_load((CONFIGS / 'ablation_arms.yaml').read_text())


def windows(batch: int = 2, length: int = 3) -> dict[str, torch.Tensor]:
    room = SampleRoom(0, height=56, width=70)
    frames = [room.frame(40 * b + 3 * t) for b in range(batch) for t in range(length)]
    return {
        'rgb': torch.stack([torch.from_numpy(f.rgb) for f in frames]).unflatten(
            0, (batch, length)
        ),
        'depth_m': torch.stack([torch.from_numpy(f.depth_m) for f in frames]).unflatten(
            0, (batch, length)
        ),
    }


def training(model: Path, **settings) -> DepthTraining:
    module = DepthTraining(**{'parts': ['adapter'], 'backbone': str(model)} | settings)
    module.setup('fit')
    module.log = lambda *_, **__: None  # there is no trainer
    return module


def gradients(module: DepthTraining) -> dict[str, torch.Tensor]:
    module.zero_grad()
    module.training_step(windows(), 0).backward()
    return {
        name: value.grad.clone()
        for name, value in module.named_parameters()
        if value.requires_grad
    }


def test_windows_give_what_the_stream_gives(tiny_model_dir):
    """Training sees the model that the robot runs, adapter and state and all."""
    module = training(tiny_model_dir, adapter=str(tiny_model_dir))
    rgb = windows()['rgb']
    streaming, state, streamed = load_model(tiny_model_dir), None, []
    with torch.inference_mode():
        for t in range(rgb.shape[1]):
            depth_m, state = streaming(rgb[:, t], state)
            streamed.append(depth_m)
        together = module(rgb)
    torch.testing.assert_close(together, torch.stack(streamed, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('parts', [['adapter'], ['decoder'], ['encoder', 'decoder', 'adapter']])
def test_the_named_parts_learn_and_no_other(tiny_model_dir, parts):
    module = training(tiny_model_dir, parts=parts, adapter=str(tiny_model_dir))
    learnt = gradients(module)
    network = module.model.backbone.network
    members = {
        'encoder': [
            f'model.backbone.network.backbone.{n}' for n, _ in network.backbone.named_parameters()
        ],
        'decoder': [
            f'model.backbone.network.{part}.{n}'
            for part in ('neck', 'head')
            for n, _ in getattr(network, part).named_parameters()
        ],
        'adapter': [f'model.adapter.{n}' for n, _ in module.model.adapter.named_parameters()],
    }
    for part, names in members.items():
        share = len(learnt.keys() & set(names)) / len(names)
        assert share > 0.9 if part in parts else share == 0


def test_what_depth_does_not_depend_on_is_left_out(tiny_model_dir):
    """Several processes would wait for its gradient: a mask token, for example."""
    module = training(tiny_model_dir, parts=['encoder', 'decoder'])
    left_out = [name for name, value in module.named_parameters() if not value.requires_grad]
    assert any(name.endswith('mask_token') for name in left_out)
    with torch.no_grad():
        before = module(windows()['rgb'])
        for name, value in module.named_parameters():
            if name in left_out:
                value.add_(1.0)
        assert torch.equal(module(windows()['rgb']), before)
    learnt = gradients(module)
    assert learnt
    assert all(gradient.isfinite().all() for gradient in learnt.values())


def test_an_adapter_learns_nothing_of_first_frames(tiny_model_dir):
    module = training(tiny_model_dir, adapter=str(tiny_model_dir), loss=LossWeights(silog=1.0))
    batch = windows()
    expected = module.training_step(batch, 0)
    batch['depth_m'][:, 0] = 9.0
    assert torch.equal(module.training_step(batch, 0), expected)
    with pytest.raises(ValueError, match=r'data\.windows\.frames: expected at least 2 frames'):
        module.training_step({name: value[:, :1] for name, value in batch.items()}, 0)


def test_frames_before_the_learnt_ones_lead_up_to_them(tiny_model_dir):
    settings = {'loss': LossWeights(silog=1.0), 'adapter': str(tiny_model_dir)}
    module = training(tiny_model_dir, **settings, learnt_frames=1)
    batch = windows()
    expected = module.training_step(batch, 0)
    batch['depth_m'][:, :2] = 9.0
    assert torch.equal(module.training_step(batch, 0), expected)
    batch['rgb'][:, 0] = 255 - batch['rgb'][:, 0]
    assert not torch.equal(module.training_step(batch, 0), expected)
    batch = windows()
    of_all = training(tiny_model_dir, **settings).training_step(batch, 0)
    of_two = training(tiny_model_dir, **settings, learnt_frames=2).training_step(batch, 0)
    assert torch.equal(of_all, of_two)  # an adapter learns nothing of the first of three


def test_an_adapter_learns_the_same_where_the_decoder_computes_in_half_precision(tiny_model_dir):
    module = training(tiny_model_dir, adapter=str(tiny_model_dir), loss=LossWeights(silog=1.0))
    expected = gradients(module)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = gradients(module)
    for name, gradient in expected.items():
        like = torch.cosine_similarity(gradient.flatten(), rounded[name].flatten(), dim=0)
        assert like > 0.98, name


def test_the_published_regulariser_holds_depth_where_it_was(tiny_model_dir):
    """It is zero for a fresh adapter, grows with the change, and pulls back."""
    alone = LossWeights(mse=0.0, original=1.0)
    fresh = training(tiny_model_dir, adapter=AdapterSize(hidden=8, memory=0), loss=alone)
    assert fresh.training_step(windows(), 0) == 0
    module = training(tiny_model_dir, adapter=str(tiny_model_dir), loss=alone)
    before = module.training_step(windows(), 0)
    optimizer = torch.optim.SGD(module.model.adapter.parameters(), lr=1e-3)
    before.backward()
    optimizer.step()
    assert module.training_step(windows(), 0) < before
    with pytest.raises(ValueError, match=r'loss\.original'):
        training(tiny_model_dir, parts=['decoder'], loss=alone)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'parts': []}, 'parts: expected some of encoder, decoder, adapter'),
        ({'parts': ['head']}, r"got \['head'\]"),
        ({'adapter': None}, "'adapter' is to be trained"),
        ({'parts': ['encoder'], 'features': 'x'}, 'features: expected a frozen encoder'),
        ({'adapter': AdapterSize(parameters=100)}, '100 are too few'),
    ],
    ids=str,
)
def test_settings_without_sense_are_refused_in_words(tiny_model_dir, settings, words):
    with pytest.raises(ValueError, match=words):
        training(tiny_model_dir, **{'adapter': AdapterSize(hidden=8)} | settings)


def test_an_adapter_without_a_class_token_to_learn_from_trains(tmp_path):
    """Depth Anything's decoder does not look at it."""
    save_model(SmoothDino(tiny_smoothdino().backbone.__class__(tiny_depth_anything())), tmp_path)
    module = training(tmp_path, adapter=AdapterSize(hidden=8))
    learnt = gradients(module)
    assert len(learnt) == len(list(module.model.adapter.parameters()))


def test_a_fresh_network_tells_pictures_apart_at_once(tmp_path):
    """Its features and depth vary with what is seen: no dead last ReLU, no lost signal."""
    torch.manual_seed(0)
    network = fresh_network(NetworkSize(encoder=str(saved_encoder(tmp_path))))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        depth_m = network(torch.randn(4, 3, 112, 154, generator=generator)).predicted_depth
    assert 1.5 < depth_m.mean() < 3.5
    assert depth_m.std(dim=0).mean() > 0.02
    assert (depth_m > 0).float().mean() > 0.99


@pytest.mark.parametrize('config', sorted(path.name for path in CONFIGS.glob('*.yaml')))
def test_every_shipped_configuration_is_one(config, capsys):
    lines = []
    if config == 'ablation_arms.yaml':
        lines = [
            f'--{key}={json.dumps(value)}' for arm in ARMS.values() for key, value in arm.items()
        ]
        config = 'ablation.yaml'
    elif config == 'smoothdino_small_places.yaml':  # laid over the first part
        lines = ['--config', str(CONFIGS / config)]
        config = 'smoothdino_small.yaml'
    arguments = ['fit', '--config', str(CONFIGS / config), *lines, '--print_config']
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)['model']['parts']


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """A decoder trained by the bundled model's configuration, on rooms alone."""
    folder = tmp_path_factory.mktemp('trained')
    changes = {
        'trainer.max_steps': 4,
        'trainer.val_check_interval': 2,
        'trainer.callbacks.0.init_args.every_n_train_steps': 2,
        'model.network': {'encoder': str(saved_encoder(folder)), 'fusion': 16},
        'data.room_share': 1.0,
        'data.clips': [],
        'data.batch_size': 2,
        'data.val_windows': 2,
    }
    fit(small('smoothdino_small.yaml', changes, folder))
    return folder / 'runs' / 'smoothdino_small'


def test_a_run_leaves_curves_and_a_model_that_loads(trained):
    curves = EventAccumulator(str(trained))
    curves.Reload()
    tags = curves.Tags()
    assert {'train/loss', 'train/silog', 'train/gradient', 'val/mse', 'val/abs_rel'} <= set(
        tags['scalars']
    )
    assert [event.step for event in curves.Scalars('val/mse')] == [1, 3]
    model = load_model(trained / 'model')
    assert model.adapter is None
    assert model.backbone.input_height == 56


def test_an_adapter_is_trained_on_a_frozen_base(trained, tmp_path):
    """With pictures of validation windows, and the best adapter so far as it was then."""
    best = {'class_path': 'training.callbacks.ExportModel',
            'init_args': {'adapter_only': True, 'monitor': 'val/mse'}}  # fmt: skip
    changes = {
        'trainer.max_steps': 3,
        'trainer.val_check_interval': 1,
        'trainer.callbacks.0': {'class_path': 'training.callbacks.DepthPictures'},
        'model.backbone': str(trained / 'model'),
        'data.room_share': 1.0,
        'data.windows.frames': 3,
        'data.batch_size': 2,
        'data.val_windows': 3,
    }
    config = small('smoothdino_small_adapter.yaml', changes, tmp_path)
    fit(config, '--trainer.callbacks+', json.dumps(best))
    run = tmp_path / 'runs' / 'smoothdino_small_adapter'
    before = load_file(trained / 'model' / 'model.safetensors')
    after = load_file(run / 'model' / 'model.safetensors')
    assert all(torch.equal(before[name].half(), after[name]) for name in before)
    weights = load_file(run / 'model' / 'adapter.safetensors')
    assert all(weights[name].any() for name in weights if name.endswith('weight'))
    assert load_adapter(run / 'adapter').config == load_adapter(run / 'model').config

    curves = EventAccumulator(str(run))
    curves.Reload()
    assert {'train/scale_change', 'val/flicker'} <= set(curves.Tags()['scalars'])
    pictures = curves.Images('val/rgb_depth_truth')
    assert [(p.width, p.height, p.step) for p in pictures] == [
        (3 * 70, 3 * 56, n) for n in (1, 2, 3)
    ]


def test_passes_are_counted_by_the_data(tiny_model_dir, tmp_path):
    changes = {'model.backbone': str(tiny_model_dir), 'data.room_share': 1.0}
    config = small('smoothdino_small_adapter.yaml', changes, tmp_path)
    with pytest.raises(ValueError, match=r'expected data\.epochs'):
        fit(config, '--trainer.max_epochs', '10')


def test_an_arm_is_trained_once_and_its_adapter_is_what_evaluation_takes(
    tiny_model_dir, tmp_path, capfd
):
    changes = {
        'trainer.max_steps': 2,
        'trainer.limit_val_batches': 0,
        'model.backbone': str(tiny_model_dir),
        'model.features': str(tmp_path / 'features'),
        'model.adapter.parameters': 100_000,
        'data.room_share': 1.0,
        'data.batch_size': 2,
    }
    config = small('ablation.yaml', changes, tmp_path)
    arguments = ['--config', str(config), '--output', str(tmp_path / 'arms'), '--seeds', '3']
    ablate.main([*arguments, '--arms', 'control', '--data.windows.frames=2'])
    adapter = tmp_path / 'arms' / 'control_3' / 'adapter'
    config = load_adapter(adapter).config
    assert (config.current, config.memory) == (True, 0)
    first = (adapter / 'adapter.safetensors').stat().st_mtime_ns
    ablate.main([*arguments, '--arms', 'control'])
    assert (adapter / 'adapter.safetensors').stat().st_mtime_ns == first
    printed = capfd.readouterr().out
    assert 'control_3 is done' in printed
    assert f'control_3={adapter}' in printed
    with pytest.raises(SystemExit, match='expected some of biases, control'):
        ablate.main([*arguments, '--arms', 'nothing'])
