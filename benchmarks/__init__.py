# SPDX-License-Identifier: Apache-2.0
"""What the software costs and how long it holds, measured: `python -m benchmarks.<name>`."""
