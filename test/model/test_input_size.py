# SPDX-License-Identifier: Apache-2.0
"""A network sees a picture as its checkpoint's own image processor in transformers makes it."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers

from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.weights.checkpoint import load_model, save_model
from smoothdino_model.weights.hub import BUNDLED_MODELS
from support.tiny_networks import tiny_depth_anything, tiny_dpt

# The one that works without torchvision has a name of its own since there are two.
PROCESSOR = getattr(transformers, 'DPTImageProcessorPil', None) or transformers.DPTImageProcessor

DPT_DINOV2 = {
    'do_normalize': True,
    'do_pad': True,
    'do_rescale': False,
    'do_resize': False,
    'ensure_multiple_of': 1,
    'image_mean': [123.675, 116.28, 103.53],
    'image_processor_type': 'DPTImageProcessor',
    'image_std': [58.395, 57.12, 57.375],
    'keep_aspect_ratio': False,
    'resample': 3,
    'rescale_factor': 1 / 255,
    'size': {'height': 384, 'width': 384},
    'size_divisor': 14,
}
DEPTH_ANYTHING = {
    'do_normalize': True,
    'do_pad': False,
    'do_rescale': True,
    'do_resize': True,
    'ensure_multiple_of': 14,
    'image_mean': [0.485, 0.456, 0.406],
    'image_processor_type': 'DPTImageProcessor',
    'image_std': [0.229, 0.224, 0.225],
    'keep_aspect_ratio': True,
    'resample': 3,
    'rescale_factor': 1 / 255,
    'size': {'height': 518, 'width': 518},
    'size_divisor': None,
}
FAMILIES = {
    'facebook/dpt-dinov2-*-nyu and -kitti': (tiny_dpt, DPT_DINOV2),
    'Depth Anything V1 and V2': (tiny_depth_anything, DEPTH_ANYTHING),
    'sides of two sizes': (
        tiny_depth_anything,
        DEPTH_ANYTHING | {'size': {'height': 392, 'width': 518}},
    ),
    'resized bilinearly': (tiny_dpt, DEPTH_ANYTHING | {'resample': 2}),
}


@pytest.fixture(params=[*FAMILIES, 'saved with a height of its own', 'smoothdino-small'])
def loaded(request, tmp_path):
    """A model as it is loaded, and what its directory asks of transformers."""
    directory = tmp_path
    if request.param == 'smoothdino-small':
        directory = BUNDLED_MODELS['smoothdino-small']
    elif request.param in FAMILIES:
        make, asked = FAMILIES[request.param]
        save_model(SmoothDino(DepthBackbone(make())), directory)
        (directory / 'preprocessor_config.json').write_text(json.dumps(asked))
    else:
        save_model(SmoothDino(DepthBackbone(tiny_dpt(), input_height=224)), directory)
    settings = json.loads((directory / 'preprocessor_config.json').read_text())
    return load_model(directory, adapter='none').backbone, PROCESSOR.from_dict(settings)


def librarys_size(processor, height: int, width: int) -> tuple[int, ...]:
    if not processor.do_resize:
        return tuple(-(-side // processor.size_divisor) * 14 for side in (height, width))
    rule = sys.modules[type(processor).__module__].get_resize_output_image_size
    size = rule(
        np.empty((3, height, width)),
        output_size=(processor.size['height'], processor.size['width']),
        keep_aspect_ratio=processor.keep_aspect_ratio,
        multiple=processor.ensure_multiple_of,
    )
    return tuple(size) if isinstance(size, tuple) else (size.height, size.width)


def test_pictures_of_all_sizes_are_seen_at_the_librarys_size(loaded):
    backbone, processor = loaded
    sides = [*range(120, 2200, 97), 240, 320, 360, 424, 480, 518, 640, 720, 1080, 1280, 1920]
    for height in sides:
        for width in sides:
            expected = librarys_size(processor, height, width)
            if 0 not in expected:  # of a strip it would leave nothing
                assert backbone.seen_size(height, width) == expected, (height, width)


@pytest.mark.parametrize(
    ('size', 'seen'),
    [
        ((360, 640), (294, 518)),
        ((480, 640), (518, 686)),
        ((640, 360), (518, 294)),
        ((240, 320), (392, 518)),
        ((240, 424), (294, 518)),
        ((1080, 1920), (518, 924)),
        ((1920, 1080), (924, 518)),
    ],
)
def test_the_side_that_is_nearer_to_depth_anythings_518_gets_it(tmp_path, size, seen):
    save_model(SmoothDino(DepthBackbone(tiny_depth_anything())), tmp_path)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(DEPTH_ANYTHING))
    assert load_model(tmp_path).backbone.seen_size(*size) == seen


@pytest.mark.parametrize('size', [(90, 160), (160, 90), (600, 400)])
def test_the_network_sees_the_librarys_pixels(loaded, size):
    """To the rounding of its pictures, which are bytes after each of two passes."""
    backbone, processor = loaded
    rgb = np.random.default_rng(0).integers(90, 166, (*size, 3), dtype=np.uint8)
    expected = processor(rgb, return_tensors='pt', input_data_format='channels_last').pixel_values
    came = backbone.preprocess(torch.from_numpy(rgb)[None]).pixels
    assert came.shape == expected.shape
    assert ((came - expected).abs() * backbone.std).max() < 2  # levels of 255
    assert ((came - expected).abs() * backbone.std).mean() < 0.5


def test_a_height_that_is_asked_for_is_the_height_of_any_picture(tmp_path):
    save_model(SmoothDino(DepthBackbone(tiny_depth_anything())), tmp_path)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(DEPTH_ANYTHING))
    backbone = load_model(tmp_path, input_height=224).backbone
    for size, seen in (((360, 640), (224, 392)), ((640, 360), (224, 126)), ((60, 80), (224, 294))):
        assert backbone.seen_size(*size) == seen


def test_padding_without_a_size_is_to_whole_patches(tmp_path):
    """A network can take no other."""
    save_model(SmoothDino(DepthBackbone(tiny_dpt())), tmp_path)
    for change in ({'size_divisor': None}, {'size_divisibility': 14, 'size_divisor': None}):
        (tmp_path / 'preprocessor_config.json').write_text(json.dumps(DPT_DINOV2 | change))
        assert load_model(tmp_path).backbone.seen_size(480, 640) == (490, 644)
