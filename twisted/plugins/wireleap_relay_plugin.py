"""Tells twistd of the ``wireleap-relay`` service."""

from twisted.application.service import ServiceMaker

wireleap_relay = ServiceMaker(
    "Wireleap relay",
    "wireleap_relay.tap",
    "A relay of the Wireleap network.",
    "wireleap-relay",
)
