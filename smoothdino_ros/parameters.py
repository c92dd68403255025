# SPDX-License-Identifier: Apache-2.0
"""The parameters of the node: one frozen dataclass that describes and checks itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from smoothdino_model.engines.names import ENGINES, PRECISIONS
from smoothdino_model.scale.sensors import MESSAGES, Mounting, anchor_names, pose_in_words
from smoothdino_ros.parameter_field import check_within, parameter, typed, wrong

IMAGE_TRANSPORTS = ('raw', 'compressed')
DEPTH_ENCODINGS = ('32FC1', '16UC1')
COMPRESSED_DEPTH_FORMATS = ('png', 'rvl')

_LONGEST_16UC1_M = 65.535  # the last millimetre that 16 bits hold


# Why a parameter cannot change while the node is configured.
_NETWORK = 'because the network is loaded by it'
_TOPICS = 'because the topics are made by it'
_HELD = 'because what is white is held from the first image on'
_START = 'because it says what happens at the start'


@dataclass(frozen=True)
class NodeParameters:
    """Checked values of every parameter. Raises ValueError, one sentence, on a wrong one."""

    model: str = parameter(
        'facebook/dpt-dinov2-small-nyu',
        'Depth model: a Hugging Face id, a directory, or smoothdino-small (the bundled one).',
        fixed=_NETWORK,
    )
    adapter: str = parameter(
        '',
        'Temporal adapter: a directory, a file, a published .pth, or none; '
        'empty takes the one that lies with the model.',
        fixed=_NETWORK,
    )
    memory: int = parameter(
        2,
        'Past frames whose features depth is steadied over where no adapter is: 0 (none) to 16.',
        within=(0, 16),
        fixed=_NETWORK,
    )
    engine: str = parameter(
        'auto',
        'What runs the network: auto, torch, openvino, onnxruntime or onnxruntime:tensorrt; auto '
        'takes openvino on an x86 CPU where it is installed, else torch.',
        fixed=_NETWORK,
    )
    device: str = parameter(
        'auto',
        'Where the network runs: auto (cuda where there is one, else cpu), cpu, cuda, '
        'cuda:<index> or mps.',
        fixed=_NETWORK,
    )
    precision: str = parameter(
        'auto',
        'Arithmetic of the network: auto, fp32, bf16 or fp16; auto suits the device.',
        fixed=_NETWORK,
    )
    threads: int = parameter(
        0,
        'Threads of the network on the CPU: 0 (as many as the cores that the process may use) '
        'or 1 to 256.',
        within=(0, 256),
        fixed=_NETWORK,
    )
    input_height: int = parameter(
        0,
        'Height in pixels at which the network sees the image: 0 (what the checkpoint asks for, '
        "else the camera's own) or 14 to 4320.",
        within=(0, 4320),
        fixed=_NETWORK,
    )
    cameras: tuple[str, ...] = parameter(
        (),
        'Names of the cameras, each a prefix of its topics (front/image, front/depth/image, ...); '
        'empty means one camera without a prefix.',
        fixed=_TOPICS,
    )
    image_transport: str = parameter(
        'raw',
        'raw (Image on image) or compressed (CompressedImage on image/compressed).',
        fixed=_TOPICS,
    )
    bit_depth: int = parameter(
        0,
        'Bits of the camera in 16-bit images, the most of which is white: 0 (the fewest of 8, 10, '
        '12, 14 and 16 that hold the brightest pixel so far) or 8 to 16.',
        within=(0, 16),
        fixed=_HELD,
    )
    depth_encoding: str = parameter(
        '32FC1',
        '32FC1 (metres; NaN invalid, -Inf too close, +Inf too far) or '
        '16UC1 (millimetres, 0 for all of these).',
    )
    compressed_depth_format: str = parameter(
        'png', 'How depth/image/compressedDepth is packed: png or rvl.'
    )
    compressed_depth_png_level: int = parameter(
        1, 'Level of png in depth/image/compressedDepth: 0 (fast) to 9 (small).', within=(0, 9)
    )
    min_depth_m: float = parameter(
        0.1,
        'Depth in metres below which a pixel counts as too close: 0 to 1000.',
        within=(0.0, 1000.0),
    )
    max_depth_m: float = parameter(
        10.0,
        'Depth in metres beyond which a pixel counts as too far: more than min_depth_m; '
        'at most 1000, with 16UC1 65.535.',
        within=(0.0, 1000.0),
    )
    focal_correction: bool = parameter(
        True,
        'Whether depth is scaled by the focal length of the camera (its camera_info) over that of '
        'the camera which the model was trained with.',
    )
    scale_anchor: str = parameter(
        'none',
        'What else tells the scale of depth: none, floor (the height and tilt of the camera are '
        'known), scan (LaserScan), range (Range), points (PointCloud2), odometry (Odometry), or '
        'several joined by +.',
        fixed=_TOPICS,
    )
    camera_height_m: float = parameter(
        0.0,
        'Metres from the floor to the middle of the lens: 0 (not known) or 0.02 to 100.',
        within=(0.0, 100.0),
    )
    camera_pitch_deg: float = parameter(
        0.0, 'Degrees by which the camera looks down: -90 to 90.', within=(-90.0, 90.0)
    )
    camera_roll_deg: float = parameter(
        0.0, 'Degrees by which the camera leans to its right: -90 to 90.', within=(-90.0, 90.0)
    )
    base_frame: str = parameter(
        '',
        'Frame on the floor with z up (base_footprint), from which TF tells the tilt of the '
        'camera and, where camera_height_m is 0, its height; empty takes the numbers above.',
    )
    tilt_by_imu: bool = parameter(
        False,
        'Whether the topic imu (Imu) tells which way is down, in place of camera_pitch_deg and '
        'camera_roll_deg; it needs camera_height_m, and no base_frame.',
        fixed=_TOPICS,
    )
    scan_pose: str = parameter(
        '',
        'Where the sensor of scan is: x y z in metres and roll pitch yaw in degrees, ahead, left '
        'and up from the camera; empty asks TF.',
    )
    range_pose: str = parameter('', 'Where the sensor of range is, as scan_pose.')
    points_pose: str = parameter('', 'Where the sensor of points is, as scan_pose.')
    odometry_pose: str = parameter('', 'Where the child frame of odometry is, as scan_pose.')
    imu_pose: str = parameter('', 'Where the imu is, as scan_pose; its angles alone count.')
    scale_min: float = parameter(
        0.25, 'The least that an anchor may multiply depth by: 0.01 to 1.', within=(0.01, 1.0)
    )
    scale_max: float = parameter(
        4.0, 'The most that an anchor may multiply depth by: 1 to 100.', within=(1.0, 100.0)
    )
    scale_warn: float = parameter(
        1.5,
        'The factor by which an anchor may contradict the network before a warning: 0 (none is '
        'given) or 1.01 to 100.',
        within=(0.0, 100.0),
    )
    publish_points: bool = parameter(
        True, 'Whether depth/points is published to those who subscribe to it.'
    )
    points_stride: int = parameter(
        1, 'Every how many-th row and column of pixels becomes points: 1 to 64.', within=(1, 64)
    )
    points_max_range_m: float = parameter(
        0.0,
        'Distance in metres from the camera up to which there are points: 0 (no limit) to 1000.',
        within=(0.0, 1000.0),
    )
    points_voxel_m: float = parameter(
        0.0,
        'Edge in metres of the cubes in each of which one point is kept: 0 (all points are) or '
        '0.01 to 10.',
        within=(0.0, 10.0),
    )
    publish_color: bool = parameter(
        True, 'Whether depth/image_color is published to those who subscribe to it.'
    )
    max_rate_hz: float = parameter(
        0.0,
        'Most frames per second taken from each camera: 0 (no limit) to 1000; '
        'frames that come sooner are dropped.',
        within=(0.0, 1000.0),
    )
    max_latency_s: float = parameter(
        0.0,
        'Longest time in seconds from the receipt of an image to its depth: 0 (no limit) to 60; '
        'what would come later is dropped and counted as overdue.',
        within=(0.0, 60.0),
    )
    unsubscribe_after_s: float = parameter(
        10.0,
        'Seconds without a subscriber to any output after which the images of a camera are no '
        'longer subscribed to, until there is one again: 0 (never) to 3600.',
        within=(0.0, 3600.0),
    )
    temporal: bool = parameter(
        True,
        'Whether the previous frames help (true) or each frame stands alone (false).',
        fixed=_NETWORK,
    )
    max_gap_s: float = parameter(
        1.0,
        'Longest time in seconds between two frames, as they arrive, over which the previous '
        'ones are still of use: 0.001 to 600.',
        within=(0.001, 600.0),
    )
    diagnostics_period_s: float = parameter(
        1.0,
        'Seconds from one message on /diagnostics to the next: 0.1 to 60.',
        within=(0.1, 60.0),
    )
    autostart: bool = parameter(
        True, 'Whether the node configures and activates itself when it starts.', fixed=_START
    )

    def __post_init__(self) -> None:
        _check(self, 'model', bool(self.model.strip()), 'an id, a directory or smoothdino-small')
        _check(self, 'device', bool(self.device.strip()), 'auto, cpu, cuda, cuda:<index> or mps')
        _check_choice(self, 'engine', ENGINES)
        _check_choice(self, 'precision', ('auto', *PRECISIONS))
        _check_choice(self, 'image_transport', IMAGE_TRANSPORTS)
        _check_choice(self, 'depth_encoding', DEPTH_ENCODINGS)
        _check_choice(self, 'compressed_depth_format', COMPRESSED_DEPTH_FORMATS)
        _check(self, 'bit_depth', self.bit_depth in (0, *range(8, 17)), '0 or 8 to 16')
        height = self.input_height
        _check(self, 'input_height', height == 0 or 14 <= height <= 4320, '0 or 14 to 4320')
        names = self.cameras
        _check(
            self,
            'cameras',
            all(re.fullmatch(r'[A-Za-z][A-Za-z0-9_]*', name) for name in names)
            and len(set(names)) == len(names),
            'different names of letters, digits and underscores, each starting with a letter',
        )
        for f in fields(self):
            check_within(f, getattr(self, f.name))
        limit = _LONGEST_16UC1_M if self.depth_encoding == '16UC1' else math.inf
        _check(
            self,
            'max_depth_m',
            self.min_depth_m < self.max_depth_m <= limit,
            f'more than min_depth_m ({self.min_depth_m:g})'
            + (f' and at most {limit:g} with 16UC1' if limit < math.inf else ''),
        )
        edge_m = self.points_voxel_m
        _check(self, 'points_voxel_m', edge_m == 0 or edge_m >= 0.01, '0 or 0.01 to 10')
        _check(
            self, 'scale_warn', self.scale_warn == 0 or self.scale_warn >= 1.01, '0 or 1.01 to 100'
        )
        self._check_anchors()

    def _check_anchors(self) -> None:
        _check_words(self, 'scale_anchor', anchor_names)
        for name in MESSAGES:
            _check_words(self, f'{name}_pose', pose_in_words)
        anchors, height_m = self.anchors, self.camera_height_m
        words = 'false where base_frame is given, from which TF tells the tilt'
        _check(self, 'tilt_by_imu', not (self.tilt_by_imu and self.base_frame), words)
        words = '0.02 to 100, the metres from the floor to the middle of the lens'
        if 'floor' in anchors:
            words += ', which the floor as scale_anchor needs without base_frame'
        needless = height_m == 0 and ('floor' not in anchors or bool(self.base_frame))
        _check(self, 'camera_height_m', needless or height_m >= 0.02, words)

    @property
    def anchors(self) -> tuple[str, ...]:
        """The names of what tells the scale besides the network."""
        return anchor_names(self.scale_anchor)

    @property
    def mounting(self) -> Mounting:
        """Where the camera and the sensors are that anchor its scale."""
        return Mounting(
            self.camera_height_m,
            self.camera_pitch_deg,
            self.camera_roll_deg,
            self.base_frame,
            self.tilt_by_imu,
            {name: pose_in_words(getattr(self, f'{name}_pose')) for name in MESSAGES},
        )

    @property
    def prefixes(self) -> dict[str, str]:
        """The prefix of the topics of each camera, by its name ('' where there is only one)."""
        return {name: f'{name}/' for name in self.cameras} or {'': ''}


FIELDS = {f.name: f for f in fields(NodeParameters)}


def from_values(values: Mapping[str, object]) -> NodeParameters:
    """The checked parameters; raises ValueError, one sentence, on a wrong type or range."""
    return NodeParameters(**{name: typed(f, values[name]) for name, f in FIELDS.items()})


def changed(current: NodeParameters, changes: Mapping[str, object]) -> NodeParameters:
    """The parameters with some values replaced, while the node is configured.

    Names that are not ours are ignored. Raises ValueError, one sentence, on a wrong value and on
    one that is fixed while the node is configured.
    """
    ours = {name: f for name, f in FIELDS.items() if name in changes}
    new = replace(current, **{name: typed(f, changes[name]) for name, f in ours.items()})
    for name, f in ours.items():
        if f.metadata['fixed'] and getattr(new, name) != getattr(current, name):
            raise ValueError(
                f'{name} is fixed while the node is configured, {f.metadata["fixed"]}: deactivate '
                f'and clean up the node, set {name}, then configure it again.'
            )
    return new


def _check(parameters: NodeParameters, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise wrong(name, getattr(parameters, name), expected)


def _check_choice(parameters: NodeParameters, name: str, choices: tuple[str, ...]) -> None:
    words = ', '.join(choices[:-1]) + f' or {choices[-1]}'
    _check(parameters, name, getattr(parameters, name) in choices, words)


def _check_words(
    parameters: NodeParameters, name: str, read: Callable[[str], tuple[object, ...]]
) -> None:
    try:
        read(getattr(parameters, name))
    except ValueError as error:
        raise ValueError(f'Parameter {name}: {error}.') from None
