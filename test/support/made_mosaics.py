# SPDX-License-Identifier: Apache-2.0
"""Mosaics of a colour filter, as cameras send them."""

BAYER = {'rggb': 'RGGB', 'bggr': 'BGGR', 'gbrg': 'GBRG', 'grbg': 'GRBG'}
