# SPDX-License-Identifier: Apache-2.0
"""The one door to recordings: a folder of images, a video file or a rosbag."""

from __future__ import annotations

from pathlib import Path

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.folders import PICTURES, FolderRecording
from smoothdino_model.recordings.frames import BAGS, Recording, RecordingError
from smoothdino_model.recordings.videos import VIDEOS, VideoRecording


def open_recording(
    path: str | Path,
    *,
    topic: str | None = None,
    info_topic: str | None = None,
    bit_depth: int = 0,
) -> Recording:
    """Open a folder of images, a video file or a rosbag (a ROS 2 directory or a single file).

    topic names the images in a bag; it may be left out where there is only one with colours.
    info_topic names their camera_info, by default the one beside them. bit_depth is that of the
    camera in 16-bit pictures, 8 to 16 bits; 0 finds it from the pictures.
    Raises RecordingError, in words, for anything else, ValueError on another bit_depth.
    """
    path = Path(path)
    BitDepth(bit_depth)  # before anything is opened
    suffix = path.suffix.lower()
    is_bag = suffix in BAGS if path.is_file() else (path / 'metadata.yaml').is_file()
    if not path.exists():
        raise RecordingError(f'expected a folder, a video or a rosbag, got {path}: no such file')
    if is_bag:
        from smoothdino_model.recordings.bags import (
            BagRecording,  # rosbags is loaded for bags only
        )

        return BagRecording(path, topic, info_topic, bit_depth=bit_depth)
    if suffix in ('.zstd', '.zst') and path.is_file():
        raise RecordingError(
            f'{path} is one file of a compressed bag: give the folder of the bag, or unpack it '
            f'first (zstd -d {path.name})'
        )
    if topic or info_topic:
        raise RecordingError(
            f'expected a rosbag to read the topic {topic or info_topic} from, got {path}'
        )
    if path.is_dir():
        return FolderRecording(path, bit_depth)
    if suffix in VIDEOS:
        return VideoRecording(path)
    advice = 'give its folder' if suffix in PICTURES else f'videos end in {", ".join(VIDEOS)}'
    raise RecordingError(
        f'expected a folder of images, a video or a rosbag ({", ".join(BAGS)}), '
        f'got {path}: {advice}'
    )
