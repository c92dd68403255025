# SPDX-License-Identifier: Apache-2.0
"""The path of the camera through a room: endless, smooth, clear of everything."""

from __future__ import annotations

import math

import numpy as np

from smoothdino_model.room.scene import GRID_M, Scene

CLEARANCE_M = 0.45  # of the camera from everything


class Wander:
    """A smooth random function of time: a sum of sinusoids, of about unit deviation."""

    def __init__(self, rng: np.random.Generator, low_hz=0.02, high_hz=0.3, count=6) -> None:
        self.rate = 2 * np.pi * np.exp(rng.uniform(math.log(low_hz), math.log(high_hz), count))
        self.phase = rng.uniform(0, 2 * np.pi, count)
        weight = (low_hz / self.rate) ** 0.8
        self.weight = weight * math.sqrt(2) / np.linalg.norm(weight)

    def __call__(self, t):
        """Values at the times t (any shape), in seconds."""
        return np.sin(np.multiply.outer(t, self.rate) + self.phase) @ self.weight


class Ride:
    """The camera's pose as a function of time, within a part of the room that is free."""

    def __init__(
        self,
        rng: np.random.Generator,
        scene: Scene,
        *,
        height_m: float | None = None,
        pitch_deg: float | None = None,
    ) -> None:
        clearance = scene.clearance()
        weight = np.clip(clearance - CLEARANCE_M, 0, None).ravel() ** 2
        if not weight.any():
            raise ValueError('no free space')
        spot = int(rng.choice(weight.size, p=weight / weight.sum()))
        self.center = (
            np.array([spot % clearance.shape[1], spot // clearance.shape[1]]) + 0.5
        ) * GRID_M
        reach = self._reach(clearance, CLEARANCE_M)
        padded = np.pad(reach, 8, mode='wrap')
        narrow = np.min([padded[k : k + 80] for k in range(9)], axis=0)  # +-4 bins, then mean
        self.reach = np.minimum(np.mean([narrow[k : k + 72] for k in range(9)], axis=0), 1.5)
        view = self._reach(scene.clearance(1.0), 0.1)
        interest = np.pad(np.clip(view - 0.8, 0, 5) ** 1.5, 12, mode='wrap')
        density = np.mean([interest[k : k + 72] for k in range(7, 18)], axis=0)
        density += 0.3 * density.mean() + 0.01  # the least interesting side is passed, not skipped
        cumulated = np.concatenate([[0.0], np.cumsum(density)])
        self.warp = cumulated / cumulated[-1] * 2 * np.pi
        self.x, self.y, self.yaw, self.z, self.tilt, self.roll = (Wander(rng) for _ in range(6))
        self.tremor = [Wander(rng, 0.8, 4.0) for _ in range(6)]
        self.shake = rng.uniform(0.1, 1.0)
        self.height, self.pitch = rng.uniform(1.2, 1.6), math.radians(rng.uniform(-18, -3))
        if height_m is not None:
            self.height = height_m
        if pitch_deg is not None:
            self.pitch = math.radians(-pitch_deg)
        self.lowest = min(0.6, 0.8 * self.height)
        self.turn, self.start = rng.uniform(0.8, 2.4), rng.uniform(0, 2 * np.pi)
        self.pace = self.spin = 1.0
        t = np.linspace(0, 60, 600)
        step, speed_m_s = t[1] - t[0], rng.uniform(0.1, 0.5)
        turn_rad_s = math.radians(rng.uniform(10, 40))
        for _ in range(4):  # what a minute holds depends on the pace
            speed = np.linalg.norm(np.diff(self._position(t), axis=0), axis=1) / step + 1e-3
            self.pace *= min(speed_m_s / speed.mean(), 1.2 / speed.max())
            rate = np.abs(np.diff(self._heading(t))) / step + 1e-3
            self.spin *= min(turn_rad_s / rate.mean(), math.radians(130) / rate.max())
            self.pace, self.spin = min(self.pace, 3.0), min(self.spin, 2.0)

    def _reach(self, clearance: np.ndarray, margin_m: float) -> np.ndarray:
        """How far one can go from the centre in 72 directions, in metres."""
        angle = np.arange(72)[:, None] * (2 * np.pi / 72)
        radius = np.arange(1, 200) * GRID_M
        x = ((self.center[0] + radius * np.cos(angle)) / GRID_M).astype(int)
        y = ((self.center[1] + radius * np.sin(angle)) / GRID_M).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < clearance.shape[1]) & (y < clearance.shape[0])
        good = np.zeros(x.shape, bool)
        good[inside] = clearance[y[inside], x[inside]] > margin_m
        return np.argmin(np.pad(good, ((0, 0), (0, 1))), axis=1) * GRID_M

    def _position(self, t):
        s = t * self.pace
        x, y = self.x(s), self.y(s)
        angle, radius = np.arctan2(y, x), np.hypot(x, y)
        bins = np.append(self.reach, self.reach[0])
        reach = np.interp(angle % (2 * np.pi), np.arange(73) * (2 * np.pi / 72), bins)
        far = 0.97 * reach * radius / np.sqrt(1 + radius**2)
        z = np.clip(self.height + 0.06 * self.z(s), self.lowest, 1.9)
        x, y = self.center[0] + far * np.cos(angle), self.center[1] + far * np.sin(angle)
        return np.stack([x, y, z], axis=-1)

    def _heading(self, t):
        """Yaw in radians, dwelling where the view is far."""
        free = self.start + self.turn * self.yaw(t * self.spin)
        turns = np.floor(free / (2 * np.pi))
        warped = np.interp(free - 2 * np.pi * turns, self.warp, np.arange(73) * (2 * np.pi / 72))
        return warped + 2 * np.pi * turns

    def pose(self, t: float) -> np.ndarray:
        """world_from_camera (4, 4) at time t in seconds."""
        jitter = np.array([w(t) for w in self.tremor]) * self.shake
        position = self._position(t) + 0.004 * jitter[:3]
        yaw = float(self._heading(t)) + 0.004 * jitter[3]
        pitch = self.pitch + 0.10 * self.tilt(t * min(self.spin, 1.5)) + 0.004 * jitter[4]
        roll = 0.03 * self.roll(t) + 0.004 * jitter[5]
        forward = np.array([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw),
                            math.sin(pitch)])  # fmt: skip
        right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        down = np.cross(forward, right)
        pose = np.eye(4)
        pose[:3, 0] = math.cos(roll) * right + math.sin(roll) * down
        pose[:3, 1] = math.cos(roll) * down - math.sin(roll) * right
        pose[:3, 2], pose[:3, 3] = forward, position
        return pose
