# SPDX-License-Identifier: Apache-2.0
"""Evaluation: the figures are those of the streamed depth."""

import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from smoothdino_model import metrics
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import save_adapter
from support.made_depth import write_clip, write_depth_bag
from support.tiny_networks import tiny_smoothdino
from training import evaluate
from training.data.clips import Window
from training.evaluation import stretches
from training.evaluation.measure import measure
from training.evaluation.methods import Methods, named_adapters

SIZE = (42, 56)


@pytest.fixture(scope='module')
def frames():
    """Two rides of 7 frames in one small room."""
    room = SampleRoom(7, height=SIZE[0], width=SIZE[1], focal_px=0.81 * SIZE[1])
    return [[room.frame(start + 9 * i) for i in range(7)] for start in (0, 200)]


@pytest.fixture(scope='module')
def clips(frames, tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    for name, ride in zip(('kitchen', 'hall'), frames, strict=True):
        write_clip(root / name, ride)
    return root


@pytest.fixture(scope='module')
def adapters(tmp_path_factory):
    """One adapter of each kind, and a second temporal one."""
    root = tmp_path_factory.mktemp('adapters')
    kinds = {
        'a/offsets': {'current': False, 'memory': 0},
        'a/one_frame': {'memory': 0},
        'wide/model': {},
        'plain/model': {'memory': 1, 'current': False},
    }
    for folder, settings in kinds.items():
        model = tiny_smoothdino(**settings)
        adapter = model.adapter
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_adapter(adapter, root / folder, backbone=model.backbone)
    return root


@pytest.fixture
def quick_mean_map(monkeypatch):
    """Of a few frames: drawing or reading 300 would take most of the test's time."""
    monkeypatch.setattr(stretches, '_MEAN_MAP_FRAMES', 8)


def run(tmp_path, *arguments) -> list[dict]:
    table = tmp_path / 'rows.json'
    evaluate.main([*map(str, arguments), '--json', str(table)])
    return json.loads(table.read_text())['rows']


def streamed(model, adapter, rgbs, **settings) -> list[np.ndarray]:
    pipeline = DepthPipeline.from_pretrained(
        model, adapter=adapter, device='cpu', precision='fp32', **settings
    )
    return [
        pipeline.step({'': CameraFrame(rgb, stamp_ns=i)})[''].depth_m for i, rgb in enumerate(rgbs)
    ]


@pytest.mark.slow
def test_all_methods_give_what_the_pipeline_streams(tiny_model_dir, adapters, frames):
    chosen = named_adapters(
        tiny_model_dir, [str(adapters / 'wide/model'), f'b={adapters}/a/offsets']
    )
    assert list(chosen) == ['temporal', 'b']
    methods = Methods(tiny_model_dir, chosen, memories=[2], device='cpu')
    asked = {'per_frame': ('none', 0), 'memory_2': ('none', 2)}
    for ride in frames:
        methods.reset()
        rgb = np.stack([frame.rgb for frame in ride])
        parts = [methods.depths(part)[0] for part in (rgb[:4], rgb[4:])]
        for name in methods.names:
            adapter, memory = asked.get(name) or (chosen[name], 0)
            expected = streamed(tiny_model_dir, adapter, rgb, memory=memory)
            came = np.concatenate([part[name] for part in parts])
            np.testing.assert_allclose(came, expected, atol=1e-4)
        for name in ('temporal', 'memory_2'):
            assert np.abs(parts[1][name] - parts[1]['per_frame']).max() > 0.01


def test_the_network_sees_the_height_it_is_told(tiny_model_dir, frames):
    rgb = np.stack([frame.rgb for frame in frames[0]])
    methods = Methods(tiny_model_dir, {}, device='cpu', input_height=28)
    expected = streamed(tiny_model_dir, 'none', rgb, memory=0, input_height=28)
    np.testing.assert_allclose(methods.depths(rgb)[0]['per_frame'], expected, atol=1e-4)
    own = np.stack(streamed(tiny_model_dir, 'none', rgb, memory=0))
    assert np.abs(expected - own).max() > 0.01


def test_a_frame_is_encoded_once_for_all_methods(tiny_model_dir, adapters, frames):
    chosen = {str(i): adapters / 'wide/model' for i in range(3)}
    methods = Methods(tiny_model_dir, chosen, device='cpu')
    encoded = []
    methods.backbone.network.backbone.register_forward_hook(
        lambda _, inputs, __: encoded.append(len(inputs[0]))
    )
    methods.depths(np.stack([frame.rgb for frame in frames[0]]))
    assert sum(encoded) == len(frames[0])


def test_adapters_are_named_by_what_they_see_or_where_they_lie(tiny_model_dir, adapters):
    def names(*given):
        return list(named_adapters(tiny_model_dir, [str(one) for one in given]))

    assert names() == ['temporal']  # the one beside the model
    assert names('none') == []
    assert names(adapters / 'a/offsets', adapters / 'a/one_frame', adapters / 'plain/model') == [
        *('published', 'control', 'temporal')
    ]
    assert names(adapters / 'wide/model', adapters / 'plain/model') == ['wide', 'plain']
    assert names(f'seed0={adapters}/wide/model', adapters / 'plain/model') == ['seed0', 'temporal']
    with pytest.raises(ValueError, match=r"a name of its own .* got 'x'"):
        names(f'x={adapters}/wide/model', f'x={adapters}/plain/model')
    with pytest.raises(ValueError, match='does not exist'):
        names(adapters / 'nowhere')


@pytest.mark.slow
def test_figures_of_clips_are_those_of_the_stream(tiny_model_dir, clips, frames, tmp_path, capsys):
    plots = tmp_path / 'plots'
    came = run(
        tmp_path, '--source', 'clips', '--root', clips, '--model', tiny_model_dir, '--plots', plots
    )
    by_name = {(row['scene'], row['name']): row for row in came}
    assert set(by_name) == {
        (scene, name) for scene in ('all', 'hall', 'kitchen') for name in ('per_frame', 'temporal')
    }
    for name, adapter in (('per_frame', 'none'), ('temporal', None)):
        of_rides = []
        for scene, ride in zip(('kitchen', 'hall'), frames, strict=True):
            depths_m = streamed(tiny_model_dir, adapter, [frame.rgb for frame in ride], memory=0)
            truths_m = [frame.depth_m for frame in ride]
            row = by_name[scene, name]
            assert row['mse'] == pytest.approx(metrics.mse(depths_m, truths_m), rel=2e-3)
            assert row['abs_rel'] == pytest.approx(metrics.abs_rel(depths_m, truths_m), rel=2e-3)
            assert row['delta2'] == pytest.approx(
                metrics.delta(depths_m, truths_m, power=2), abs=2e-3
            )
            assert row['flicker'] == pytest.approx(metrics.flicker(depths_m, truths_m), rel=1e-2)
            assert row['frames'] == 7
            of_rides.append(row)
        both = by_name['all', name]
        assert both['frames'] == 14
        assert both['mse'] == pytest.approx(np.mean([row['mse'] for row in of_rides]))
        assert both['rmse'] == pytest.approx(both['mse'] ** 0.5)
        assert both['consistency'] > 0
    assert 'temporal' in capsys.readouterr().out
    for scene in ('kitchen', 'hall'):
        for kind in ('time', 'strip'):
            assert cv2.imread(str(plots / f'clips_{scene}_{kind}.png')).shape[1] > 300


@pytest.mark.parametrize(('bits', 'darker'), [(0, 0), (12, 0), (14, 2)])
def test_pngs_of_16_bit_are_judged_at_the_cameras_range(
    tiny_model_dir, clips, tmp_path, bits, darker
):
    """As a clip of the same pictures in 8 bit; the camera has 12, whatever it is taken for."""
    figures = []
    for name in ('of 8', 'of 12'):
        clip = shutil.copytree(clips / 'kitchen', tmp_path / name / 'kitchen')
        for path in sorted(clip.glob('*.jpg')):
            bgr = cv2.imread(str(path)) // 2
            bgr[0, 0] = 255
            stored = bgr >> darker if name == 'of 8' else bgr.astype(np.uint16) << 4
            assert cv2.imwrite(str(path.with_name(f'{path.stem}_rgb.png')), stored)
            path.unlink()
        options = ('--model', tiny_model_dir, '--adapter', 'none', '--bit-depth', bits)
        figures.append(run(tmp_path, '--source', 'clips', '--root', clip.parent, *options))
    assert figures[0] == figures[1]


def test_bits_that_no_camera_has_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, '--source', 'clips', '--root', tmp_path, '--bit-depth', 40)
    assert 'expected a bit depth of 8 to 16' in capsys.readouterr().err


