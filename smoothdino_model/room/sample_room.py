# SPDX-License-Identifier: Apache-2.0
"""A procedural room: RGB, exact metric depth, pose and intrinsics of an endless camera ride.

A room is a list of planar quads and spheres in a shell of six planes, built once from its seed.
Seen from a pinhole, 1/z of a plane and the edges of a quad are linear in the pixel, so a frame
is a z-buffer over row spans; texture and light are then looked up once per pixel. World: metres,
z up, one corner of the floor at the origin. Camera: x right, y down, z forward.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from smoothdino_model.recordings.frames import Frame, Intrinsics
from smoothdino_model.room.ride import CLEARANCE_M, Ride, Wander
from smoothdino_model.room.scene import GRID_M, VOXELS, Scene, light_volume
from smoothdino_model.room.shading import albedo_of, light_at, lit_from
from smoothdino_model.room.shapes import cross
from smoothdino_model.room.textures import LEVELS, PAD, make_atlas

# Focal length over image width of NYUv2's Kinect: 518.86 px at 640. A number of the room's own:
# rooms know no network, and a test holds it to the camera that NYUv2's models were trained with.
NYU_FOCAL = 518.86 / 640


class SampleRoom:
    """An endless, reproducible recording of a room that does not exist.

    frame(i) depends on nothing but the arguments and i. Depth is exact at the frame's stamp, the
    middle of its exposure, along the optical axis, and sharp. The focal length in pixels, when
    not given, is 0.7 to 1.5 times that of a Kinect (518.86 px at 640 columns). `clean` leaves
    noise, blur and drift away. The camera is held at about `camera_height_m` over the floor,
    `camera_pitch_deg` down; when not given, 1.2 to 1.6 m, looking down a little.

    Raises ValueError for sizes outside 16 to 4096 pixels, and for a negative seed or frame.
    """

    def __init__(
        self,
        seed: int,
        *,
        height: int = 480,
        width: int = 640,
        focal_px: float | None = None,
        rate_hz: float = 30.0,
        clean: bool = False,
        camera_height_m: float | None = None,
        camera_pitch_deg: float | None = None,
    ) -> None:
        for name, value in (('height', height), ('width', width)):
            if not isinstance(value, (int, np.integer)) or not 16 <= value <= 4096:
                raise ValueError(
                    f'expected a {name} from 16 to 4096 pixels, got {value!r}; choose a whole '
                    f'number in that range'
                )
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f'expected a seed >= 0, got {seed!r}; choose a whole number')
        if focal_px is not None and not (math.isfinite(focal_px) and focal_px > 0):
            raise ValueError(
                f'expected focal_px > 0, got {focal_px!r}; leave it out for a random one'
            )
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise ValueError(f'expected rate_hz > 0, got {rate_hz!r}; 30 is usual')
        self.seed, self.rate_hz, self.clean = int(seed), float(rate_hz), clean
        for attempt in range(20):  # a room too full to move in is built anew
            rng = np.random.default_rng([self.seed, attempt])
            scene = Scene(rng)
            scene.shell()
            scene.hangings()
            scene.furnish()
            if np.count_nonzero(scene.clearance() > CLEARANCE_M + 0.1) * GRID_M**2 > 0.5:
                break
        self._scene = scene
        self._ride = Ride(rng, scene, height_m=camera_height_m, pitch_deg=camera_pitch_deg)
        self._atlas = make_atlas([self.seed, 99], scene.textures)
        random_focal = NYU_FOCAL * width * math.exp(rng.uniform(math.log(0.7), math.log(1.5)))
        focal = float(focal_px) if focal_px is not None else random_focal
        self.intrinsics = Intrinsics(
            focal, focal, (width - 1) / 2, (height - 1) / 2, int(width), int(height)
        )
        self._corners = np.concatenate(scene.corners)  # (N, 4, 3)
        self._surface = np.concatenate(scene.surface)  # (6 of the shell + N + spheres, 18)
        self._quad_rows = np.concatenate(scene.quad_rows)
        self._light(rng)
        self._photometry(rng)
        # pixel coordinates of the normalised image plane
        self._x = ((np.arange(width) - self.intrinsics.cx_px) / focal).astype(np.float32)
        self._y = ((np.arange(height) - self.intrinsics.cy_px) / focal).astype(np.float32)[:, None]
        radius = self._x**2 + self._y**2
        self._ray_length = np.sqrt(1 + radius)
        vignette = 1 - self._vignetting * radius / radius.max()
        self._vignette = np.repeat(vignette[..., None], 3, axis=2)

    def _light(self, rng: np.random.Generator) -> None:
        scene = self._scene
        warm = np.array([1.0, rng.uniform(0.75, 0.95), rng.uniform(0.5, 0.85)])
        cool = np.array([rng.uniform(0.8, 1.0), 0.95, 1.0])
        day = rng.uniform(0, 1)
        lamp = scene.lamps[int(rng.integers(len(scene.lamps)))]
        center, normal = scene.size * [0.5, 0.5, 0.95], np.array([0, 0, -1.0])
        if scene.windows:
            center, normal = scene.windows[int(rng.integers(len(scene.windows)))]
        self._ambient = (0.25 + 0.35 * rng.random()) * (day * cool + (1 - day) * warm)
        self._lamp, self._lamp_color = lamp, (1.2 - day) * rng.uniform(1.5, 5) * warm
        self._window, self._window_color = center + 0.1 * normal, day * rng.uniform(2, 7) * cool
        self._volume = light_volume(scene, lamp, self._window)
        self._glow = 0.3 + day

    def _photometry(self, rng: np.random.Generator) -> None:
        self._balance = 1 + rng.normal(0, 0.06, 3)
        self._drift = [Wander(rng, 0.02, 0.4) for _ in range(4)]
        self._read_noise, self._shot_noise = rng.uniform(0.001, 0.006), rng.uniform(0.0001, 0.0012)
        self._exposure_s = rng.uniform(0.004, 0.025)
        self._softness = rng.uniform(0.45, 0.8)
        self._vignetting = np.float32(rng.uniform(0.05, 0.35))
        level = np.linspace(0, 1.25, 4096)
        shoulder = level / (1 + np.clip(level - 0.6, 0, None) * 0.35)
        curve = np.clip(shoulder, 0, 1) ** (1 / rng.uniform(1.9, 2.3))
        contrast = rng.uniform(0, 0.35)
        curve += contrast * curve * (1 - curve) * (curve - 0.35)
        self._tone = np.clip(curve * 255 + 0.5, 0, 255).astype(np.uint8)

    def frame(self, i: int) -> Frame:
        """Frame i >= 0, at i / rate_hz seconds: rgb, depth_m, world_from_camera, intrinsics."""
        if not isinstance(i, (int, np.integer)) or i < 0:
            raise ValueError(f'expected a frame number >= 0, got {i!r}; frames are counted from 0')
        t = int(i) / self.rate_hz
        pose = self._ride.pose(t)
        inverse_z, surface, centers = self._rasterise(pose)
        z = 1 / inverse_z
        light = self._shade(pose, z, inverse_z, surface, centers)
        rgb = self._expose(light, t, int(i))
        stamp_ns = round(int(i) * 1e9 / self.rate_hz)
        return Frame(f'{self.seed}_{int(i):06d}', stamp_ns, rgb, self.intrinsics, z, pose)

    def _rasterise(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
        """1/z (H, W), surface row (H, W), and the spheres seen as {row: centre, camera frame}."""
        f, cx, cy = self.intrinsics.fx_px, self.intrinsics.cx_px, self.intrinsics.cy_px
        height, width = self.intrinsics.height, self.intrinsics.width
        rotation, camera = pose[:3, :3], pose[:3, 3]
        normal = self._surface[:, :3] @ rotation
        distance = self._surface[:, 17] - self._surface[:, :3] @ camera  # < 0: seen from the front
        plane = normal / np.where(distance == 0, -1e-9, distance)[:, None]
        plane32 = plane.astype(np.float32)
        inverse_z = np.full((height, width), -1, np.float32)
        surface = np.zeros((height, width), np.intp)
        for k in range(6):
            a, b, c = plane32[k]
            far = a * self._x + (b * self._y + c)
            # the shell is convex: the nearest of the planes in front of the camera is the wall
            np.copyto(surface, k, where=far > inverse_z)
            np.maximum(inverse_z, far, out=inverse_z)

        corners = (self._corners - camera) @ rotation  # (N, 4, 3)
        x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
        right, down = (width - cx) / f, (height - cy) / f
        seen = (distance[self._quad_rows] < -1e-6) & (z > 0).any(1)
        for lateral, half in ((x, right), (-x, right), (y, down), (-y, down)):
            seen &= (lateral < half * z).any(1)
        corners, rows = corners[seen], self._quad_rows[seen]
        edge = cross(np.roll(corners, -1, axis=1), corners)  # inside: edge . (x, y, 1) >= 0
        a, b = edge[..., 0] / f, edge[..., 1] / f
        a = np.where(np.abs(a) < 1e-12, 1e-12, a)
        c = edge[..., 2] - a * cx - b * cy
        bound = -(np.arange(height) * (b / a)[..., None] + (c / a)[..., None])  # (n, 4, H)
        low = np.where(a[..., None] > 0, bound, -1.0).max(1)
        high = np.where(a[..., None] < 0, bound, width + 1.0).min(1)
        first = np.ceil(np.clip(low - 1e-6, 0, width)).astype(np.int32)
        last = np.floor(np.clip(high + 1e-6, -1, width - 1)).astype(np.int32)
        filled = first <= last
        first_row, end_row = filled.argmax(1), height - filled[:, ::-1].argmax(1)
        left = np.where(filled, first, width).min(1, initial=width)
        end = np.where(filled, last, -1).max(1, initial=-1) + 1
        columns = np.arange(width, dtype=np.int32)
        for k in np.flatnonzero(filled.any(1)).tolist():
            ys, xs = slice(first_row[k], end_row[k]), slice(left[k], end[k])
            pa, pb, pc = plane32[rows[k]]
            near = pa * self._x[xs] + (pb * self._y[ys] + pc)
            buffer = inverse_z[ys, xs]
            mask = near > buffer
            mask &= columns[xs] >= first[k, ys, None]
            mask &= columns[xs] <= last[k, ys, None]
            np.copyto(buffer, near, where=mask)
            np.copyto(surface[ys, xs], rows[k], where=mask)

        centers = {}
        for center, radius, row in self._scene.spheres:
            p = (center - camera) @ rotation
            box = self._sphere_box(p, radius)
            if box is None:
                continue
            ys, xs = box
            along = (p[0] * self._x[xs] + (p[1] * self._y[ys] + p[2])).astype(np.float32)
            length = self._ray_length[ys, xs] ** 2
            inside = along * along - length * np.float32(p @ p - radius**2)
            near = length / np.maximum(along - np.sqrt(np.maximum(inside, 0)), 1e-6)
            buffer = inverse_z[ys, xs]
            mask = (inside > 0) & (along > 0) & (near > buffer)
            np.copyto(buffer, near, where=mask)
            np.copyto(surface[ys, xs], row, where=mask)
            if mask.any():
                centers[row] = center
        return inverse_z, surface, centers

    def _sphere_box(self, p: np.ndarray, radius: float) -> tuple[slice, slice] | None:
        """Rows and columns that a sphere at p in the camera frame can touch."""
        if p[2] < -radius:
            return None
        spans = []
        size = ((self.intrinsics.cy_px, self.intrinsics.height, p[1]),
                (self.intrinsics.cx_px, self.intrinsics.width, p[0]))  # fmt: skip
        for middle, count, lateral in size:
            if p[2] <= radius * 1.01:
                spans.append(slice(0, count))
                continue
            square = p[2] ** 2 - radius**2
            root = radius * math.sqrt(lateral**2 + square)
            ends = (
                np.array([-root, root]) + lateral * p[2]
            ) / square * self.intrinsics.fx_px + middle
            start, stop = max(0, math.floor(ends[0])), min(count, math.ceil(ends[1]) + 1)
            if start >= stop:
                return None
            spans.append(slice(start, stop))
        return spans[0], spans[1]

    def _shade(self, pose, z, inverse_z, surface, centers) -> np.ndarray:
        """Linear light (H, W, 3) float32 that reaches the lens from every pixel."""
        rotation, camera = pose[:3, :3].astype(np.float32), pose[:3, 3].astype(np.float32)
        table = np.ascontiguousarray(self._surface.T, np.float32)

        def per_pixel(row: np.ndarray) -> np.ndarray:
            return row.take(surface, mode='clip')

        world = [
            camera[k]
            + z * (rotation[k, 0] * self._x + (rotation[k, 1] * self._y + rotation[k, 2]))
            for k in range(3)
        ]
        normal = [per_pixel(table[k]) for k in range(3)]
        height = per_pixel((camera.astype(float) @ self._surface[:, :3].T
                            - self._surface[:, 17]).astype(np.float32))  # fmt: skip
        cosine = np.clip(height * inverse_z / self._ray_length, 0.05, 1)
        for row, center in centers.items():
            ys, xs = np.nonzero(surface == row)
            out = np.stack([world[k][ys, xs] - center[k] for k in range(3)])
            out /= np.linalg.norm(out, axis=0)
            for k in range(3):
                normal[k][ys, xs] = out[k]
            cosine[ys, xs] = 0.6

        # texture: the level whose texels are as large as the pixel's footprint, and the next
        u, v = (
            per_pixel(table[k]) * world[0] + per_pixel(table[k + 1]) * world[1]
            + per_pixel(table[k + 2]) * world[2] + per_pixel(table[k + 3]) for k in (3, 7)
        )  # fmt: skip
        u -= np.floor(u)
        v -= np.floor(v)
        footprint = per_pixel(table[16]) * z / np.sqrt(cosine)
        level = np.clip(
            np.log2(footprint) - np.float32(math.log2(self.intrinsics.fx_px)), 0, LEVELS - 1.01
        )
        albedo = albedo_of(self._atlas, u, v, level, per_pixel(table[15]) + np.float32(PAD - 0.5))

        # light: the volume is looked up a little off the surface
        cell = self._scene.size / VOXELS
        at = [
            np.clip((world[k] + np.float32(0.6 * cell[k]) * normal[k]) * np.float32(1 / cell[k])
                    - np.float32(0.5), 0, np.float32(VOXELS[k] - 1.001)) for k in range(3)
        ]  # fmt: skip
        ambient, lamp, window = light_at(self._volume, at)
        ambient *= 0.85 + 0.15 * normal[2]
        lamp *= lit_from(self._lamp, world, normal)
        window *= lit_from(self._window, world, normal)
        emission = per_pixel(table[14]) * np.float32(self._glow)
        channels = []
        for k in range(3):
            channel = ambient * np.float32(self._ambient[k]) + emission
            channel += lamp * np.float32(self._lamp_color[k])
            channel += window * np.float32(self._window_color[k])
            channel *= per_pixel(table[11 + k] ** 2)
            channels.append(channel)
        out = cv2.multiply(cv2.merge(channels), albedo)
        return out

    def _expose(self, light: np.ndarray, t: float, i: int) -> np.ndarray:
        """Lens, sensor and tone curve: linear light to uint8 RGB."""
        mean = float(np.minimum(light[::4, ::4], 1.0).mean())
        gain = (0.22 / max(mean, 0.01)) ** 0.75 * np.ones(3)
        if not self.clean:
            gain *= math.exp(0.12 * self._drift[0](t)) * self._balance
            gain *= 1 + 0.02 * np.array([w(t) for w in self._drift[1:]])
            light = cv2.filter2D(np.minimum(light, 4.0), -1, self._lens(t))
            light *= self._vignette
        light = cv2.transform(light, np.diag(gain))  # much faster than numpy's broadcast
        if not self.clean:
            noise = np.random.default_rng([self.seed, i, 1]).standard_normal(
                light.shape, dtype=np.float32
            )
            light += noise * np.sqrt(np.float32(self._shot_noise) * light + self._read_noise**2)
        light *= np.float32(4095 / 1.25)
        np.clip(light, 0, 4095, out=light)
        return self._tone.take(light.astype(np.intp), mode='clip')

    def _lens(self, t: float) -> np.ndarray:
        """The blur of one exposure: the camera's motion over it, and the lens' softness."""
        half = self._exposure_s / 2
        pose = self._ride.pose(t)
        point = pose[:3, 3] + 2.5 * pose[:3, 2]
        ends = []
        for moment in (t - half, t + half):
            other = self._ride.pose(moment)
            p = (point - other[:3, 3]) @ other[:3, :3]
            ends.append(self.intrinsics.fx_px * p[:2] / p[2])
        motion = ends[1] - ends[0]
        length = float(np.linalg.norm(motion))
        motion *= min(1.0, 8 / max(length, 1e-9))
        grid = np.arange(-6, 7)
        kernel = np.zeros((13, 13))
        for s in np.linspace(-0.5, 0.5, 25):
            x, y = motion * s
            kernel += np.outer(np.exp(-0.5 * ((grid - y) / self._softness) ** 2),
                               np.exp(-0.5 * ((grid - x) / self._softness) ** 2))  # fmt: skip
        kernel[kernel < 0.01 * kernel.max()] = 0
        used = np.flatnonzero(kernel.any(0) | kernel.any(1))
        reach = max(6 - used[0], used[-1] - 6)
        kernel = kernel[6 - reach : 7 + reach, 6 - reach : 7 + reach]
        return (kernel / kernel.sum()).astype(np.float32)
