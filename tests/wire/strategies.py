"""What hypothesis makes: good values of every kind, and input that nobody should send."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.relayentry import RelayEntry
from wireleap_relay.wire.sharetoken import ContractStatement, Nonce, Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.versions import CLIENT_RELAY, Version

# Good values

texts = st.text()
#: Any characters that Python's text can hold, halves of characters too.
wild_texts = st.text(st.characters())
int64s = st.integers(-(2**63), 2**63 - 1)
public_keys = st.binary(min_size=32, max_size=32).map(PublicKey)
signatures = st.binary(min_size=64, max_size=64).map(Signature)
signing_keys = st.binary(min_size=32, max_size=32).map(SigningKey)
nonces = st.text("0123456789abcdefABCDEF", min_size=32, max_size=32).map(Nonce)
versions = st.builds(Version, *[st.integers(0, 10**9 - 1)] * 3)
statuses = st.builds(Status, int64s, texts, texts, texts)
statements = st.builds(ContractStatement, int64s, int64s, public_keys, signatures)
tokens = st.builds(Sharetoken, int64s, public_keys, int64s, public_keys, signatures, nonces, statements, texts)

_ends = string.ascii_letters + string.digits + "_"
_labels = st.builds(
    lambda first, middle, last: (first + middle + last)[:63].rstrip("-"),
    st.sampled_from(_ends),
    st.text(_ends + "-", max_size=61),
    st.sampled_from(["", *_ends]),
)
_tops = st.builds(
    lambda first, rest: first + rest, st.sampled_from(string.ascii_letters), _labels.map(lambda t: t[:62])
)
names = (
    st.builds(lambda labels, top: ".".join([*labels, top.rstrip("-")]), st.lists(_labels, max_size=3), _tops)
    .filter(lambda name: len(name) < 253)
    .flatmap(lambda name: st.sampled_from([name, name + "."]))
)
_ipv6 = st.ip_addresses(v=6)
ipv6_texts = st.one_of(
    _ipv6.map(str),
    _ipv6.map(lambda ip: ip.exploded),
    _ipv6.map(lambda ip: str(ip).upper()),
    st.ip_addresses(v=4).map("::ffff:{}".format),
)
hosts = st.one_of(names, st.ip_addresses(v=4).map(str), ipv6_texts)
ports = st.integers(1, 65535)
_visible = "".join(map(chr, range(0x21, 0x7F)))
paths = st.one_of(st.just(""), st.text(_visible, max_size=1024).map("/".__add__))
relay_addresses = st.builds(Address, st.sampled_from(["wireleap", "https"]), hosts, ports, paths)
addresses = st.one_of(st.builds(Address, st.just("target"), hosts, ports), relay_addresses)

connects = st.builds(
    Connect,
    st.sampled_from(["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"]),
    addresses,
    tokens,
    st.builds(Version, st.just(CLIENT_RELAY.major), st.just(CLIENT_RELAY.minor), st.integers(0, 10**9 - 1)),
)
sizes = st.one_of(
    st.integers(0, 2**64 - 1),
    st.builds(lambda n, power: n * 1024**power, st.integers(0, 15), st.integers(0, 6)),
)
entries = st.builds(
    RelayEntry,
    st.sampled_from(["fronting", "entropic", "backing"]),
    relay_addresses,
    public_keys,
    st.dictionaries(texts, versions, max_size=5),
    st.none() | texts,
    st.none() | sizes,
)

# Bad ones

#: JSON that is legal to write down, and hard to swallow.
_INDIGESTIBLE = [
    "9" * 5000,
    "-" + "9" * 30,
    "9223372036854775808",
    "1e400",
    "1e5",
    "1.0",
    "NaN",
    "-Infinity",
    "[" * 100_000,
    "[" * 500 + "]" * 500,
    '{"a":' * 20_000 + "1" + "}" * 20_000,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\x00"',
    '"\n"',
    '{"a":1,"a":1}',
    '"",',
    "",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | wild_texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(wild_texts, inner, max_size=5),
    max_leaves=20,
)
json_texts = st.builds(json.dumps, json_values, ensure_ascii=st.booleans()) | st.sampled_from(_INDIGESTIBLE)


def places(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every container and key in JSON data at which something may be changed, with its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        below = f"{path}.{key}" if path else str(key)
        yield value, key, below
        yield from places(inner, below)


@st.composite
def spoiled(draw: st.DrawFn, good: Any) -> str:
    """Good JSON data with one to three places removed, replaced, renamed or written twice."""
    value = deepcopy(good)
    texts_by_mark: dict[str, str] = {}
    for number in range(draw(st.integers(1, 3))):
        choices = list(places(value))
        if not choices:
            break
        container, key, _ = draw(st.sampled_from(choices))
        old = container[key]
        mark = f"<{number}>"
        match draw(st.sampled_from(["remove", "replace", "rename", "repeat"])):
            case "remove":
                del container[key]
            case "replace":
                container[key] = mark
                texts_by_mark[mark] = draw(json_texts)
            case "rename":
                del container[key]
                container[draw(wild_texts)] = old
            case _:
                container[key] = mark
                texts_by_mark[mark] = f"{json.dumps(old)},{json.dumps(key)}:{json.dumps(old)}"
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    for mark, replacement in texts_by_mark.items():
        text = text.replace(json.dumps(mark), replacement)
    return text


@st.composite
def edited(draw: st.DrawFn, good: st.SearchStrategy[str]) -> str:
    """A good text with one to four characters put in, replaced or taken out."""
    text = draw(good)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(text)))
        inserted = draw(st.text(st.characters() | st.sampled_from(" .:/-+=[]\n\0\u0660²%"), max_size=1))
        text = text[:position] + inserted + text[position + draw(st.integers(0, 1)) :]
    return text


@st.composite
def damaged(draw: st.DrawFn, good: st.SearchStrategy[str]) -> bytes:
    """A good text as bytes, one to four of which are something else."""
    raw = bytearray(draw(good).encode())
    for _ in range(draw(st.integers(1, 4))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)
