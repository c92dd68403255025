# SPDX-License-Identifier: Apache-2.0
"""The split network is the library's network, and its depth lies where the image lies."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import DPTConfig, DPTForDepthEstimation

from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import load_model
from smoothdino_model.weights.hub import BUNDLED_MODELS
from support.tiny_networks import tiny_depth_anything, tiny_dpt

SIZES = {
    'common': (480, 640),
    'portrait': (320, 240),
    'odd': (479, 641),
    'whole patches': (56, 84),
    'one patch': (14, 14),
    'less than a patch': (5, 9),
}


@pytest.fixture(scope='module', params=[tiny_dpt, tiny_depth_anything])
def network(request):
    return request.param()


def noise(height: int, width: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)


def by_the_library(network, rgb: torch.Tensor) -> torch.Tensor:
    """Pad to whole patches with the mean, run the library's forward, enlarge, crop."""
    height, width = rgb.shape[1:3]
    padded_size = (-(-height // 14) * 14, -(-width // 14) * 14)
    top, left = (padded_size[0] - height) // 2, (padded_size[1] - width) // 2
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    pixels = np.zeros((len(rgb), *padded_size, 3), np.float32)
    pixels[:, top : top + height, left : left + width] = (rgb.numpy() / 255 - mean) / std
    depth = network(torch.from_numpy(pixels).permute(0, 3, 1, 2)).predicted_depth
    depth = functional.interpolate(
        depth[:, None], padded_size, mode='bilinear', align_corners=False
    )[:, 0]
    return depth[:, top : top + height, left : left + width]


@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES.keys())
@torch.inference_mode()
def test_depth_is_the_librarys_on_the_padded_input(network, size):
    rgb = noise(*size)
    backbone = DepthBackbone(network)
    depth_m = backbone.decode(backbone.encode(rgb))
    expected = by_the_library(network, rgb)
    assert depth_m.shape == (1, *size)
    assert depth_m.dtype == torch.float32
    assert expected.max() > 0.1  # else zeros would be compared with zeros
    assert size == (14, 14) or size == (5, 9) or expected.std() > 0.01
    torch.testing.assert_close(depth_m, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@torch.inference_mode()
def test_the_bundled_model_is_the_librarys_too():
    directory = BUNDLED_MODELS['smoothdino-small']
    if not (directory / 'config.json').is_file():
        pytest.skip(f'no bundled model lies in {directory}')
    backbone = load_model('smoothdino-small', adapter='none').backbone
    plain = DepthBackbone(backbone.network)
    room = SampleRoom(3)
    rgb = torch.from_numpy(room.frame(0).rgb)[None]
    torch.testing.assert_close(plain(rgb), by_the_library(plain.network, rgb), atol=1e-4, rtol=0)
    height = backbone.input_height  # a frame that is not resampled
    small = torch.from_numpy(SampleRoom(3, height=height, width=154).frame(0).rgb)[None]
    torch.testing.assert_close(
        backbone(small), by_the_library(backbone.network, small), atol=1e-4, rtol=0
    )


@torch.inference_mode()
def test_common_frame_gives_35_by_46_patches_centred():
    features = DepthBackbone(tiny_dpt()).encode(noise(480, 640))
    assert features.grid == (35, 46)
    assert features.frame_size == (480, 640)
    at = features.content
    assert (at.top, at.left, at.height, at.width) == (5, 2, 480, 640)
    assert [tuple(level.shape) for level in features.levels] == [(1, 1 + 35 * 46, 24)] * 4


@torch.inference_mode()
def test_resized_input_keeps_the_shape_of_the_frame(network):
    backbone = DepthBackbone(network, input_height=224)
    network_input = backbone.preprocess(noise(480, 640))
    assert network_input.pixels.shape == (1, 3, 224, 294)  # 640 * 224 / 480 = 298.7, 21 patches
    assert backbone.encode_input(network_input).grid == (16, 21)
    assert backbone(noise(480, 640)).shape == (1, 480, 640)
    assert backbone.preprocess(noise(640, 480)).pixels.shape == (1, 3, 224, 168)
    # A frame of that size already is not resampled: the same depth as without resizing.
    same = noise(224, 294)
    torch.testing.assert_close(backbone(same), DepthBackbone(network)(same), atol=0, rtol=0)


def test_resizing_keeps_the_mean_grey():
    """Fine stripes become grey, not aliased stripes."""
    rgb = torch.zeros(1, 480, 640, 3, dtype=torch.uint8)
    rgb[:, :, ::2] = 255
    pixels = DepthBackbone(tiny_dpt(), input_height=112).preprocess(rgb).pixels
    assert pixels[:, 0].std() < 0.1


@torch.inference_mode()
def test_depth_at_another_size_is_asked_of_decode(network):
    backbone = DepthBackbone(network)
    features = backbone.encode(noise(98, 126))
    full, half = backbone.decode(features), backbone.decode(features, (49, 63))
    assert half.shape == (1, 49, 63)
    # A pixel of the half lies between four of the whole.
    assert (functional.avg_pool2d(full, 2) - half).abs().mean() < 0.1 * full.std()


@torch.inference_mode()
def test_grey_and_colour_go_the_same_way(network):
    backbone = DepthBackbone(network)
    grey = noise(70, 84)[..., :1].expand(-1, -1, -1, 3)
    depth_m = backbone(grey)
    assert torch.isfinite(depth_m).all()
    torch.testing.assert_close(depth_m, by_the_library(network, grey), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_frames_of_a_batch_do_not_mix(network):
    backbone = DepthBackbone(network)
    rgb = noise(75, 90, batch=3)
    together = backbone(rgb)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], backbone(rgb[i : i + 1]))


class PassThrough(nn.Module):
    """In place of neck and head: the map is the padded image, at the map's size of the library."""

    def __init__(self, backbone: DepthBackbone) -> None:
        super().__init__()
        self.pixels = torch.empty(0)
        encoder = backbone.network.backbone
        encoder.register_forward_pre_hook(lambda _, args: self._see(args[0]))
        backbone.network.neck = backbone.network.head = self

    def _see(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def forward(self, *_) -> torch.Tensor:
        rows, columns = self.pixels.shape[2] // 14, self.pixels.shape[3] // 14
        return functional.interpolate(
            self.pixels.mean(1, keepdim=True), (rows * 16, columns * 16), mode='bilinear'
        )[:, 0]


def step_image(axis: int, at: int) -> torch.Tensor:
    """White from row (axis 0) or column (axis 1) ``at`` on, black before."""
    rgb = torch.zeros(1, 480, 640, 3, dtype=torch.uint8)
    rgb.narrow(1 + axis, at, rgb.shape[1 + axis] - at).fill_(255)
    return rgb


def edge_position(depth: torch.Tensor, axis: int) -> float:
    """Where the map (H, W) rises through the middle of black and white, in pixels from the top."""
    profile = depth.median(dim=1 - axis).values.numpy()
    middle = (profile.min() + profile.max()) / 2
    after = int(np.flatnonzero(profile > middle)[0])
    before = after - 1
    fraction = (middle - profile[before]) / (profile[after] - profile[before])
    return before + fraction + 0.5  # pixel i reaches from i to i + 1


@pytest.mark.parametrize('input_height', [0, 224])
@pytest.mark.parametrize(('axis', 'at'), [(0, 12), (0, 240), (0, 467), (1, 9), (1, 320), (1, 633)])
@torch.inference_mode()
def test_a_step_edge_stays_at_its_pixel(axis, at, input_height):
    backbone = DepthBackbone(tiny_dpt(), input_height=input_height)
    PassThrough(backbone)
    depth = backbone(step_image(axis, at))[0]
    assert edge_position(depth, axis) == pytest.approx(at, abs=0.7)


@torch.inference_mode()
def test_a_squeezed_map_would_move_the_edge():
    """The measure of the test above sees it when padding is squeezed in instead of cut off."""
    backbone = DepthBackbone(tiny_dpt())
    pass_through = PassThrough(backbone)
    backbone(step_image(0, 12))
    squeezed = functional.interpolate(pass_through()[:, None], (480, 640), mode='bilinear')
    assert abs(edge_position(squeezed[0, 0], 0) - 12) > 4


@pytest.mark.parametrize('value', [123.0, -4.0])
@torch.inference_mode()
def test_nothing_is_clamped(value):
    network = tiny_dpt()
    layers = network.head.head
    layers[-1] = nn.Identity()  # the network's own ReLU
    layers[-2].weight.zero_()
    layers[-2].bias.fill_(value)
    depth_m = DepthBackbone(network)(noise(30, 40))
    torch.testing.assert_close(depth_m, torch.full((1, 30, 40), value))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_is_within_a_few_percent(dtype):
    network = tiny_dpt()
    rgb = torch.from_numpy(SampleRoom(0, height=120, width=160).frame(0).rgb)[None]
    whole = DepthBackbone(network)(rgb)
    half = DepthBackbone(network.to(dtype))
    depth_m = half(rgb)
    assert half.dtype == dtype
    assert depth_m.dtype == torch.float32
    assert (depth_m - whole).abs().mean() < 0.03 * whole.mean()
    assert (depth_m - whole).abs().max() > 0  # it did run in half precision


@pytest.mark.parametrize(
    'rgb',
    [
        torch.rand(1, 28, 28, 3),
        torch.zeros(1, 28, 28, 4, dtype=torch.uint8),
        torch.zeros(1, 3, 28, 28, dtype=torch.uint8),
        torch.zeros(28, 28, 3, dtype=torch.uint8),
        torch.zeros(1, 0, 28, 3, dtype=torch.uint8),
    ],
    ids=['float', 'four channels', 'channels first', 'no batch', 'empty'],
)
def test_other_than_rgb_uint8_is_refused(rgb):
    with pytest.raises(ValueError, match=r'expected RGB uint8 of shape \(B, H, W, 3\), got'):
        DepthBackbone(tiny_dpt()).encode(rgb)


def test_other_networks_are_refused():
    plain_vit = DPTConfig(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=1,
        intermediate_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    with pytest.raises(ValueError, match='expected a depth network on a DINOv2 encoder, got dpt'):
        DepthBackbone(DPTForDepthEstimation(plain_vit))
    with pytest.raises(ValueError, match=r'expected DPTForDepthEstimation or .*, got Linear'):
        DepthBackbone(nn.Linear(1, 1))
    with pytest.raises(ValueError, match='expected a metric Depth Anything model'):
        DepthBackbone(tiny_depth_anything(depth_estimation_type='relative'))


@pytest.mark.parametrize('input_height', [-1, 13])
def test_an_input_of_less_than_a_patch_is_refused(input_height):
    with pytest.raises(ValueError, match='input_height: expected 0'):
        DepthBackbone(tiny_dpt(), input_height=input_height)
    with pytest.raises(ValueError, match='input_width: expected at least 14 px'):
        DepthBackbone(tiny_dpt(), input_height=56, input_width=13)
