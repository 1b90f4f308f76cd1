"""The work a directory asks of a relay before it lists it (PROTOCOL: *API requests*, enrolling)."""

from __future__ import annotations

import re

import attrs
import bcrypt

from wireleap_relay.boundaries import BadAnswer

#: More would keep a processor busy for minutes.
_HIGHEST_COST = 18
_LOWEST_COST = 4
#: bcrypt reads no further.
_BCRYPT_BYTES = 72
_CHALLENGE = re.compile(r"(\d{1,3})~[!-~]{1,1024}", re.ASCII)


@attrs.frozen
class Challenge:
    """A text to hash.

    :ivar text: all of it, the cost included.
    :ivar cost: of bcrypt; one more doubles the work.
    """

    text: str
    cost: int

    @classmethod
    def from_text(cls, text: str) -> Challenge:
        """Read ``COST~text``.

        :raises BadAnswer: where it isn't that, and where its cost can't be or is too high.
        """
        match = _CHALLENGE.fullmatch(text)
        if match is None:
            raise BadAnswer("the directory's challenge can't be read")
        cost = int(match[1])
        if cost > _HIGHEST_COST:
            raise BadAnswer(f"the directory's challenge has cost {cost}: more than {_HIGHEST_COST} is refused")
        if cost < _LOWEST_COST:
            raise BadAnswer(f"the directory's challenge has cost {cost}: bcrypt has none below {_LOWEST_COST}")
        return cls(text, cost)

    def solve(self) -> str:
        """Do the work: it takes a processor for 0.1 s at cost 10, and twice that for each step more.

        :returns: a bcrypt hash with prefix ``$2a$``.
        """
        salt = bcrypt.gensalt(self.cost, prefix=b"2a")
        return bcrypt.hashpw(self.text.encode()[:_BCRYPT_BYTES], salt).decode()
