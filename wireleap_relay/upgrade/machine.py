"""One upgrade, as a state machine (PROTOCOL: *Upgrades*).

What stands on disk decides: each step records its state before it does
anything, so whoever finds the record later knows how far things went. The
daemon or the command drives a machine up to ``staged``; the supervisor, a
process of the new version, takes it from there; whatever starts after a crash
says ``interrupted``, and the upgrade ends, done or undone.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from automat import TypeMachineBuilder

from wireleap_relay.wire.versions import Version

State = Literal[
    "idle",
    "noticed",
    "fetching",
    "verified",
    "staged",
    "migrating",
    "stopping",
    "probation",
    "committed",
    "rolling back",
    "rolled back",
    "skipped",
]


class Upgrade(Protocol):
    """What happens to an upgrade."""

    def noticed(self, version: Version) -> None:
        """There is a newer version."""

    def approved(self) -> None:
        """It is to be installed."""

    def passed_over(self) -> None:
        """It is not to be tried again by itself."""

    def fetched(self) -> None:
        """Its file is there, and genuine."""

    def moved(self) -> None:
        """Its file is where it can run."""

    def begun(self) -> None:
        """Its supervisor runs."""

    def migrated(self) -> None:
        """There is a config for it."""

    def taken_over(self) -> None:
        """Its daemon serves new clients in the place of the old one."""

    def proved(self) -> None:
        """Its daemon has done well for long enough."""

    def failed(self, why: str, *, skip: bool = True) -> None:
        """A step did not succeed.

        :param skip: whether it is the version's fault, so that it is not to be tried again by itself.
        """

    def undone(self) -> None:
        """All is as it was before."""

    def interrupted(self) -> None:
        """Whoever worked on it is gone; all that is left is the record."""


class Work(Protocol):
    """What an upgrade's machine does.

    ``stands`` comes first in every step, and is on disk when it returns. What
    may answer at once comes last.
    """

    def stands(self, state: State) -> None:
        """Record the state that the machine is in from here on."""

    def note(self, version: Version) -> None:
        """Record which version it is about, and that nothing is known against it."""

    def blame(self, why: str, *, skip: bool) -> None:
        """Record why it does not go on."""

    def consider(self) -> None:
        """Tell the operator; answer with ``approved`` or ``passed_over`` where that is decided."""

    def fetch(self) -> None:
        """Fetch and verify its file; answer with ``fetched`` or ``failed``."""

    def stage(self) -> None:
        """Move its file to where it can run; answer with ``moved`` or ``failed``."""

    def supervise(self) -> None:
        """Start its supervisor, which answers with ``begun``; answer with ``failed`` where that can't be."""

    def migrate(self) -> None:
        """Make a config for it; answer with ``migrated`` or ``failed``."""

    def take_over(self) -> None:
        """Start its daemon beside the old one; answer with ``taken_over`` or ``failed``."""

    def watch(self) -> None:
        """See how its daemon does; answer with ``proved`` or ``failed``."""

    def commit(self) -> None:
        """Put its files in the place of the old ones, and let the old daemon go."""

    def undo(self) -> None:
        """Let the old daemon serve alone, and remove the new files; answer with ``undone``."""

    def discard(self) -> None:
        """Remove what was fetched; answer as ``consider`` does, where it may be tried again."""


_builder = TypeMachineBuilder(Upgrade, Work)  # type: ignore[type-abstract]

_idle = _builder.state("idle")
_noticed = _builder.state("noticed")
_fetching = _builder.state("fetching")
_verified = _builder.state("verified")
_staged = _builder.state("staged")
_migrating = _builder.state("migrating")
_stopping = _builder.state("stopping")
_probation = _builder.state("probation")
_committed = _builder.state("committed")
_rolling_back = _builder.state("rolling back")
_rolled_back = _builder.state("rolled back")
_skipped = _builder.state("skipped")

_STATES = {
    state.name: state
    for state in (
        *(_idle, _noticed, _fetching, _verified, _staged, _migrating),
        *(_stopping, _probation, _committed, _rolling_back, _rolled_back, _skipped),
    )
}


# Up to where a new process takes over


