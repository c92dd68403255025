# SPDX-License-Identifier: Apache-2.0
"""The network of the node: imported when a model is wanted, and then loaded."""

from __future__ import annotations

import functools
import gc
from typing import TYPE_CHECKING

from smoothdino_model.engines.process import large_pages, sleep_while_waiting, use_threads
from smoothdino_ros.parameters import NodeParameters

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthPipeline


def load_pipeline(p: NodeParameters) -> DepthPipeline:
    """Raises what DepthPipeline.from_pretrained does."""
    pipeline = imported()
    use_threads(p.threads)
    return pipeline.from_pretrained(
        p.model,
        adapter=p.adapter or None,
        memory=p.memory,
        engine=p.engine,
        device=p.device,
        precision=p.precision,
        input_height=p.input_height,
        temporal=p.temporal,
        max_gap_s=p.max_gap_s,
    )


@functools.cache
def imported() -> type[DepthPipeline]:
    """Import PyTorch and transformers, which takes seconds: a node should be there at once.

    They make 3,000 modules, which stay. The garbage collector would look through them again and
    again meanwhile, a tenth of the time, and for a third of a second, while all threads wait, in
    each full round later.
    """
    sleep_while_waiting()
    large_pages()
    gc.disable()
    try:
        from smoothdino_model.pipeline import DepthPipeline
    finally:
        gc.freeze()
        gc.enable()
    return DepthPipeline