def test_a_listed_frame_is_seen_after_the_one_before_it(tiny_model_dir, clips, frames, tmp_path):
    """Frames 3 to 5 and 7 are listed, by the numbers of the frames before them."""
    split = tmp_path / 'val_list.json'
    split.write_text(json.dumps([['kitchen', 3], ['kitchen', 2], ['kitchen', 4], ['kitchen', 6],
                                 ['kitchen', 1], ['cellar', 5]]))  # fmt: skip
    came = run(
        tmp_path, '--source', 'clips', '--root', clips, '--model', tiny_model_dir, '--split', split
    )
    row = next(row for row in came if row['name'] == 'temporal')
    ride = frames[0]
    depths_m, truths_m = [], []
    for shown in ((1, 2, 3, 4), (5, 6)):  # positions; the first of each is only remembered
        of_run = streamed(tiny_model_dir, None, [ride[i].rgb for i in shown])
        depths_m += of_run[1:]
        truths_m += [ride[i].depth_m for i in shown[1:]]
    assert row['frames'] == 4
    assert row['abs_rel'] == pytest.approx(metrics.abs_rel(depths_m, truths_m), rel=2e-3)
    expected = metrics.flicker(depths_m[:3], truths_m[:3])
    assert row['flicker'] == pytest.approx(expected, rel=1e-2)
    assert next(row for row in came if row['name'] == 'mean_map')['mse'] > 0  # of the other frames


