# SPDX-License-Identifier: PSF-2.0
"""Benchmarks against the standard library's multiprocessing; ``python -m benchmarks`` runs them."""

__all__: list[str] = []
