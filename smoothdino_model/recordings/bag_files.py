# SPDX-License-Identifier: Apache-2.0
"""The files of a bag: which topics they hold, and their messages as bytes, in order of receipt.

Only what is asked for is looked at, so that messages of other kinds, whatever they are, cost
nothing: no definition of a message is parsed.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import quote

import yaml
from rosbags.rosbag1 import Reader

from smoothdino_model.recordings.frames import RecordingError
from smoothdino_model.recordings.mcap_file import Channel, McapFile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD = b'\x28\xb5\x2f\xfd'  # what its data begin with, and no message of ROS


class BagFile(Protocol):
    """One file of a bag; ``cut`` says in words what of it cannot be read."""

    channels: list[Channel]
    cut: str

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Channel, int, bytes]]: ...


class BagFiles:
    """All files of a bag: a ROS 1 .bag, one .mcap or .db3, or the folder of a rosbag2.

    ``declared`` are the messages by topic that metadata.yaml counts, none where there is none.
    Raises RecordingError, in words.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()
        self._decompress: Callable[[bytes], bytes] | None = None  # each message
        self.declared = Counter[str]()
        self._unnamed: list[str] = []  # files that the metadata does not know
        self.is_ros1 = path.suffix.lower() == '.bag'
        try:
            self._files = self._opened()
        except BaseException:
            self.close()
            raise
        cut = [file.cut for file in self._files if file.cut]
        if self._unnamed:
            cut.append(
                f'{path} holds {", ".join(self._unnamed)}, of which its metadata.yaml does not '
                'know and which is not read (ros2 bag reindex tells it)'
            )
        self.cut = '; '.join(cut)

    @property
    def channels(self) -> list[Channel]:
        """What the files hold, with the messages of all of them."""
        counts = Counter[Channel]()
        for channel in (channel for file in self._files for channel in file.channels):
            counts[replace(channel, count=0)] += channel.count
        return [replace(channel, count=count) for channel, count in counts.items()]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Channel, int, bytes]]:
        """The messages of some topics with their times of receipt in ns, file by file."""
        for file in self._files:
            for channel, received_ns, data in file.messages(topics):
                if self._decompress is not None:
                    data = self._decompress(data)
                elif data[:4] == _ZSTD:
                    raise RecordingError(
                        f'the messages in {self._path} are compressed, as the metadata.yaml of '
                        'its bag says: give the folder of the bag, in place of one file of it'
                    )
                yield channel, received_ns, data

    def close(self) -> None:
        self._stack.close()

    def _opened(self) -> list[BagFile]:
        if self.is_ros1:
            return [_Ros1File(self._stack.enter_context(Reader(self._path)))]
        if self._path.is_file():
            return [_file(self._path)]
        metadata = _metadata(self._path / 'metadata.yaml')
        paths = [self._path / PurePath(name).name for name in metadata['relative_file_paths']]
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            raise RecordingError(f'expected all files of {self._path}, without {missing}')
        # One that is there compressed as well was unpacked to be played.
        self._unnamed = sorted(
            path.name
            for path in self._path.iterdir()
            if path.suffix in ('.mcap', '.db3')
            and {path, path.with_name(f'{path.name}.zstd')}.isdisjoint(paths)
        )
        for one in metadata['topics_with_message_count']:
            self.declared[one['topic_metadata']['name']] += one['message_count']
        mode = (metadata.get('compression_mode') or 'none').lower()
        if mode != 'none' and metadata.get('compression_format') != 'zstd':
            raise RecordingError(
                f'expected a bag compressed by zstd, got {metadata.get("compression_format")!r} '
                f'in {self._path}'
            )
        if mode == 'message':
            self._decompress = zstd.decompress
        if mode == 'file':
            place = Path(self._stack.enter_context(TemporaryDirectory()))
            paths = [_decompressed(path, place / path.stem) for path in paths]
        return [_file(path) for path in paths]


def _metadata(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        return content['rosbag2_bagfile_information']
    except (yaml.YAMLError, ValueError, LookupError, TypeError) as error:
        raise RecordingError(f'{path} cannot be read as metadata of a rosbag2: {error}') from error


def _decompressed(path: Path, place: Path) -> Path:
    with zstd.open(path, 'rb') as source, place.open('wb') as file:
        shutil.copyfileobj(source, file)
    return place


def _file(path: Path) -> BagFile:
    if path.suffix.lower() == '.mcap':
        return McapFile(path)
    if path.suffix.lower() == '.db3':
        return _Sqlite3File(path)
    raise RecordingError(f'expected files of a bag that end in .mcap or .db3, got {path}')


class _Sqlite3File:
    """What rosbag2_storage_sqlite3 writes: two tables, whatever the version of the others."""

    cut = ''

    def __init__(self, path: Path) -> None:
        # Without its journal, where a recorder was killed, the last messages would not be seen.
        settled = '' if path.with_name(f'{path.name}-wal').exists() else '&immutable=1'
        self._uri = f'file:{quote(str(path))}?mode=ro{settled}'
        with contextlib.closing(self._database()) as database:
            self._of = {
                row[0]: Channel(*row[1:])
                for row in database.execute(
                    'SELECT id, name, type, serialization_format, (SELECT count(*) FROM messages '
                    'WHERE topic_id = topics.id) FROM topics'
                )
            }
        self.channels = list(self._of.values())

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self._uri, uri=True, check_same_thread=False)

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Channel, int, bytes]]:
        ids = [i for i, channel in self._of.items() if channel.topic in topics]
        with contextlib.closing(self._database()) as database:
            for i, received_ns, data in database.execute(
                'SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN '
                f'({",".join("?" * len(ids))}) ORDER BY timestamp',
                ids,
            ):
                yield self._of[i], received_ns, data


class _Ros1File:
    """A .bag of ROS 1, as rosbags reads it."""

    cut = ''

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._of = {
            c.id: Channel(c.topic, c.msgtype, 'ros1', c.msgcount) for c in reader.connections
        }
        self.channels = list(self._of.values())

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Channel, int, bytes]]:
        wanted = [c for c in self._reader.connections if c.topic in topics]
        if wanted:  # of none, rosbags takes all
            for connection, received_ns, data in self._reader.messages(wanted):
                yield self._of[connection.id], received_ns, data