def test_a_longer_lens_makes_the_same_picture_deeper(tiny_model_dir, frames, tmp_path):
    """A camera of twice the focal length sees this picture at twice the depth, so is the truth."""
    for name, factor in (('as_trained', 1), ('long', 2)):
        ride = [
            SimpleNamespace(rgb=frame.rgb, depth_m=factor * frame.depth_m) for frame in frames[0]
        ]
        write_clip(tmp_path / 'clips' / name, ride, focal_px=factor * 518.86 / 640 * SIZE[1])
    root = tmp_path / 'clips'
    came = run(tmp_path, '--source', 'clips', '--root', root, '--model', tiny_model_dir)
    near, far = (
        next(row for row in came if (row['scene'], row['name']) == (scene, 'temporal'))
        for scene in ('as_trained', 'long')
    )
    assert far['abs_rel'] == pytest.approx(near['abs_rel'], rel=2e-3)
    assert far['rmse'] == pytest.approx(2 * near['rmse'], rel=2e-3)


def test_mse_as_published_squeezes_the_padding_and_counts_all_pixels(tiny_model_dir, frames):
    """42x50 pixels are padded to 42x56; half of the truth is unknown, which is stored as 0."""
    rgb = np.stack([frame.rgb[:, :50] for frame in frames[0][:2]])
    depth_m = np.stack([frame.depth_m[:, :50] for frame in frames[0][:2]])
    depth_m[:, :20] = np.nan
    window = Window(rgb, depth_m, 0.810719)
    stretch = stretches.Stretch('one', 0, 2, lambda part: window)
    methods = Methods(tiny_model_dir, {}, device='cpu')
    methods.backbone.trained_camera = SimpleNamespace(scale=lambda *_, **__: 1.0)
    measured = measure([stretch], methods)
    with torch.inference_mode():
        padded = functional.pad(torch.from_numpy(rgb).permute(0, 3, 1, 2).float(), (3, 3))
        mean, std = methods.backbone.mean, methods.backbone.std
        padded = (padded - mean) / std
        padded[..., :3] = padded[..., -3:] = 0
        network = methods.backbone.network
        whole = network(padded).predicted_depth.view(
            2, 1, *network(padded).predicted_depth.shape[-2:]
        )
        squeezed = functional.interpolate(whole, (42, 50), mode='bilinear')[:, 0].numpy()
    expected = np.mean((np.clip(squeezed + 0.001, 0, 10) - np.nan_to_num(depth_m)) ** 2, (1, 2))
    came = measured.array('per_frame', 'mse_published')
    np.testing.assert_allclose(came, expected, rtol=1e-3)
    assert (came > 1.05 * measured.array('per_frame', 'mse')).any()


