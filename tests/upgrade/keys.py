"""Throw-away release keys."""

from __future__ import annotations

import datetime

from pysequoia import Cert, SignatureMode, Tsk, sign

from wireleap_relay.upgrade.release import write_listing
from wireleap_relay.wire.versions import Version

NOW = datetime.datetime.now(datetime.UTC)


class Signer:
    """Somebody who can sign releases."""

    def __init__(self, seconds: int | None = None) -> None:
        self.secret = Tsk.generate(user_id="A publisher <releases@example.org>", validity_seconds=seconds)

    @property
    def cert(self) -> Cert:
        return self.secret.extract_certificate()

    def revoked(self) -> Cert:
        revocation = self.cert.revoke(self.secret.certifier())
        return Cert.from_bytes(bytes(self.cert) + bytes(revocation))

    def sign(self, text: bytes) -> bytes:
        return sign(self.secret.signer(), text, mode=SignatureMode.CLEAR)

    def listing(self, version: str, **sums: bytes) -> bytes:
        return self.sign(write_listing(Version.from_text(version), sums))
