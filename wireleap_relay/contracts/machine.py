"""One contract, as a state machine: enrollment, limits, and the end (PROTOCOL: *API requests*, *Limits*).

Timers, network and disk are its desk's. An input that can come late, or twice,
is ignored where it means nothing any more; every other one that is not defined
in a state would be the desk's mistake, and raises :exc:`automat.NoTransition`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from automat import TypeMachineBuilder

State = Literal[
    "waiting", "enrolling", "enrolled", "backing off", "soft-limited", "hard-limited", "draining", "withdrawn"
]

_FIRST_WAIT = 5.0
_LONGEST_WAIT = 300.0
#: Seconds between tries that are not expected to succeed.
SLOW_WAIT = _LONGEST_WAIT


def backoff(failures: int, chance: float) -> float:
    """Tell how long to wait after so many failures in a row.

    :param chance: from 0 to 1; spreads relays that failed together over a quarter more and less.
    :returns: seconds: about 5 at first, doubling up to about 300.
    """
    # Exponents past this one reach the longest wait anyway.
    doublings = min(max(failures - 1, 0), 10)
    return min(_FIRST_WAIT * 2.0**doublings, _LONGEST_WAIT) * (0.75 + chance / 2)


class Enrollment(Protocol):
    """What happens to a contract."""

    def start(self) -> None:
        """The contract is to be served."""

    def accepted(self) -> None:
        """The directory has listed the relay."""

    def failed(self) -> None:
        """The contract or the directory could not be used."""

    def waited(self) -> None:
        """The time to try again has come."""

    def dropped(self) -> None:
        """The directory lists the relay no longer."""

    def soft_limit_reached(self) -> None:
        """Traffic has grown so far that no new tunnel may be opened."""

    def hard_limit_reached(self) -> None:
        """Traffic has grown so far that open tunnels have to end."""

    def limit_lifted(self) -> None:
        """A new window has begun, or the operator allows more."""

    def changed(self) -> None:
        """The operator has changed what the directory is to list."""

    def stop(self) -> None:
        """The contract is to be served no longer."""

    def drained(self) -> None:
        """Its tunnels are gone, and the directory knows, or can't be told."""


class Desk(Protocol):
    """What a contract's machine does.

    ``stands`` comes first in every step. What may answer at once comes last.
    """

    def stands(self, state: State) -> None:
        """Note the state that the machine is in from here on."""

    def enroll(self) -> None:
        """Try to be listed; answer with ``accepted``, ``failed`` or the limit that stands against it."""

    def give_up(self) -> None:
        """Break the try under way off; it gets no answer any more."""

    def announce(self) -> None:
        """Take tunnels, and send heartbeats; answer with ``dropped`` where one is refused."""

    def beat(self) -> None:
        """Send a heartbeat now."""

    def refuse_tunnels(self) -> None:
        """Take no new tunnels, and send no heartbeats."""

    def close_tunnels(self) -> None:
        """End the open tunnels, and say why."""

    def disenroll(self) -> None:
        """Tell the directory, where it may list the relay, not to; nobody waits for it."""

    def wait(self) -> None:
        """Wait longer with each failure; answer with ``waited``."""

    def stop_waiting(self) -> None:
        """Don't."""

    def drain(self) -> None:
        """Disenroll, and let open tunnels finish; answer with ``drained``."""

    def stop_draining(self) -> None:
        """Let open tunnels live on; there is no answer any more."""

    def finish(self) -> None:
        """Tell whoever asked that it is over."""


_builder = TypeMachineBuilder(Enrollment, Desk)  # type: ignore[type-abstract]

_waiting = _builder.state("waiting")
_enrolling = _builder.state("enrolling")
_enrolled = _builder.state("enrolled")
_backing_off = _builder.state("backing off")
_soft_limited = _builder.state("soft-limited")
_hard_limited = _builder.state("hard-limited")
_draining = _builder.state("draining")
_withdrawn = _builder.state("withdrawn")


# Enrolling


@_waiting.upon(Enrollment.start).to(_enrolling)
@_withdrawn.upon(Enrollment.start).to(_enrolling)
@_backing_off.upon(Enrollment.waited).to(_enrolling)
def _enroll(_: Enrollment, desk: Desk) -> None:
    desk.stands("enrolling")
    desk.enroll()


@_enrolling.upon(Enrollment.changed).to(_enrolling)
@_soft_limited.upon(Enrollment.limit_lifted).to(_enrolling)
@_hard_limited.upon(Enrollment.limit_lifted).to(_enrolling)
def _enroll_anew(_: Enrollment, desk: Desk) -> None:
    desk.stands("enrolling")
    desk.give_up()
    desk.enroll()


@_backing_off.upon(Enrollment.changed).to(_enrolling)
def _enroll_at_once(_: Enrollment, desk: Desk) -> None:
    desk.stands("enrolling")
    desk.stop_waiting()
    desk.enroll()


@_draining.upon(Enrollment.start).to(_enrolling)
def _stay_after_all(_: Enrollment, desk: Desk) -> None:
    desk.stands("enrolling")
    desk.stop_draining()
    desk.enroll()


@_enrolling.upon(Enrollment.accepted).to(_enrolled)
def _announce(_: Enrollment, desk: Desk) -> None:
    desk.stands("enrolled")
    desk.announce()


