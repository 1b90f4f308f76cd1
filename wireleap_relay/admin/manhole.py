"""A Python prompt inside the daemon, over SSH: for loopback or a unix socket, and for listed keys only.

Whoever gets in can do whatever the daemon can; the names it begins with are a
convenience, not a cage.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker, readAuthorizedKeyFile
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm, TerminalSession
from twisted.conch.ssh.keys import BadKeyError, FingerprintFormats, Key
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.admin.listening import ListeningService
from wireleap_relay.configvalues import RestAddress
from wireleap_relay.home import write_durably

_SECRET = 0o600
#: Loggers of conch's classes would go by our own names.
_CONCH = "twisted.conch.ssh"


@implementer(IAuthorizedKeysDB)
class AuthorizedKeys:
    """A file of public keys as OpenSSH has them, read anew for each login."""

    _log = Logger()

    def __init__(self, file: Path) -> None:
        """Know a file."""
        self._file = file

    def getAuthorizedKeys(self, username: bytes) -> Iterator[Key]:
        """Give the keys; they are good for whatever name one comes under."""
        try:
            with self._file.open("rb") as lines:
                if os.fstat(lines.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise OSError(errno.EPERM, "others may write to it", self._file.name)
                return iter(list(readAuthorizedKeyFile(lines)))
        except OSError as e:
            self._log.error("manhole.authorized_keys: {why}", why=str(e))
            return iter(())


class _Checker(SSHPublicKeyChecker):
    _log = Logger()

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        """Let in whoever has a key that is listed, and tell of it."""
        entering: Deferred[bytes] = super().requestAvatarId(credentials)
        return entering.addCallback(self._enters, credentials.blob)

    def _enters(self, name: bytes, blob: bytes) -> bytes:
        key = Key.fromString(blob).fingerprint(FingerprintFormats.SHA256_BASE64)
        self._log.warn("Somebody has entered the manhole with the key SHA256:{key}", key=key)
        return name


class _Session(TerminalSession):
    def openShell(self, proto: Any) -> None:
        """Open it, and tell the client that all is well when it is left: conch does not."""
        leave = proto.loseConnection

        def leave_well() -> None:
            proto.session.conn.sendRequest(proto.session, b"exit-status", bytes(4))
            leave()

        proto.loseConnection = leave_well
        super().openShell(proto)

    def windowChanged(self, newWindowSize: tuple[int, ...]) -> None:
        """Lines are as long as they are."""

    def eofReceived(self) -> None:
        """Control-D leaves; nothing has to be done here."""


class _Transport(SSHServerTransport):
    def connectionMade(self) -> None:
        """Begin, and be known."""
        self._log = Logger(_CONCH)
        super().connectionMade()
        cast("_Factory", self.factory).connections.add(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        cast("_Factory", self.factory).connections.discard(self)
        super().connectionLost(reason)


class _Factory(ConchFactory):
    noisy = False
    protocol = _Transport

    def __init__(self, portal: Portal, host_key: Path) -> None:
        super().__init__(portal)
        self._log = Logger(_CONCH)
        self._host_key = host_key
        self.connections: set[_Transport] = set()

    def startFactory(self) -> None:
        """Have a key of one's own.

        :raises OSError: where it can't be read or made.
        """
        key = _load_or_make(self._host_key)
        keys = cast("Any", self)  # typed as text that nobody passes
        keys.privateKeys = {key.sshType(): key}
        keys.publicKeys = {key.sshType(): key.public()}
        super().startFactory()


class ManholeService(ListeningService):
    """Listens for operators."""

    def __init__(
        self,
        reactor: Any,
        address: RestAddress,
        *,
        host_key: Path,
        authorized_keys: Path,
        namespace: Mapping[str, object],
    ) -> None:
        """Let operators in.

        :param host_key: the file of the server's own key; made where it is missing.
        :param namespace: the names that each of them begins with.
        """
        self.setName("manhole")
        realm: Any = TerminalRealm()
        realm.sessionFactory = _Session
        realm.chainedProtocolFactory = lambda: ServerProtocol(ColoredManhole, dict(namespace))
        portal = Portal(realm, [_Checker(AuthorizedKeys(authorized_keys))])
        self._conch = _Factory(portal, host_key)
        where = address.tcp or f"unix:{address.path}"
        super().__init__(reactor, f"The manhole at {where}", address, _SECRET, self._conch)

    def stopService(self) -> Deferred[Any]:
        """Let nobody in, and everybody out."""
        for connection in list(self._conch.connections):
            connection.loseConnection()
        return super().stopService()


def _load_or_make(file: Path) -> Key:
    """Give the server's own key.

    :raises OSError: where it can't be read or made.
    """
    try:
        found: Key = Key.fromString(file.read_bytes())
    except FileNotFoundError:
        made = Ed25519PrivateKey.generate()
        text = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        write_durably(file, text, _SECRET)
        return Key(made)
    except (BadKeyError, ValueError) as e:
        raise OSError(errno.EINVAL, f"this is no private key: {e}", str(file)) from None
    return found
