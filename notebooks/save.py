# SPDX-License-Identifier: Apache-2.0
"""Run the notebooks and save them with their pictures: ``python notebooks/save.py``.

The pictures are the bundled model's, so this follows every change of it.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

FOLDER = Path(__file__).parent
FORMAT = 4


def executed(path: Path) -> NotebookNode:
    """Run a notebook in its folder, with this Python. Raises ``CellExecutionError``."""
    notebook = nbformat.read(path, FORMAT)
    # Times would make two runs differ that show the same.
    client = NotebookClient(
        notebook,
        timeout=None,
        startup_timeout=300,
        record_timing=False,
        resources={'metadata': {'path': str(path.parent)}},
    )
    client.execute()
    notebook.metadata.language_info = {'name': 'python'}  # not which version it was here
    return notebook


def main() -> None:
    for path in tqdm(sorted(FOLDER.glob('*.ipynb')), unit='notebook'):
        nbformat.write(executed(path), path)


if __name__ == '__main__':
    main()
