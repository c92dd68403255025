# SPDX-License-Identifier: Apache-2.0
"""A procedural room with exact depth, for the demo, the tests and training."""
