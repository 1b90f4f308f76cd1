"""What attacks cost a relay, and the honest tunnel beside them: ours, and others in the same way.

    python benchmarks/attacks.py [ATTACK...] [--peer NAME=PROGRAM] [--seconds N] [--markdown]

Each attack goes on alone for a while, then beside a client that downloads over one tunnel as fast as it can.
Shown are what was sent in a second, how many connections the relay ended or refused, its share of a processor and
the memory that it took (its most, above what it began with) while the attack was alone, and what the client got without the attack and with
it. On a machine with few processors the attackers take from the client what the relay leaves.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
from load.relay import Helper, Relay, processors

ATTACKS = {
    "rapid-reset": ("requests and resets", "CVE-2023-44487"),
    "made-you-reset": ("requests that make the relay reset", "CVE-2025-8671"),
    "continuation": ("CONTINUATION of 13 kB", "CVE-2024-27316"),
    "empty-continuation": ("empty CONTINUATION", "CVE-2024-27316"),
    "hpack-bomb": ("blocks of 15,000 fields of 4 kB", "CVE-2016-6581"),
    "empty-fields": ("blocks of 5,000 empty fields", "CVE-2019-9516"),
    "settings": ("SETTINGS", "CVE-2019-9515"),
    "ping": ("PING", "CVE-2019-9512"),
    "priority": ("PRIORITY", "CVE-2019-9513"),
    "window-update": ("WINDOW_UPDATE", ""),
    "empty-data": ("empty DATA", "CVE-2019-9518"),
    "padding": ("DATA of padding", ""),
    "get": ("GET", ""),
    "bad-put": ("PUT with a broken payload", ""),
    "stream-ids": ("streams out of order", ""),
    "overflow": ("windows over 2^31", ""),
    "handshakes": ("TLS connections", ""),
    "never-reading": ("PING, answers unread", "CVE-2019-9517"),
    "idle": ("2,000 idle connections", ""),
    "slow-handshakes": ("2,000 connections without TLS", ""),
    "slow-headers": ("2,000 requests without end", "Slowloris"),
    "unread-tunnels": ("500 paid tunnels, unread", ""),
    "unread-uploads": ("500 paid tunnels, their targets deaf", ""),
    "zero-window": ("500 paid tunnels, windows of nothing", "CVE-2019-9517"),
    "one-byte-window": ("500 paid tunnels, a byte at a time", "CVE-2019-9511"),
}


@attrs.frozen
class Result:
    """One attack on one relay. Rates are per second, memory is in bytes."""

    attack: str
    relay: str
    sent: float
    ended: float
    refused: float
    processor: float
    memory: int
    before: float
    during: float


class Range:
    """Where relays are attacked."""

    def __init__(self, servicekey: Path, targets: dict[str, int], seconds: float) -> None:
        self._servicekey = servicekey
        self._targets = targets
        self._seconds = seconds

    def attack(self, name: str, relay: Relay) -> Result:
        """Attack a relay that was started anew."""
        relay.restart()
        self._honest(relay)
        before = self._honest(relay)
        spec = json.dumps({"attack": name, **self._common(relay, "deaf" if name == "unread-uploads" else "far-source")})
        start = relay.cost()
        with Helper("attacker", spec) as attacker:
            attacker.line()
            attacker.say("go")
            most = start.memory
            began = time.monotonic()
            while time.monotonic() < began + self._seconds:
                time.sleep(0.25)
                most = max(most, relay.cost().memory)
            processor = (relay.cost().cpu - start.cpu) / (time.monotonic() - began)
            during = self._honest(relay)
            most = max(most, relay.cost().memory)
            attacker.say("enough")
            score = json.loads(attacker.line())
        seconds = score["seconds"]
        rates = [score[what] / seconds for what in ("sent", "ended", "refused")]
        return Result(name, relay.name, *rates, processor, most - start.memory, before, during)

    def _common(self, relay: Relay, target: str) -> dict[str, Any]:
        return {
            "port": relay.port("source"),
            "servicekey": str(self._servicekey),
            "relay": relay.key,
            "target": f"127.0.0.1:{self._targets[target]}",
        }

    def _honest(self, relay: Relay) -> float:
        """Download over one tunnel; give MB per second, 0 where that is impossible."""
        spec = {"mode": "down", "seconds": self._seconds, **self._common(relay, "source")}
        try:
            with Helper("client", json.dumps(spec)) as client:
                client.line()
                client.say("go")
                result = json.loads(client.line())
        except SystemExit:
            return 0.0
        return float(result["bytes"]) / 1e6 / float(result["seconds"])


def _row(result: Result, markdown: bool) -> str:
    what, name = ATTACKS[result.attack]
    cells = [
        f"{result.attack}: {what}" + (f" ({name})" if name else ""),
        result.relay,
        f"{result.sent:,.0f}",
        f"{result.ended:,.0f} / {result.refused:,.0f}",
        f"{result.processor:.0%}",
        f"{result.memory / 1e6:+,.0f} MB",
        f"{result.before:,.0f}",
        f"{result.during:,.0f}",
    ]
    if markdown:
        return "| " + " | ".join(cells) + " |"
    widths = (66, 10, 11, 13, 6, 9, 7, 7)
    return f"{cells[0]:<{widths[0]}}{cells[1]:<{widths[1]}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells[2:], widths[2:], strict=True)
    )


_TITLES = ("attack", "relay", "sent/s", "ended / refused a second", "CPU", "memory", "MB/s before", "MB/s during")


def main() -> None:
    """Attack."""
    listed = "\n".join(f"  {name:<20} {what}" for name, (what, _) in ATTACKS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"attacks:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("attack", nargs="*", help="which to make [all]")
    parser.add_argument("--peer", metavar="NAME=PROGRAM", action="append", default=[], help="attack this relay too")
    parser.add_argument("--without-ours", action="store_true", help="attack peers only")
    parser.add_argument("--workers", type=int, default=0, help="our relay's workers [%(default)s]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each half of an attack [%(default)s]")
    parser.add_argument("--markdown", action="store_true", help="print rows for a document")
    arguments = parser.parse_args()
    unknown = set(arguments.attack) - set(ATTACKS)
    if unknown:
        parser.error(f"unknown attack: {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
    print(f"{processors()} processors, twice {arguments.seconds:g} s for each attack, our workers: {arguments.workers}")
    print(" | ".join(_TITLES))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wireleap-attacks-")))
        servicekey = folder / "servicekey.json"
        contract = stack.enter_context(Helper("network", str(servicekey))).line()
        # Attackers have a target of their own: it has much to do.
        targets = {
            kind: int(stack.enter_context(Helper("target", kind)).line()) for kind in ("source", "far-source", "deaf")
        }
        relays = []
        if not arguments.without_ours:
            # Attackers come over loopback, too.
            limits = {"limits": {"trusted": []}}
            relays.append(
                stack.enter_context(Relay("ours", None, folder / "ours", contract, arguments.workers, limits))
            )
        for peer in arguments.peer:
            name, _, program = peer.rpartition("=")
            name = name or Path(program).name
            relays.append(
                stack.enter_context(Relay(name, Path(program).resolve(), folder / f"peer-{name}", contract, None))
            )
        attacked = Range(servicekey, targets, arguments.seconds)
        for name in arguments.attack or ATTACKS:
            for relay in relays:
                print(_row(attacked.attack(name, relay), arguments.markdown), flush=True)


if __name__ == "__main__":
    main()
