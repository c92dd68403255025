# SPDX-License-Identifier: Apache-2.0
"""Clips on disk: what they give, what is left out, and how depth depends on the focal length."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from smoothdino_model.network.trained_camera import NYU
from smoothdino_model.scale.floor import floor_of_tilt
from support.made_clips import numbers_of, write_clip
from support.made_views import pose_of
from training.data.augment import augmented
from training.data.clip_json import TRAINED_FOCAL
from training.data.clips import Window, find_clips, with_floors

CAMERA = {'fx_px': 40.0, 'fy_px': 40.0, 'cx_px': 15.5, 'cy_px': 11.5, 'width': 32, 'height': 24}


@pytest.mark.parametrize('eight_bit', [False, True])
def test_a_clip_gives_metres_and_knows_what_it_does_not_know(tmp_path, eight_bit):
    write_clip(tmp_path / 'hall', range(1, 6), eight_bit=eight_bit)
    (clip,) = find_clips(tmp_path)
    window = clip.read([0, 2, 4])
    assert (clip.name, len(clip), clip.focal) == ('hall', 5, TRAINED_FOCAL)
    assert window.rgb.shape == (3, 24, 32, 3)
    np.testing.assert_allclose(window.depth_m[:, 5, 5], [0.1, 0.3, 0.5], atol=0.02)
    assert np.isnan(window.depth_m[:, 0, 0]).all()
    assert np.isfinite(window.depth_m[:, 1:]).all()
    np.testing.assert_allclose(window.rgb[:, 5, 5, 0], [8, 24, 40], atol=1)


def test_clip_json_gives_focal_length_and_stamps(tmp_path):
    stamps_ns = {str(i): 10**9 + i * 33_000_000 for i in range(1, 5)}
    write_clip(tmp_path / 'a', range(1, 5), intrinsics=CAMERA, stamps_ns=stamps_ns)
    write_clip(tmp_path / 'b', range(1, 5), stamps_ns=list(stamps_ns.values()))
    first, second = find_clips(tmp_path)
    assert first.focal == pytest.approx(40 / 32)
    assert first.read([1, 3]).stamps_ns == (stamps_ns['2'], stamps_ns['4'])
    assert second.stamps_ns == first.stamps_ns


def test_a_mounted_camera_s_floor_is_told_by_clip_json_and_a_moving_one_s_by_its_poses(tmp_path):
    mounted = {'camera_height_m': 0.6, 'camera_pitch_deg': 20.0, 'camera_roll_deg': -5.0}
    write_clip(tmp_path / 'a', range(1, 3), intrinsics=CAMERA, **mounted)
    poses = {i: pose_of(1.0 + 0.1 * i, 10.0 * i, 5.0, yaw=i, x=i) for i in (1, 2)}
    told = {str(i): pose.tolist() for i, pose in poses.items()}
    write_clip(tmp_path / 'b', range(1, 3), world_from_camera=told, world_floor=[0, 0, 1, 0.2])
    write_clip(tmp_path / 'c', range(1, 3), world_floor=[0, 0, 2, 0.2])
    lines = (f'{i} ' + ' '.join(map(str, pose.ravel())) for i, pose in poses.items())
    (tmp_path / 'c' / 'poses.txt').write_text('\n'.join(lines) + '\n')
    a, b, c = (clip.read([0, 1]) for clip in find_clips(tmp_path))
    assert a.floors == (floor_of_tilt(0.6, 20.0, -5.0),) * 2
    assert a.world_from_camera is None
    for window in (b, c):
        np.testing.assert_allclose(window.world_from_camera, list(poses.values()))
        for i, floor in zip((1, 2), window.floors, strict=True):
            expected = floor_of_tilt(1.0 + 0.1 * i - 0.2, 10.0 * i, 5.0)
            assert floor.height_m == pytest.approx(expected.height_m)
            assert floor.down == pytest.approx(expected.down)


def test_a_file_tells_the_floors_of_clips_that_do_not_tell_them(tmp_path):
    mounted = {'camera_height_m': 0.6, 'camera_pitch_deg': 20.0}
    write_clip(tmp_path / 'a', range(1, 3), **mounted)
    for name in 'bc':
        write_clip(tmp_path / name, range(1, 3))
    path = tmp_path / 'floors.json'
    path.write_text(json.dumps(dict.fromkeys('ab', mounted | {'camera_height_m': 1.5})))
    floors = [clip.read([1]).floors for clip in with_floors(find_clips(tmp_path), path)]
    assert floors == [(floor_of_tilt(0.6, 20.0),), (floor_of_tilt(1.5, 20.0),), None]
    for wrong in ('[]', '{"b": {"camera_height_m": 1.5}}', '{"b": {"world_floor": [0, 1]}}', '{'):
        path.write_text(wrong)
        with pytest.raises(ValueError, match='expected a JSON file of floors'):
            with_floors(find_clips(tmp_path), path)


def test_the_principal_point_stays_where_it_is_in_a_picture_of_another_size_or_without_rim(
    tmp_path,
):
    write_clip(tmp_path, range(1, 3), intrinsics=CAMERA | {'cx_px': 19.5, 'cy_px': 7.5})
    (clip,) = find_clips(tmp_path)
    whole = clip.read([0]).camera
    assert (whole.fx_px, whole.cx_px, whole.cy_px) == pytest.approx((40, 19.5, 7.5))
    twice = clip.read([0]).resized(48, 64).camera
    assert (twice.fx_px, twice.cx_px, twice.cy_px) == pytest.approx((80, 39.5, 15.5))
    inner = replace(clip, rim_px=2).read([0]).camera
    assert (inner.fx_px, inner.cx_px, inner.cy_px) == pytest.approx((40, 17.5, 5.5))


@pytest.mark.parametrize('size', [(24, 24), (12, 32), (12, 12)])
def test_a_picture_cut_to_another_shape_is_of_the_same_lens(tmp_path, size):
    """What is seen where is told by K, in the whole picture and in what is left of it."""
    write_clip(tmp_path, range(1, 3), intrinsics=CAMERA | {'cx_px': 19.5, 'cy_px': 7.5})
    whole = find_clips(tmp_path)[0].read([0])
    cut = whole.of_shape(*size)
    rows, columns = cut.rgb.shape[1:3]
    assert rows * size[1] == columns * size[0]
    assert rows == 24 or columns == 32
    top, left = (24 - rows) // 2, (32 - columns) // 2
    part = (slice(None), slice(top, top + rows), slice(left, left + columns))
    np.testing.assert_array_equal(cut.rgb, whole.rgb[part])
    np.testing.assert_array_equal(cut.depth_m, whole.depth_m[part])
    assert cut.camera.fx_px == pytest.approx(whole.camera.fx_px)
    assert cut.camera.cx_px == pytest.approx(whole.camera.cx_px - left)
    assert cut.camera.cy_px == pytest.approx(whole.camera.cy_px - top)


def test_png_pictures_are_not_taken_for_depth(tmp_path):
    write_clip(tmp_path, range(1, 4))
    for i in range(1, 4):
        picture = cv2.imread(str(tmp_path / f'{i}.jpg'))
        cv2.imwrite(str(tmp_path / f'{i}_rgb.png'), picture)
        (tmp_path / f'{i}.jpg').unlink()
    (clip,) = find_clips(tmp_path)
    assert numbers_of(clip.read(range(3))) == [1, 2, 3]
    assert clip.name == tmp_path.name


def test_white_in_pngs_of_16_bit_is_what_the_clips_camera_can_send(tmp_path):
    """Whichever frame is read first: the brightest one is the last of the clip."""
    write_clip(tmp_path, range(1, 4))
    for i, brightest in ((1, 500), (2, 1000), (3, 4095)):  # of a camera of 12 bits
        (tmp_path / f'{i}.jpg').unlink()
        picture = np.full((24, 32, 3), brightest, np.uint16)
        assert cv2.imwrite(str(tmp_path / f'{i}_rgb.png'), picture)
    for told, grey in ((0, [31, 62, 255]), (12, [31, 62, 255]), (14, [7, 15, 63])):
        (clip,) = find_clips(tmp_path, bit_depth=told)
        assert clip.read([0]).rgb.max() == grey[0]
        assert [clip.read([i]).rgb.max() for i in range(3)] == grey


@pytest.mark.parametrize('rim_px', [-1, 12, 400])
def test_a_rim_that_leaves_nothing_is_refused(tmp_path, rim_px):
    write_clip(tmp_path, range(1, 3))
    (clip,) = find_clips(tmp_path)
    with pytest.raises(ValueError, match=f'rim_px: expected 0 to .* 32x24 pixels, got {rim_px}'):
        replace(clip, rim_px=rim_px).read([0])


def test_intrinsics_of_pictures_of_another_shape_are_refused(tmp_path):
    write_clip(tmp_path, range(1, 3), intrinsics=CAMERA | {'height': 18})
    (clip,) = find_clips(tmp_path)
    with pytest.raises(ValueError, match=r'intrinsics in clip\.json, 32x18, got 32x24'):
        clip.read([0])
    write_clip(tmp_path, range(1, 3), intrinsics=CAMERA | {'width': 64, 'height': 48})
    assert find_clips(tmp_path)[0].read([0]).focal == pytest.approx(40 / 64)


def test_intrinsics_of_pixels_that_are_not_square_are_doubted_aloud(tmp_path, caplog):
    write_clip(tmp_path, range(1, 3), intrinsics=CAMERA | {'fy_px': 40.5})
    find_clips(tmp_path)
    assert 'doubtful' not in caplog.text
    write_clip(tmp_path, range(1, 3), intrinsics=CAMERA | {'fy_px': 80.0})
    find_clips(tmp_path)
    assert 'clip.json is doubtful: expected square pixels' in caplog.text


def test_what_is_missing_orphaned_or_unreadable_is_left_out_and_counted(tmp_path, caplog):
    clip = write_clip(tmp_path / 'a', range(1, 11))
    (clip / '2.png').unlink()
    (clip / '4.jpg').unlink()
    (clip / '5.jpg').write_bytes((clip / '5.jpg').read_bytes()[:-20])
    (clip / '6.png').write_bytes((clip / '6.png').read_bytes()[:-20])
    (clip / '7.png').write_bytes(b'')
    cv2.imwrite(str(clip / '8.png'), np.zeros((24, 32, 3), np.uint8))  # colours are no depth
    (clip / '009.jpg').write_bytes((clip / '9.jpg').read_bytes())
    write_clip(tmp_path / 'b', range(1, 3), intrinsics={'fx_px': 'wide'})
    write_clip(tmp_path / '.b.partial', range(1, 3))
    found = find_clips(tmp_path)
    assert [(c.name, c.numbers) for c in found] == [('a', (1, 3, 9, 10))]
    line = caplog.records[-1].getMessage()
    for part in (
        '4 frames in 1 clips',
        '1 pictures without depth',
        '1 depth maps without a picture',
        '4 frames with an unreadable file',
        '1 clips with a broken clip.json',
        '1 pictures of a number that another has',
    ):
        assert part in line


def test_a_folder_without_clips_says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match=r'expected clips in .* <i>.jpg and depth <i>.png'):
        find_clips(tmp_path)
    with pytest.raises(ValueError, match='no such folder'):
        find_clips(tmp_path / 'nowhere')


def test_a_crop_lengthens_the_focal_length_and_so_shortens_the_trained_depth():
    truth_m = np.full((1, 105, 140), 2.0, np.float32)
    window = Window(
        np.zeros((1, 105, 140, 3), np.uint8), truth_m, TRAINED_FOCAL, np.eye(4)[None], (7,)
    )
    cropped = augmented(window, np.random.default_rng(0))
    part = cropped.rgb.shape[2] / 140
    assert part < 0.99
    assert math.isclose(cropped.focal, TRAINED_FOCAL / part, rel_tol=0.02)
    np.testing.assert_allclose(cropped.at_trained_focal().depth_m, 2.0 * part, rtol=0.02)
    assert cropped.world_from_camera is None
    assert cropped.stamps_ns == (7,)


def test_what_a_wide_picture_lacks_at_the_top_counts_in_training_as_on_the_robot():
    wide = Window(np.zeros((1, 90, 160, 3), np.uint8), np.ones((1, 90, 160), np.float32), 0.7)
    scale = NYU.scale(0.7, height=90, width=160)
    trained = wide.at_trained_focal()
    np.testing.assert_allclose(trained.depth_m * scale, 1, rtol=1e-6)
    again = trained.at_trained_focal()
    np.testing.assert_allclose(again.depth_m, trained.depth_m)
