"""When a sharetoken is handed in: plain reckoning. Times are Unix seconds."""

from __future__ import annotations

import hashlib

from wireleap_relay.wire.sharetoken import Sharetoken

#: Seconds after a window's opening (PROTOCOL: *Sharetoken*).
_PATIENCE = 1.0
#: Of a window, over which the network's relays spread; and the most of it, in seconds.
_SPREAD, _LONGEST_SPREAD = 0.1, 300.0
#: Of a window, that is kept at its end for last efforts; and the most of it, in seconds.
_LAST, _LONGEST_LAST = 0.1, 60.0
#: Of a window: who holds a token with so little left should look after it.
_URGENT = 0.1


def first_attempt(token: Sharetoken) -> float:
    """Tell when a token is handed in first.

    A servicekey's period ends for all relays in the same second. Each of them
    waits for a while that only depends on the two: a relay's tokens of one
    servicekey go together.
    """
    window = token.contract
    chance = hashlib.sha256(token.relay_pubkey.raw + window.signature.raw).digest()
    fraction = int.from_bytes(chance[:6], "big") / 2**48
    length = max(window.settlement_close - window.settlement_open, 0)
    return window.settlement_open + _PATIENCE + fraction * min(length * _SPREAD, _LONGEST_SPREAD)


def next_attempt(now: float, interval: float, opens: float, closes: float) -> float:
    """Tell when a token is handed in again.

    Every ``interval`` seconds; before the window closes once more in any
    case, and then after half of what is left, again and again. What comes
    after ``closes`` does not happen any more.
    """
    last = closes - min((closes - opens) * _LAST, _LONGEST_LAST)
    if now < last:
        return min(now + interval, last)
    return now + max((closes - now) / 2, _PATIENCE)


def is_urgent(now: float, opens: float, closes: float) -> bool:
    """Tell whether a window is within a tenth of its closing."""
    return closes - now <= (closes - opens) * _URGENT
