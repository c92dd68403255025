# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of depth models and temporal adapters, with Lightning."""
