# SPDX-License-Identifier: Apache-2.0
"""A break of a stream makes a first frame, and what fails changes nothing."""

from dataclasses import replace

import numpy as np
import pytest

from support.streams import PERIOD_NS, assert_close, clip, pipeline, same, steps

RESETS = {
    'stamp back': (
        lambda frame: replace(frame, stamp_ns=frame.stamp_ns - 10 * PERIOD_NS),
        'stamp went back by 0.300 s',
    ),
    'gap': (
        lambda frame: replace(frame, stamp_ns=frame.stamp_ns + 2 * 10**9),
        'gap of 2.033 s between frames',
    ),
    'gap before skipped frames': (
        lambda frame: replace(
            frame,
            stamp_ns=frame.stamp_ns + 1_600_000_000,
            skipped_ns=(frame.stamp_ns + 1_500_000_000, frame.stamp_ns + 1_550_000_000),
        ),
        'gap of 1.533 s between frames',
    ),
    'stamp back among skipped frames': (
        lambda frame: replace(frame, skipped_ns=(frame.stamp_ns - 10**9,)),
        'stamp went back by 0.967 s',
    ),
    'frame_id': (
        lambda frame: replace(frame, frame_id='rear'),
        "frame_id changed from '' to 'rear'",
    ),
    'size': (
        lambda frame: replace(frame, rgb=np.ascontiguousarray(frame.rgb[:70, :84])),
        'size changed from 98x75 to 84x70',
    ),
    'rotated': (
        lambda frame: replace(frame, rgb=np.ascontiguousarray(frame.rgb.swapaxes(0, 1))),
        'size changed from 98x75 to 75x98',
    ),
}


@pytest.mark.parametrize(('change', 'reason'), RESETS.values(), ids=RESETS.keys())
def test_after_a_break_a_frame_is_a_first_frame(change, reason):
    frames = clip(4)
    changed = change(frames[3])
    pipe = pipeline()
    before = steps(pipe, frames[:3])
    assert [result.reset for result in before] == ['first frame', None, None]
    came = steps(pipe, [changed])[0]
    first = steps(pipeline(), [changed])[0]
    assert came.reset == reason
    assert same(came, first)
    assert came.shift_px == (0, 0)
    assert came.confidence == 0
    # And from there the stream goes on.
    following = replace(changed, stamp_ns=changed.stamp_ns + PERIOD_NS, skipped_ns=())
    assert steps(pipe, [following])[0].reset is None


def test_a_break_of_one_camera_leaves_the_others_alone():
    a, b = clip(4), clip(4, seed=1)
    alone = steps(pipeline(), b)
    pipe = pipeline()
    for i in range(4):
        frame = replace(a[i], frame_id='rear' if i == 3 else '')
        results = pipe.step({'a': frame, 'b': b[i]})
        assert_close(results['b'], alone[i])
        assert results['b'].reset == ('first frame' if i == 0 else None)
    assert results['a'].reset == "frame_id changed from '' to 'rear'"
    assert_close(results['a'], steps(pipeline(), [frame])[0])


def test_frames_that_a_slow_machine_skips_are_no_gap():
    first, second = clip(2)
    skipped_ns = tuple(first.stamp_ns + i * 900_000_000 for i in (1, 2, 3))
    late = replace(second, stamp_ns=first.stamp_ns + 3_400_000_000)
    pipe = pipeline()
    results = steps(pipe, [first, replace(late, skipped_ns=skipped_ns)])
    assert results[1].reset is None
    assert steps(pipeline(), [first, late])[1].reset == 'gap of 3.400 s between frames'
    holed = replace(late, skipped_ns=skipped_ns[:1])
    assert steps(pipeline(), [first, holed])[1].reset == 'gap of 2.500 s between frames'


def test_max_gap_is_a_limit_that_can_be_set():
    first, second = clip(2)
    at_limit = replace(second, stamp_ns=first.stamp_ns + 10**9)
    assert steps(pipeline(), [first, at_limit])[1].reset is None
    pipe = pipeline()
    pipe.max_gap_s = 0.5
    assert steps(pipe, [first, at_limit])[1].reset == 'gap of 1.000 s between frames'


def test_a_repeated_stamp_is_no_break():
    first, second = clip(2)
    assert steps(pipeline(), [first, replace(second, stamp_ns=first.stamp_ns)])[1].reset is None


@pytest.mark.parametrize('camera', ['a', None])
def test_a_reset_can_be_asked_for(camera):
    frames = clip(4)
    pipe = pipeline()
    steps(pipe, frames[:2])
    steps(pipe, frames[:2], 'b')
    pipe.reset(camera, 'deactivated')
    results = pipe.step({'a': frames[2], 'b': frames[2]})
    assert results['a'].reset == 'deactivated'
    assert_close(results['a'], steps(pipeline(), frames[2:3])[0])
    assert results['b'].reset == ('deactivated' if camera is None else None)
    assert pipe.step({'a': frames[3]})['a'].reset is None


def test_a_reset_of_an_unknown_camera_is_nothing():
    pipe = pipeline()
    pipe.reset('nobody')
    assert steps(pipe, clip(1), 'nobody')[0].reset == 'first frame'


WRONG_IMAGES = {
    'float': np.zeros((75, 98, 3), np.float32),
    'grey': np.zeros((75, 98), np.uint8),
    'four channels': np.zeros((75, 98, 4), np.uint8),
    'empty': np.zeros((0, 98, 3), np.uint8),
}


@pytest.mark.parametrize('rgb', WRONG_IMAGES.values(), ids=WRONG_IMAGES.keys())
def test_a_wrong_image_is_refused_and_changes_nothing(rgb):
    a, b = clip(4), clip(4, seed=1)
    whole = steps(pipeline(), a)
    pipe = pipeline()
    came = steps(pipe, a[:2])
    with pytest.raises(ValueError, match=r"camera 'b': expected RGB uint8 of shape \(H, W, 3\)"):
        pipe.step({'a': a[2], 'b': replace(b[2], rgb=rgb)})
    came += steps(pipe, a[2:])
    assert all(same(*pair) for pair in zip(whole, came, strict=True))


def test_a_step_that_fails_within_changes_nothing():
    """Not even for the cameras of another size that were done already, or for an asked reset."""
    a, b = clip(4), clip(4, seed=1, height=42, width=56)
    whole = steps(pipeline(), a)
    pipe = pipeline()
    steps(pipe, a[:2])
    steps(pipe, b[:2], 'b')
    pipe.reset('b')
    calls = []

    def fail(module, args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError('out of memory')

    hook = pipe.model.backbone.network.head.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        pipe.step({'a': a[2], 'b': b[2]})
    hook.remove()
    assert same(steps(pipe, a[2:3])[0], whole[2])
    assert steps(pipe, b[2:3], 'b')[0].reset == 'requested'
