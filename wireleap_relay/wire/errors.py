"""What reading a value from outside may raise."""

from __future__ import annotations


class WireError(ValueError):
    """A value from outside can't be read; the text names the field and what was expected.

    It is the only exception that reading or verifying anything in
    :mod:`wireleap_relay.wire` raises, whatever the input.
    """
