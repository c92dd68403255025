# SPDX-License-Identifier: Apache-2.0
"""The network as an ONNX file, for ONNX Runtime and what runs beside or below it.

What a file takes and gives stands in its metadata, see :func:`export_onnx`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from smoothdino_model.engines.export_cache import cached
from smoothdino_model.engines.tensor_network import ExportError, TensorNetwork, quiet
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.whole_files import written_whole

FILE_NAME = 'model.onnx'
_OPSET = 20
_LARGEST_FILE = 1_900_000_000  # bytes of weights: one protobuf holds 2 GiB

_log = logging.getLogger(__name__)


def export_onnx(
    model: SmoothDino, output: str | Path, *, size: tuple[int, int], temporal: bool = True
) -> Path:
    """Write a network for frames of ``size``, (height, width), and give the path of the file.

    ``output`` is a ``.onnx`` file, or a folder in which it is called ``model.onnx``; it appears
    there when it is whole and has given what PyTorch gives. Weights of 2 GB and more need the
    folder: they are files beside it.

    Inputs: ``pixels`` (B, 3, h, w), what :meth:`DepthBackbone.preprocess` makes of the frames;
    with a memory also ``recalled_<i>`` (B, 1 + N, C) and ``count`` (B, 1 + N, 1), what
    :func:`recall` makes of the ``features_<i>`` of the last frames; with an adapter
    ``shift_patches`` (B, 2) and ``confidence`` (B,), how the image moved since the previous
    frame, and ``valid`` (B,), False at a first frame. Outputs: ``depth_m`` (B, H, W) at the
    frames' size, and ``features_<i>``, those of these frames. The batch is free, the size is not.

    Raises :class:`ExportError`.
    """
    output = Path(output)
    is_file = output.suffix == '.onnx'
    temporal = temporal and model.temporal
    network = TensorNetwork(model, size, temporal)
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    if is_file and weights > _LARGEST_FILE:
        raise ExportError(
            f'{output}: expected a folder, since the weights of {weights / 2**30:.1f} GiB are too '
            'large for one file; leave out .onnx'
        )
    if not is_file and output.is_dir() and any(output.iterdir()):
        raise ExportError(f'{output} is a folder with something in it: expected a new name')
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(output) as place:
        if not is_file:
            place.mkdir()
        path = place if is_file else place / FILE_NAME
        program = _exported(network)
        program.model.metadata_props.update(network.description())
        program.save(path, external_data=weights > _LARGEST_FILE)
        _check(network, path)
    return output if is_file else output / FILE_NAME


def cached_export(model: SmoothDino, *, size: tuple[int, int], temporal: bool) -> Path:
    """Give the exported network from the user's cache, where it is made if it is not there."""

    def write(folder: Path) -> None:
        export_onnx(model, folder, size=size, temporal=temporal)

    return cached(
        model,
        size=size,
        temporal=temporal,
        kind='onnx',
        file_name=FILE_NAME,
        made_with=(_OPSET,),
        write=write,
    )


def _exported(network: TensorNetwork) -> Any:
    inputs, outputs = network.names()
    example = network.example(batch=2)
    free = {0: torch.export.Dim('batch')}
    try:
        with quiet(), torch.no_grad():
            return torch.onnx.export(
                network,
                example,
                input_names=inputs,
                output_names=outputs,
                # For pixels, and for what *temporal takes.
                dynamic_shapes=(free, (free,) * (len(example) - 1))[: len(example)],
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise ExportError(
            f'the export needs onnx and onnxscript ({error}): pip install onnx onnxscript'
        ) from error


def _check(network: TensorNetwork, path: Path) -> None:
    """Compare what the file gives in ONNX Runtime, where that is installed, with PyTorch."""
    try:
        import onnxruntime
    except ImportError:
        _log.warning('%s was not checked: onnxruntime is not installed', path.name)
        return
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names, outputs = network.names()
    taken = {one.name for one in session.get_inputs()}
    for batch in (1, 2):
        example = network.example(batch)
        fed = zip(names, example, strict=True)
        came = session.run(outputs, {k: v.cpu().numpy() for k, v in fed if k in taken})
        network.check(example, came)
