# SPDX-License-Identifier: PSF-2.0
"""Listener and Client: connections between programs that know an address. To come.

`connection` loads this module when one of its names is first asked for. It may import the native Connection, but not
`connection`, which stands above it.
"""
from __future__ import annotations

from ._later import missing_class, missing_function

__all__ = ["Client", "Listener"]

_PUBLIC = f"{__name__.rpartition('.')[0]}.connection"

Client = missing_function(_PUBLIC, "Client")
Listener = missing_class(_PUBLIC, "Listener")
SocketClient = missing_function(_PUBLIC, "SocketClient")
SocketListener = missing_class(_PUBLIC, "SocketListener")
XmlClient = missing_function(_PUBLIC, "XmlClient")
XmlListener = missing_class(_PUBLIC, "XmlListener")
address_type = missing_function(_PUBLIC, "address_type")
answer_challenge = missing_function(_PUBLIC, "answer_challenge")
arbitrary_address = missing_function(_PUBLIC, "arbitrary_address")
deliver_challenge = missing_function(_PUBLIC, "deliver_challenge")
