# SPDX-License-Identifier: Apache-2.0
"""Clips and bags with depth, written for the tests."""

import json
import struct

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

PERIOD_NS = 40_000_000
START_NS = 1_700_000_000_000_000_000


def write_clip(folder, frames, *, focal_px=None):
    """Frames with .rgb and .depth_m as <i>_rgb.png and 16-bit <i>.png, counted from 1."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames, start=1):
        stored = np.round(1000 * frame.depth_m).astype(np.uint16)
        assert cv2.imwrite(str(folder / f'{i}_rgb.png'), frame.rgb[..., ::-1])
        assert cv2.imwrite(str(folder / f'{i}.png'), stored)
    if focal_px:
        height, width = frames[0].depth_m.shape
        camera = {'fx_px': focal_px, 'fy_px': focal_px, 'cx_px': width / 2, 'cy_px': height / 2}
        camera |= {'width': width, 'height': height}
        (folder / 'clip.json').write_text(json.dumps({'intrinsics': camera}))


def write_depth_bag(path, topics):
    """A bag of depth by topic: (maps in metres, nanoseconds that they come late, encoding).

    Encodings are those of Image, and '16UC1; compressedDepth rvl', which makes CompressedImages.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        messages = []
        for topic, (depths_m, late_ns, encoding) in topics.items():
            kind = 'CompressedImage' if ';' in encoding else 'Image'
            connection = writer.add_connection(topic, f'sensor_msgs/msg/{kind}', typestore=store)
            for i, depth_m in enumerate(depths_m):
                stamp_ns = START_NS + i * PERIOD_NS + late_ns
                time = types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
                header = types['std_msgs/msg/Header'](stamp=time, frame_id='optical')
                if encoding.startswith('16UC1'):
                    pixels = np.nan_to_num(np.round(1000 * depth_m)).astype(np.uint16)
                else:
                    pixels = depth_m.astype(np.float32)
                height, width = pixels.shape
                data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
                step = width * pixels.itemsize
                if kind == 'CompressedImage':
                    raw = bytes(12) + struct.pack('<II', width, height) + rvl(pixels)
                    values = (header, encoding, np.frombuffer(raw, np.uint8))
                else:
                    values = (header, height, width, encoding, 0, step, data)
                message = types[connection.msgtype](*values)
                messages.append((stamp_ns, connection, message))
        for stamp_ns, connection, message in sorted(messages, key=lambda entry: entry[0]):
            writer.write(connection, stamp_ns, store.serialize_cdr(message, connection.msgtype))
    return path


def rvl(stored):
    """(H, W) uint16 in RVL, pixel by pixel as its author's CompressRVL writes it."""
    nibbles: list[int] = []

    def write(value):
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | 8 if value else nibble)
            if not value:
                return

    pixels, at, previous = stored.ravel().tolist(), 0, 0
    while at < len(pixels):
        start = at
        while at < len(pixels) and not pixels[at]:
            at += 1
        write(at - start)
        start = at
        while at < len(pixels) and pixels[at]:
            at += 1
        write(at - start)
        for value in pixels[start:at]:
            difference, previous = value - previous, value
            write((difference << 1) ^ (difference >> 31))
    nibbles += [0] * (-len(nibbles) % 8)
    words = (
        int(''.join(f'{n:x}' for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)
    )
    return b''.join(struct.pack('<I', word) for word in words)