@_idle.upon(Upgrade.noticed).to(_noticed)
@_noticed.upon(Upgrade.noticed).to(_noticed)
@_committed.upon(Upgrade.noticed).to(_noticed)
@_rolled_back.upon(Upgrade.noticed).to(_noticed)
@_skipped.upon(Upgrade.noticed).to(_noticed)
def _consider(_: Upgrade, work: Work, version: Version) -> None:
    work.note(version)
    work.stands("noticed")
    work.consider()


@_noticed.upon(Upgrade.passed_over).to(_skipped)
def _skip(_: Upgrade, work: Work) -> None:
    work.stands("skipped")


@_noticed.upon(Upgrade.approved).to(_fetching)
def _fetch(_: Upgrade, work: Work) -> None:
    work.stands("fetching")
    work.fetch()


@_fetching.upon(Upgrade.fetched).to(_verified)
def _stage(_: Upgrade, work: Work) -> None:
    work.stands("verified")
    work.stage()


@_verified.upon(Upgrade.moved).to(_staged)
def _supervise(_: Upgrade, work: Work) -> None:
    work.stands("staged")
    work.supervise()


@_fetching.upon(Upgrade.failed).to(_noticed)
@_verified.upon(Upgrade.failed).to(_noticed)
def _give_up(_: Upgrade, work: Work, why: str, *, skip: bool = True) -> None:  # noqa: ARG001 - no version is to blame for its download
    work.blame(why, skip=False)
    work.stands("noticed")
    work.discard()


@_fetching.upon(Upgrade.interrupted).to(_noticed)
@_verified.upon(Upgrade.interrupted).to(_noticed)
def _begin_anew(_: Upgrade, work: Work) -> None:
    work.stands("noticed")
    work.discard()


# The supervisor's part


@_staged.upon(Upgrade.begun).to(_migrating)
def _migrate(_: Upgrade, work: Work) -> None:
    work.stands("migrating")
    work.migrate()


@_migrating.upon(Upgrade.migrated).to(_stopping)
def _take_over(_: Upgrade, work: Work) -> None:
    work.stands("stopping")
    work.take_over()


@_stopping.upon(Upgrade.taken_over).to(_probation)
def _watch(_: Upgrade, work: Work) -> None:
    work.stands("probation")
    work.watch()


@_probation.upon(Upgrade.proved).to(_committed)
@_committed.upon(Upgrade.interrupted).to(_committed)
def _commit(_: Upgrade, work: Work) -> None:
    work.stands("committed")
    work.commit()


@_staged.upon(Upgrade.failed).to(_rolling_back)
@_migrating.upon(Upgrade.failed).to(_rolling_back)
@_stopping.upon(Upgrade.failed).to(_rolling_back)
@_probation.upon(Upgrade.failed).to(_rolling_back)
def _roll_back(_: Upgrade, work: Work, why: str, *, skip: bool = True) -> None:
    work.blame(why, skip=skip)
    work.stands("rolling back")
    work.undo()


@_staged.upon(Upgrade.interrupted).to(_rolling_back)
@_migrating.upon(Upgrade.interrupted).to(_rolling_back)
@_stopping.upon(Upgrade.interrupted).to(_rolling_back)
@_probation.upon(Upgrade.interrupted).to(_rolling_back)
def _roll_back_after_a_crash(_: Upgrade, work: Work) -> None:
    work.blame("it was interrupted", skip=False)
    work.stands("rolling back")
    work.undo()


@_rolling_back.upon(Upgrade.interrupted).to(_rolling_back)
def _go_on_rolling_back(_: Upgrade, work: Work) -> None:
    work.stands("rolling back")
    work.undo()


@_rolling_back.upon(Upgrade.undone).to(_rolled_back)
def _be_as_before(_: Upgrade, work: Work) -> None:
    work.stands("rolled back")


# A crash in a state where nothing is under way means nothing.
for _state in (_idle, _noticed, _rolled_back, _skipped):
    _state.upon(Upgrade.interrupted).loop().returns(None)

#: Makes an upgrade's machine; see :func:`upgrade_in` for one that goes on from a record.
upgrade = _builder.build()


def upgrade_in(state: State, work: Work) -> Upgrade:
    """Make the machine of an upgrade that has come to a state already."""
    return upgrade(work, _STATES[state])


#: In these nobody works on an upgrade.
AT_REST: frozenset[State] = frozenset({"idle", "noticed", "committed", "rolled back", "skipped"})
STATES: tuple[State, ...] = get_args(State)
