"""Which failed requests are made again, and when (PROTOCOL: *API requests*)."""

from __future__ import annotations

import attrs

from wireleap_relay.boundaries import ApiError, BadAnswer, Unreachable, UpstreamFailed

_PASSING_CODES = frozenset({500, 502})


@attrs.frozen
class RetryPolicy:
    """Up to a number of tries, evenly spaced.

    :ivar tries: altogether.
    :ivar interval: seconds between them.
    """

    tries: int = 3
    interval: float = 5.0

    def delay(self, tried: int, failure: UpstreamFailed) -> float | None:
        """Tell how long to wait after a failure.

        :param tried: how often, the failed try included.
        :returns: seconds, or None where it is not tried again.
        """
        if tried >= self.tries:
            return None
        match failure:
            case Unreachable():
                return self.interval
            case ApiError(code=code) | BadAnswer(code=code) if code in _PASSING_CODES:
                return self.interval
        return None
