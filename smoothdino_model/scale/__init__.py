# SPDX-License-Identifier: Apache-2.0
"""What a camera's surroundings say of the scale of its depth: floor, ranges, and a filter."""
