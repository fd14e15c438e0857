# SPDX-License-Identifier: PSF-2.0