def test_held_out_blocks_of_nyu_are_evaluated(nyu_root, quick_mean_map):
    source = stretches.nyu(nyu_root, split=None, size=(24, 32))
    assert len(source.stretches) == 6
    assert all(stretch.length == 20 for stretch in source.stretches)
    assert len({stretch.scene for stretch in source.stretches}) == 3
    window = source.stretches[0].read(range(2, 4))
    assert window.rgb.shape == (2, 24, 32, 3)
    assert source.mean_map_m.shape == (24, 32)
    assert np.isfinite(source.mean_map_m).all()
    whole = source.stretches[0].read(range(20))
    np.testing.assert_array_equal(whole.depth_m[2:4], window.depth_m)


def test_rooms_know_where_their_camera_is(tiny_model_dir, tmp_path, quick_mean_map):
    arguments = ('--source', 'room', '--rooms', 1, '--frames', 3, '--size', '42x56')
    came = run(tmp_path, *arguments, '--model', tiny_model_dir)
    by_name = {row['name']: row for row in came if row['scene'] == 'all'}
    assert list(by_name) == ['mean_map', 'per_frame', 'temporal']
    assert by_name['temporal']['tae'] != by_name['per_frame']['tae']
    assert 0 < by_name['temporal']['truth_tae'] < 0.03 < by_name['temporal']['tae']
    assert 'consistency' not in by_name['temporal']


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1', '16UC1; compressedDepth rvl'])
def test_a_recorded_run_is_judged_by_its_stamps(frames, tmp_path, encoding, capsys):
    """Depth is 10 % too far, 8 ms late, unknown in its upper rows, and begins before the truth."""
    truths_m = [frame.depth_m for frame in frames[0]]
    depths_m = [np.where(np.arange(SIZE[0])[:, None] < 14, np.nan, 1.1 * t) for t in truths_m]
    bag = write_depth_bag(
        tmp_path / 'bag',
        {
            '/depth/image': (depths_m, 8_000_000, encoding),
            '/truth/image': (truths_m[2:], 80_000_000, '32FC1'),
        },
    )
    arguments = ('--source', 'bag', '--root', bag, '--depth-topic', '/depth/image')
    came = run(tmp_path, *arguments, '--truth-topic', '/truth/image')
    row = came[0]
    assert (row['name'], row['scene'], row['frames']) == ('recorded', 'all', 5)
    assert row['abs_rel'] == pytest.approx(0.1, abs=1e-3)
    assert row['coverage'] == pytest.approx(28 / 42)
    assert row['flicker'] == pytest.approx(0, abs=1e-3)
    assert row['scale_bias'] == pytest.approx(np.log(1.1), abs=1e-3)
    assert row['consistency'] is None

    for wrong, said in (
        (('--truth-topic', '/truth/image', '--tolerance-s', '0.001'), 'got none among 7 depth'),
        (('--truth-topic', '/nowhere'), 'there are /depth/image'),
        ((), 'expected for --source bag'),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path, *arguments, *wrong)
        assert stopped.value.code == 1
        assert said in capsys.readouterr().err


def test_depth_of_another_size_is_compared_pixel_by_pixel(frames, tmp_path):
    truths_m = [frame.depth_m for frame in frames[0]]
    halves_m = [truth_m[::2, ::2] for truth_m in truths_m]
    bag = write_depth_bag(
        tmp_path / 'bag', {'/d': (halves_m, 0, '32FC1'), '/t': (truths_m, 0, '32FC1')}
    )
    topics = ('--depth-topic', '/d', '--truth-topic', '/t')
    row = run(tmp_path, '--source', 'bag', '--root', bag, *topics)[0]
    assert row['frames'] == 7
    assert row['delta1'] > 0.9