@_enrolled.upon(Enrollment.changed).to(_enrolled)
def _beat(_: Enrollment, desk: Desk) -> None:
    desk.stands("enrolled")
    desk.beat()


@_enrolling.upon(Enrollment.failed).to(_backing_off)
def _wait(_: Enrollment, desk: Desk) -> None:
    desk.stands("backing off")
    desk.wait()


@_enrolled.upon(Enrollment.dropped).to(_backing_off)
def _close_and_wait(_: Enrollment, desk: Desk) -> None:
    desk.stands("backing off")
    desk.refuse_tunnels()
    desk.wait()


# Limits


@_enrolling.upon(Enrollment.soft_limit_reached).to(_soft_limited)
def _soft_limit_while_enrolling(_: Enrollment, desk: Desk) -> None:
    desk.stands("soft-limited")
    desk.give_up()
    desk.disenroll()


@_enrolled.upon(Enrollment.soft_limit_reached).to(_soft_limited)
def _soft_limit(_: Enrollment, desk: Desk) -> None:
    desk.stands("soft-limited")
    desk.refuse_tunnels()
    desk.disenroll()


@_backing_off.upon(Enrollment.soft_limit_reached).to(_soft_limited)
def _soft_limit_while_waiting(_: Enrollment, desk: Desk) -> None:
    desk.stands("soft-limited")
    desk.stop_waiting()
    desk.disenroll()


@_hard_limited.upon(Enrollment.soft_limit_reached).to(_soft_limited)
def _limit_softens(_: Enrollment, desk: Desk) -> None:
    desk.stands("soft-limited")


@_enrolling.upon(Enrollment.hard_limit_reached).to(_hard_limited)
def _hard_limit_while_enrolling(_: Enrollment, desk: Desk) -> None:
    desk.stands("hard-limited")
    desk.give_up()
    desk.close_tunnels()
    desk.disenroll()


@_enrolled.upon(Enrollment.hard_limit_reached).to(_hard_limited)
def _hard_limit(_: Enrollment, desk: Desk) -> None:
    desk.stands("hard-limited")
    desk.refuse_tunnels()
    desk.close_tunnels()
    desk.disenroll()


@_backing_off.upon(Enrollment.hard_limit_reached).to(_hard_limited)
def _hard_limit_while_waiting(_: Enrollment, desk: Desk) -> None:
    desk.stands("hard-limited")
    desk.stop_waiting()
    desk.close_tunnels()
    desk.disenroll()


@_soft_limited.upon(Enrollment.hard_limit_reached).to(_hard_limited)
@_hard_limited.upon(Enrollment.hard_limit_reached).to(_hard_limited)
def _close_what_has_opened(_: Enrollment, desk: Desk) -> None:
    desk.stands("hard-limited")
    desk.close_tunnels()


@_draining.upon(Enrollment.hard_limit_reached).to(_draining)
def _drain_at_once(_: Enrollment, desk: Desk) -> None:
    desk.stands("draining")
    desk.close_tunnels()


# The end


@_enrolled.upon(Enrollment.stop).to(_draining)
def _drain(_: Enrollment, desk: Desk) -> None:
    desk.stands("draining")
    desk.refuse_tunnels()
    desk.drain()


@_enrolling.upon(Enrollment.stop).to(_draining)
@_soft_limited.upon(Enrollment.stop).to(_draining)
@_hard_limited.upon(Enrollment.stop).to(_draining)
def _give_up_and_drain(_: Enrollment, desk: Desk) -> None:
    desk.stands("draining")
    desk.give_up()
    desk.drain()


@_backing_off.upon(Enrollment.stop).to(_draining)
def _stop_waiting_and_drain(_: Enrollment, desk: Desk) -> None:
    desk.stands("draining")
    desk.stop_waiting()
    desk.drain()


@_draining.upon(Enrollment.drained).to(_withdrawn)
@_waiting.upon(Enrollment.stop).to(_withdrawn)
@_withdrawn.upon(Enrollment.stop).to(_withdrawn)
def _finish(_: Enrollment, desk: Desk) -> None:
    desk.stands("withdrawn")
    desk.finish()


# What means nothing in a state: limits where nothing is served, news of what the state has already,
# and changes that the next attempt to enroll takes along.
_soft, _hard, _lifted = Enrollment.soft_limit_reached, Enrollment.hard_limit_reached, Enrollment.limit_lifted
_ignored: dict[object, tuple[Callable[[Enrollment], None], ...]] = {
    _waiting: (_soft, _hard, _lifted, Enrollment.changed),
    _enrolling: (_lifted,),
    _enrolled: (_lifted,),
    _backing_off: (_lifted,),
    _soft_limited: (_soft, Enrollment.changed),
    _hard_limited: (Enrollment.changed,),
    _draining: (_soft, _lifted, Enrollment.changed, Enrollment.stop),
    _withdrawn: (_soft, _hard, _lifted, Enrollment.changed),
}
for _state, _inputs in _ignored.items():
    for _input in _inputs:
        _state.upon(_input).loop().returns(None)  # type: ignore[attr-defined]

#: Makes the machine of a contract that works at a desk.
enrollment = _builder.build()
