# SPDX-License-Identifier: Apache-2.0
"""A view of a room that stands still, played to a node, and what comes back of depth and scale."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Vector3Stamped
from sensor_msgs.msg import Image

from smoothdino_model.recordings.frames import Frame
from smoothdino_model.room.sample_room import NYU_FOCAL, SampleRoom
from smoothdino_model.weights.floor_looks import FLOOR_LOOKS
from smoothdino_model.weights.hub import BUNDLED_MODELS
from support.ros_processes import Observer, Process, depth_m, depth_node

SEED, MOMENT = (
    1_000_007,
    40,
)  # a view with floor, of which the bundled model sees depth half as far
WIDTH, HEIGHT = 160, 120
FOCAL_PX = 1.5 * NYU_FOCAL * WIDTH
PERIOD_NS = 300_000_000
FRAMES = 24  # three seconds of doubt, and steps of a tenth


def still_view() -> Frame:
    """A frame of a room, seen with a lens of which the network is not told."""
    room = SampleRoom(SEED, height=HEIGHT, width=WIDTH, focal_px=FOCAL_PX, rate_hz=5)
    return room.frame(MOMENT)


def anchored_node(log: Path, **settings) -> AbstractContextManager[Process]:
    """The node with the bundled model, which knows of no focal length."""
    settings = {
        'model': 'smoothdino-small',
        'max_depth_m': 1000.0,
        'focal_correction': False,
        'qos_overrides./image.subscription.reliability': 'reliable',
        'diagnostics_period_s': 0.2,
        **settings,
    }
    words = [word for name, value in settings.items() for word in ('-p', f'{name}:={value}')]
    return depth_node(log, *words)


def without_looks(folder: Path) -> Path:
    """The bundled model, which does not know what looks like floor."""
    shutil.copytree(
        *(BUNDLED_MODELS['smoothdino-small'], folder), ignore=shutil.ignore_patterns(FLOOR_LOOKS)
    )
    return folder


def log_error(image: Image, view: Frame) -> float:
    return float(np.median(np.log(depth_m(image) / view.depth_m)))


class StillRoom(Observer):
    """Plays the view on and on, and sees depth, its scale and what is told of the camera."""

    info_readers = 1  # of the camera's camera_info, which is new in each play: the node

    def __init__(self, view: Frame, folder: Path) -> None:
        super().__init__()
        self.scales: list[Vector3Stamped] = []
        self.node.create_subscription(Vector3Stamped, 'depth/scale', self.scales.append, 50)
        self.stamp_ns = 10**9
        self._folder, self._frames = folder, folder / 'still.npy'
        np.save(self._frames, np.stack([view.rgb] * FRAMES))

    def play_on(self) -> None:
        self.scales.clear()
        start = ('--start-ns', str(self.stamp_ns), '--period-ns', str(PERIOD_NS))
        log = self._folder / f'camera_{self.stamp_ns}'
        readers = ('--info-readers', str(self.info_readers))
        self.play(log, str(self._frames), '--focal-px', str(FOCAL_PX), *start, *readers)
        self.stamp_ns += FRAMES * PERIOD_NS

    def camera(self) -> DiagnosticStatus:
        self.diagnostics.clear()
        assert self.wait_for(lambda: self.diagnostics)
        (one,) = [s for s in self.diagnostics[-1].status if s.name == 'depth: camera']
        return one

    def values(self) -> dict[str, str]:
        return {one.key: one.value for one in self.camera().values}
