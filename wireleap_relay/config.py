"""``config.json`` as a frozen value, or all of its mistakes at once (PROTOCOL: *config.json*)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from wireleap_relay.clientlimits import GENEROUS, ClientLimits
from wireleap_relay.configvalues import (
    DAY,
    HOUR,
    NO_DECOY,
    YEAR,
    CalendarStart,
    DecoyChoice,
    ListenAddress,
    PublishedAddress,
    RestAddress,
    bind_addresses,
    calendar_start,
    contract_key,
    decoy,
    file_name,
    folder,
    limit,
    listen_address,
    manhole_address,
    published,
    rest_address,
    seconds,
    umask,
    user_name,
    whole,
    worker_count,
)
from wireleap_relay.exitpolicy import PRESETS, ExitPolicy, exit_policy
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.endpoint import Endpoint, parse_endpoint
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.jsontext import below, position, repeated_keys
from wireleap_relay.wire.relayentry import Role
from wireleap_relay.wire.structure import Mistake, Mistaken, mistakes, strict_converter


class ConfigError(Exception):
    """A config can't be used.

    :ivar mistakes: everything that is wrong with it.
    :ivar warnings: what is odd about it besides; it may explain a mistake.
    """

    def __init__(self, mistakes: list[Mistake], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes
        self.warnings = warnings


@attrs.frozen
class NetworkUsage:
    """How traffic is measured and bounded.

    :ivar timeframe: seconds of one window.
    :ivar start: when windows begin that follow the calendar, whatever ``timeframe`` says.
    :ivar global_limit: bytes per window over all contracts.
    :ivar global_soft: whether new tunnels are refused ahead of the global limit.
    :ivar write_interval: seconds between writes of ``stats.json``.
    :ivar archive_dir: where the record of a window goes that has closed.
    """

    timeframe: Annotated[float, seconds(1, 10 * YEAR, or_zero=True)] | None = None
    start: Annotated[CalendarStart, calendar_start] | None = None
    global_limit: Annotated[int, limit] | None = None
    global_soft: bool = False
    write_interval: Annotated[float, seconds(1, YEAR)] = 60.0
    archive_dir: Annotated[str, folder] | None = None

    @property
    def measured(self) -> bool:
        """Whether traffic is measured at all."""
        return bool(self.timeframe or self.start)


@attrs.frozen
class ContractConfig:
    """How one contract is served.

    :ivar address: to publish.
    :ivar key: ``user:password`` for the directory.
    :ivar network_usage_limit: bytes per window.
    :ivar upgrade_channel: of the releases to follow; one contract has it.
    """

    address: Annotated[PublishedAddress, published]
    role: Role
    key: Annotated[str, contract_key] | None = attrs.field(default=None, repr=False)
    network_usage_limit: Annotated[int, limit] | None = None
    upgrade_channel: str | None = None
    update_channel: str | None = None


@attrs.frozen
class RestApi:
    """The REST API.

    :ivar socket_umask: mode of the unix socket.
    """

    address: Annotated[RestAddress, rest_address] | None = None
    socket_umask: Annotated[int, umask] = 0o600


@attrs.frozen
class LogSettings:
    """What is logged, and how.

    :ivar level: the least of what is told of.
    """

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warn", "error"] = "info"


@attrs.frozen
class Manhole:
    """The Python prompt inside the daemon.

    :ivar authorized_keys: the file with the keys that are let in.
    """

    address: Annotated[RestAddress, manhole_address] | None = None
    authorized_keys: Annotated[str, file_name] | None = None


@attrs.frozen
class DangerZone:
    """What is better left off.

    :ivar allow_loopback: the relay may dial loopback addresses.
    :ivar allow_private: it may dial private networks, and IPv4 hidden in IPv6 addresses.
    :ivar allow_targets: it dials clearnet targets whatever its role is.
    """

    allow_loopback: bool = False
    allow_private: bool = False
    allow_targets: bool = False


@attrs.frozen
class Config:
    """What an operator wants of a relay; durations are seconds, sizes bytes.

    :ivar archive_dir: where submitted sharetokens are archived; None for nowhere.
    :ivar auto_submit_interval: between rounds of submission; 0 turns it off.
    :ivar maxtime: longest life of a tunnel; 0 for no limit.
    :ivar timeout: of dialling.
    :ivar workers: processes that serve clients; 0 for the daemon itself, None for one per processor core.
    :ivar drain_timeout: that open tunnels have to finish when the relay stops.
    :ivar decoy: what strangers are shown.
    :ivar limits: of what clients may ask.
    :ivar user: whose rights to run with when started as root.
    :ivar bind_address: outgoing connections' own addresses, at most one of each family; empty for the system's choice.
    """

    address: Annotated[ListenAddress, listen_address]
    contracts: dict[Endpoint, ContractConfig]
    archive_dir: Annotated[str, folder] | None = None
    auto_submit_interval: Annotated[float, seconds(0.1, YEAR, or_zero=True)] = 300.0
    maxtime: Annotated[float, seconds(0.1, YEAR, or_zero=True)] = 0.0
    timeout: Annotated[float, seconds(0.01, HOUR)] = 5.0
    drain_timeout: Annotated[float, seconds(0, DAY)] = 30.0
    workers: Annotated[int, worker_count] | None = None
    bufsize: Annotated[int, whole(1, 2**30)] = 4096
    network_usage: NetworkUsage = NetworkUsage()
    exit_policy: Annotated[ExitPolicy, exit_policy] = PRESETS["default"]
    decoy: Annotated[DecoyChoice, decoy] = NO_DECOY
    limits: ClientLimits = GENEROUS
    user: Annotated[str, user_name] | None = None
    bind_address: Annotated[tuple[IPv4Address | IPv6Address, ...], bind_addresses] = ()
    rest_api: RestApi = RestApi()
    manhole: Manhole = Manhole()
    auto_upgrade: bool = True
    danger_zone: DangerZone = DangerZone()
    log: LogSettings = LogSettings()


def parse_config(text: str | bytes) -> tuple[Config, list[str]]:
    """Read a config.

    :returns: it, and warnings: what is unknown or out of date in it.
    :raises ConfigError: with all of its mistakes.
    """
    data = _read_object(text)
    warnings = list(_unknown_keys(data))
    contradictions = list(_contradictions(data.get("contracts")))
    try:
        config = _CONVERTER.structure(data, Config)
    except Exception as e:  # noqa: BLE001 - cattrs groups whatever the hooks raise
        raise ConfigError([*mistakes(e), *contradictions], warnings) from None
    if contradictions:
        raise ConfigError(contradictions, warnings)
    if not config.exit_policy.decides_everything:
        warnings.append(
            "exit_policy: what no rule matches is rejected; end with `accept *:*` or `reject *:*` to say so"
        )
    if config.manhole.address is not None and config.manhole.authorized_keys is None:
        raise ConfigError(
            [Mistake("manhole.authorized_keys", "expected the name of a file with public keys")], warnings
        )
    config, old_names = _rename_channels(config)
    return config, warnings + old_names + list(_limits_without_effect(config))


def example_config() -> str:
    """Give a config with every common key, for operators to begin with."""
    example = {
        "address": "0.0.0.0:13490",
        "archive_dir": "archive/sharetokens",
        "auto_submit_interval": "5m0s",
        "maxtime": "0s",
        "timeout": "5s",
        "drain_timeout": "30s",
        "network_usage": {
            "timeframe": "30d",
            "global_limit": "10TB",
            "write_interval": "1m",
            "archive_dir": "archive/network_usage",
        },
        "contracts": {
            "https://contract.example.com": {
                "address": "wireleap://relay.example.com:13490",
                "role": "backing",
                "network_usage_limit": "5TB",
                "upgrade_channel": "default",
            }
        },
        "rest_api": {"address": "http://127.0.0.1:13491"},
        "auto_upgrade": True,
    }
    return json.dumps(example, indent=4) + "\n"


# Looking at the whole


def _read_object(text: str | bytes) -> dict[str, Any]:
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as e:
        before = e.object[: e.start].decode("utf-8")
        raise ConfigError([Mistake("", f"not UTF-8 text ({position(before, len(before))})")]) from None
    try:
        data = read_json(text)
    except WireError as e:
        raise ConfigError(list(repeated_keys(text)) or [Mistake("", str(e))]) from None
    if not isinstance(data, dict):
        raise ConfigError([Mistake("", "expected a JSON object")])
    return data


def _contracts(value: Any, _: Any) -> dict[Endpoint, ContractConfig]:
    if type(value) is not dict or not value:
        raise WireError("expected a JSON object with at least one contract, by its URL")
    found: dict[Endpoint, ContractConfig] = {}
    wrong: list[Mistake] = []
    for url, fields in value.items():
        path = below("contracts", url)
        try:
            parse_endpoint(url)
        except WireError as e:
            wrong.append(Mistake(path, str(e)))
        try:
            found[Endpoint(url)] = _CONVERTER.structure(fields, ContractConfig)
        except Exception as e:  # noqa: BLE001 - cattrs groups whatever the hooks raise
            wrong += mistakes(e, path)
    if wrong:
        raise Mistaken(wrong)
    return found


def _contradictions(contracts: Any) -> Iterator[Mistake]:
    """Look at contracts beside each other, whatever may be wrong with each of them."""
    if type(contracts) is not dict or len(contracts) < 2:
        return
    known: dict[str, str] = {}
    for url in contracts:
        first = known.setdefault(url.rstrip("/"), url)
        if first != url:
            yield Mistake(below("contracts", url), f"is the same contract as {first}")
    watched = sum(isinstance(fields, dict) and bool(_channel(fields)) for fields in contracts.values())
    if watched != 1:
        yield Mistake(
            "contracts",
            f"expected exactly one contract with an upgrade_channel, where there are several; {watched} have it",
        )


def _channel(fields: dict[str, Any]) -> Any:
    return fields.get("upgrade_channel") or fields.get("update_channel")


def _rename_channels(config: Config) -> tuple[Config, list[str]]:
    warnings: list[str] = []
    contracts: dict[Endpoint, ContractConfig] = {}
    for url, contract in config.contracts.items():
        if contract.update_channel is not None:
            path = below(below("contracts", url), "update_channel")
            warnings.append(f"{path}: the name is out of date: call it upgrade_channel")
        only = "default" if len(config.contracts) == 1 else None
        channel = _channel(attrs.asdict(contract, recurse=False)) or only
        contracts[url] = attrs.evolve(contract, upgrade_channel=channel, update_channel=None)
    return attrs.evolve(config, contracts=contracts), warnings


def _limits_without_effect(config: Config) -> Iterator[str]:
    usage = config.network_usage
    if usage.timeframe and usage.start:
        yield "network_usage.timeframe: has no effect beside network_usage.start"
    if usage.global_soft and usage.global_limit is None:
        yield "network_usage.global_soft: has no effect without network_usage.global_limit"
    if usage.measured:
        return
    without = "DOES NOT HOLD: nothing is measured without network_usage.timeframe or network_usage.start"
    if usage.global_limit is not None:
        yield f"network_usage.global_limit: {without}"
    for url, contract in config.contracts.items():
        if contract.network_usage_limit is not None:
            yield f"{below(below('contracts', url), 'network_usage_limit')}: {without}"


def _unknown_keys(data: dict[str, Any]) -> Iterator[str]:
    yield from _unknown(data, Config, "")
    for name, kind in (
        ("network_usage", NetworkUsage),
        ("rest_api", RestApi),
        ("manhole", Manhole),
        ("danger_zone", DangerZone),
        ("log", LogSettings),
        ("limits", ClientLimits),
    ):
        yield from _unknown(data.get(name), kind, name)
    contracts = data.get("contracts")
    if isinstance(contracts, dict):
        for url, fields in contracts.items():
            yield from _unknown(fields, ContractConfig, below("contracts", url))


def _unknown(fields: Any, kind: type[attrs.AttrsInstance], path: str) -> Iterator[str]:
    known = [field.name for field in attrs.fields(kind)]
    for name in fields if isinstance(fields, dict) else ():
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, 1)
            yield f"{below(path, name)}: unknown key" + (f"; did you mean {near[0]}?" if near else "")


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)


def _make_converter() -> Any:
    converter = strict_converter()

    def read_optional(value: Any, kind: Any) -> Any:
        # A key may be left out; null is no value of it.
        [wanted] = (choice for choice in get_args(kind) if choice is not NoneType)
        return converter.structure(value, wanted)

    converter.register_structure_hook_func(_is_optional, read_optional)
    converter.register_structure_hook_func(
        lambda kind: hasattr(kind, "__metadata__"), lambda value, kind: kind.__metadata__[0](value)
    )
    converter.register_structure_hook_func(lambda kind: kind == dict[Endpoint, ContractConfig], _contracts)
    return converter


_CONVERTER = _make_converter()
