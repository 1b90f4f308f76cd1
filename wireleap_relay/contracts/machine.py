"""Enrollment with one contract's directory, as a state machine (PROTOCOL: *API requests*, enrolling)."""

from __future__ import annotations

from typing import Literal, Protocol

from automat import TypeMachineBuilder

State = Literal["waiting", "enrolling", "enrolled", "backing off", "leaving", "withdrawn"]

_FIRST_WAIT = 5.0
_LONGEST_WAIT = 300.0


def backoff(failures: int, chance: float) -> float:
    """Tell how long to wait after so many failures in a row.

    :param chance: from 0 to 1; spreads relays that failed together over a quarter more and less.
    :returns: seconds: about 5 at first, doubling up to about 300.
    """
    # Exponents past this one reach the longest wait anyway.
    doublings = min(max(failures - 1, 0), 10)
    return min(_FIRST_WAIT * 2.0**doublings, _LONGEST_WAIT) * (0.75 + chance / 2)


class Enrollment(Protocol):
    """What happens to an enrollment."""

    def start(self) -> None:
        """The relay is ready to be listed."""

    def accepted(self) -> None:
        """The directory has listed the relay."""

    def failed(self) -> None:
        """The contract or the directory could not be used."""

    def waited(self) -> None:
        """The time to try again has come."""

    def dropped(self) -> None:
        """The directory lists the relay no longer."""

    def stop(self) -> None:
        """The relay is to be listed no longer."""

    def left(self) -> None:
        """The directory knows it, or can't be told."""


class Desk(Protocol):
    """What an enrollment does.

    One of ``enroll``, ``open``, ``wait``, ``leave`` and ``finish`` comes last in
    every step: it tells where the enrollment stands.
    """

    def enroll(self) -> None:
        """Try to be listed; answer with ``accepted`` or ``failed``."""

    def give_up(self) -> None:
        """Break the try under way off; it gets no answer any more."""

    def open(self) -> None:
        """Take tunnels, and send heartbeats; answer with ``dropped`` where one is refused."""

    def close(self) -> None:
        """Take no tunnels, and send no heartbeats."""

    def wait(self) -> None:
        """Wait longer with each failure; answer with ``waited``."""

    def stop_waiting(self) -> None:
        """Don't."""

    def leave(self) -> None:
        """Tell the directory to list the relay no longer; answer with ``left``."""

    def finish(self) -> None:
        """Tell whoever asked that it is over."""


_builder = TypeMachineBuilder(Enrollment, Desk)  # type: ignore[type-abstract]

_waiting = _builder.state("waiting")
_enrolling = _builder.state("enrolling")
_enrolled = _builder.state("enrolled")
_backing_off = _builder.state("backing off")
_leaving = _builder.state("leaving")
_withdrawn = _builder.state("withdrawn")


@_waiting.upon(Enrollment.start).to(_enrolling)
@_withdrawn.upon(Enrollment.start).to(_enrolling)
@_backing_off.upon(Enrollment.waited).to(_enrolling)
def _enroll(_: Enrollment, desk: Desk) -> None:
    desk.enroll()


@_enrolling.upon(Enrollment.accepted).to(_enrolled)
def _open(_: Enrollment, desk: Desk) -> None:
    desk.open()


@_enrolling.upon(Enrollment.failed).to(_backing_off)
def _wait(_: Enrollment, desk: Desk) -> None:
    desk.wait()


@_enrolled.upon(Enrollment.dropped).to(_backing_off)
def _close_and_wait(_: Enrollment, desk: Desk) -> None:
    desk.close()
    desk.wait()


@_enrolling.upon(Enrollment.stop).to(_leaving)
def _give_up(_: Enrollment, desk: Desk) -> None:
    desk.give_up()
    desk.leave()


@_enrolled.upon(Enrollment.stop).to(_leaving)
def _close_and_leave(_: Enrollment, desk: Desk) -> None:
    desk.close()
    desk.leave()


@_backing_off.upon(Enrollment.stop).to(_leaving)
def _leave(_: Enrollment, desk: Desk) -> None:
    desk.stop_waiting()
    desk.leave()


@_leaving.upon(Enrollment.left).to(_withdrawn)
@_waiting.upon(Enrollment.stop).to(_withdrawn)
def _finish(_: Enrollment, desk: Desk) -> None:
    desk.finish()


#: Makes an enrollment that works at a desk.
enrollment = _builder.build()
