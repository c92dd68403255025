# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with weights, in words."""


class CheckpointError(ValueError):
    """Weights that cannot be had or trusted; the message names the file and a way out."""
