"""How fast traffic goes at present; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from wireleap_relay.wire.keys import PublicKey

_SAMPLE_EVERY = 60.0
_SAMPLES = 60


class Pace:
    """Bytes per second over the last hour, or what there is of it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._samples: deque[tuple[float, Mapping[PublicKey, int]]] = deque(maxlen=_SAMPLES)

    def look(self, seconds: float, totals: Mapping[PublicKey, int]) -> dict[PublicKey, float]:
        """Take the meters' word, and give each contract's pace.

        :param seconds: of a clock that is never set.
        :param totals: bytes since the relay started.
        """
        if not self._samples or seconds - self._samples[-1][0] >= _SAMPLE_EVERY:
            self._samples.append((seconds, dict(totals)))
        then, before = self._samples[0]
        passed = seconds - then
        if passed <= 0:
            return dict.fromkeys(totals, 0.0)
        return {contract: (total - before.get(contract, 0)) / passed for contract, total in totals.items()}
