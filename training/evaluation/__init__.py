# SPDX-License-Identifier: Apache-2.0
"""What is measured of depth, and how sure the figures are."""
