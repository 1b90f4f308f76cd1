"""What may be wrong with a new version: code for the program of :mod:`tests.upgrade.world`, and what is said of it."""

from __future__ import annotations

import attrs

#: Half a second after it has begun to accept connections.
_LATER = (
    "if starts: from wireleap_relay.succession import RelayIncumbent as i; a = i.accept;"
    " i.accept = lambda s, accepts: (threading.Timer(0.5, {what}).start(), a(s, accepts))[1]"
)
_HANG = "import twisted.internet.reactor as r; r.callFromThread(time.sleep, 1000)"


@attrs.frozen
class Fault:
    """One thing.

    :ivar why: part of what the operator reads.
    :ivar accepts: whether clients may meet it, for it accepts connections.
    """

    code: str
    why: str
    accepts: bool = False


FAULTS = {
    "crashes at once": Fault("if starts: sys.exit('out of order')", "out of order"),
    "crashes after a while": Fault(_LATER.format(what="lambda: os._exit(3)"), "it has ended", True),
    "does not start": Fault("if starts: time.sleep(1000)", "did not begin to listen"),
    "hangs after a while": Fault(_LATER.format(what=f"lambda: exec({_HANG!r})"), "does not answer any more", True),
    "gives clients no answer": Fault(
        "if starts: from wireleap_relay.tunnel.connection import ClientConnection as c; c.dataReceived = lambda *_: None",
        "clients get no answer",
        True,
    ),
    "does not enroll": Fault(
        "if starts: from wireleap_relay.contracts.desk import EnrollmentDesk as d; d.enroll = lambda _: None",
        "/contract",
    ),
    "can't read the config": Fault(
        "from wireleap_relay import configvalues as c; c._MOST_WORKERS = -1", "can't read the config"
    ),
    "fails to migrate": Fault(
        "import wireleap_relay.upgrade.migrations as m; from wireleap_relay.wire.versions import Version;"
        "m.migrate_home.__defaults__ = ((m.Migration(Version(0, 7, 1), 'breaks', lambda c: 1 / 0),),)",
        "its migration of the config has failed: division by zero",
    ),
}
