# SPDX-License-Identifier: Apache-2.0
"""The network: torch and transformers alone, and nothing else of this package."""
