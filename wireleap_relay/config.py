"""``config.json`` as a frozen value, or all of its mistakes at once (PROTOCOL: *config.json*)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NewType
from urllib.parse import unquote, urlsplit

import attrs

from wireleap_relay.wire.address import Address, is_host, join_host_port
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.endpoint import Endpoint, parse_endpoint
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.relayentry import Role
from wireleap_relay.wire.structure import Mistake, Mistaken, mistakes, strict_converter
from wireleap_relay.wire.units import parse_duration, parse_size

Duration = NewType("Duration", float)
Size = NewType("Size", int)
UMask = NewType("UMask", int)
PublishedAddress = NewType("PublishedAddress", Address)

_YEAR = 366 * 86400.0
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]*)):(\d{1,5})", re.ASCII)
_CONTRACT_KEY = re.compile(r"[^:\s]+:\S+")


class ConfigError(Exception):
    """A config can't be used.

    :ivar mistakes: everything that is wrong with it.
    """

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


@attrs.frozen
class ListenAddress:
    """Where to listen.

    :ivar host: a name or an IP address; empty for every interface.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


@attrs.frozen
class RestAddress:
    """Where the REST API is served: a TCP address, or a unix socket."""

    tcp: ListenAddress | None = None
    path: str | None = None


@attrs.frozen
class NetworkUsage:
    """How traffic is measured and bounded.

    :ivar timeframe: seconds of one window; None turns measuring off.
    :ivar global_limit: bytes per window over all contracts.
    :ivar write_interval: seconds between writes of ``stats.json``.
    :ivar archive_dir: where the record of a window goes that has closed.
    """

    timeframe: Duration | None = None
    global_limit: Size | None = None
    write_interval: Duration = Duration(60.0)
    archive_dir: str | None = None


@attrs.frozen
class ContractConfig:
    """How one contract is served.

    :ivar address: to publish.
    :ivar key: ``user:password`` for the directory.
    :ivar network_usage_limit: bytes per window.
    :ivar upgrade_channel: of the releases to follow; one contract has it.
    """

    address: PublishedAddress
    role: Role
    key: str | None = attrs.field(default=None, repr=False)
    network_usage_limit: Size | None = None
    upgrade_channel: str | None = None
    update_channel: str | None = None


@attrs.frozen
class RestApi:
    """The REST API.

    :ivar socket_umask: mode of the unix socket.
    """

    address: RestAddress | None = None
    socket_umask: UMask = UMask(0o600)


@attrs.frozen
class DangerZone:
    """What is better left off."""

    allow_loopback: bool = False


@attrs.frozen
class Config:
    """What an operator wants of a relay; durations are seconds, sizes bytes.

    :ivar archive_dir: where submitted sharetokens are archived; None for nowhere.
    :ivar auto_submit_interval: between rounds of submission; 0 turns it off.
    :ivar maxtime: longest life of a tunnel; 0 for no limit.
    :ivar timeout: of dialling.
    :ivar drain_timeout: that open tunnels have to finish when the relay stops.
    """

    address: ListenAddress
    contracts: dict[Endpoint, ContractConfig]
    archive_dir: str | None = None
    auto_submit_interval: Duration = Duration(300.0)
    maxtime: Duration = Duration(0.0)
    timeout: Duration = Duration(5.0)
    drain_timeout: Duration = Duration(30.0)
    bufsize: int = 4096
    network_usage: NetworkUsage = NetworkUsage()
    rest_api: RestApi = RestApi()
    auto_upgrade: bool = True
    danger_zone: DangerZone = DangerZone()


def parse_config(text: str | bytes) -> tuple[Config, list[str]]:
    """Read a config.

    :returns: it, and warnings: what is unknown or out of date in it.
    :raises ConfigError: with all of its mistakes.
    """
    try:
        data = read_json(text)
    except WireError as e:
        raise ConfigError([Mistake("", str(e))]) from None
    if not isinstance(data, dict):
        raise ConfigError([Mistake("", "expected a JSON object")])
    warnings = list(_unknown_keys(data))
    try:
        config = _CONVERTER.structure(data, Config)
    except Exception as e:  # noqa: BLE001 - cattrs groups whatever the hooks raise
        raise ConfigError(list(mistakes(e))) from None
    config, old_names = _rename_channels(config)
    wrong = list(_contradictions(config))
    if wrong:
        raise ConfigError(wrong)
    return config, warnings + old_names


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


# Reading single values


def _text(value: Any) -> str:
    if type(value) is not str:
        raise WireError("expected text")
    return value


def parse_listen_address(text: str) -> ListenAddress:
    """Read ``host:port``.

    :raises WireError: where it isn't that.
    """
    match = _HOST_PORT.fullmatch(text)
    host = "" if match is None else match[1] or match[2]
    if match is None or not 0 < int(match[3]) < 65536 or (host and not is_host(host)):
        raise WireError('expected an address such as "0.0.0.0:13490", ":13490" or "[::]:13490"')
    return ListenAddress(host, int(match[3]))


def _rest_address(value: Any, _: Any) -> RestAddress:
    text = _text(value)
    if text.startswith("file:///"):
        return RestAddress(path=unquote(urlsplit(text).path))
    if text.startswith("http://"):
        return RestAddress(tcp=parse_listen_address(text.removeprefix("http://").removesuffix("/")))
    raise WireError('expected an address such as "http://127.0.0.1:13491" or "file:///run/wireleap-relay.sock"')


def _published(value: Any, _: Any) -> PublishedAddress:
    address = Address.from_text(_text(value))
    if address.scheme != "wireleap":
        raise WireError("expected an address such as wireleap://relay.example.com:13490")
    return PublishedAddress(address)


def _duration(value: Any, _: Any) -> Duration:
    seconds = parse_duration(_text(value))
    if seconds > 10 * _YEAR:
        raise WireError("expected at most ten years")
    return Duration(seconds)


def _umask(value: Any, _: Any) -> UMask:
    text = _text(value)
    if not re.fullmatch("[0-7]{3}", text):
        raise WireError('expected three octal digits such as "600"')
    return UMask(int(text, 8))


def _contracts(value: Any, _: Any) -> dict[Endpoint, ContractConfig]:
    if type(value) is not dict or not value:
        raise WireError("expected a JSON object with at least one contract, by its URL")
    found: dict[Endpoint, ContractConfig] = {}
    wrong: list[Mistake] = []
    for url, fields in value.items():
        path = contract_path(url)
        try:
            found[parse_endpoint(url)] = _CONVERTER.structure(fields, ContractConfig)
        except Exception as e:  # noqa: BLE001 - cattrs groups whatever the hooks raise
            wrong += mistakes(e, path)
    if wrong:
        raise Mistaken(wrong)
    return found


def contract_path(url: str) -> str:
    """Name a contract's place in the config."""
    return f'contracts["{url}"]'


def _make_converter() -> Any:
    converter = strict_converter()
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
        Duration: _duration,
        Size: lambda value, _: Size(parse_size(_text(value))),
        UMask: _umask,
        PublishedAddress: _published,
        ListenAddress: lambda value, _: parse_listen_address(_text(value)),
        RestAddress: _rest_address,
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(lambda kind: kind == dict[Endpoint, ContractConfig], _contracts)
    return converter


_CONVERTER = _make_converter()


# Looking at the whole


def _rename_channels(config: Config) -> tuple[Config, list[str]]:
    warnings: list[str] = []
    contracts: dict[Endpoint, ContractConfig] = {}
    for url, contract in config.contracts.items():
        channel = contract.upgrade_channel
        if contract.update_channel is not None:
            warnings.append(f"{contract_path(url)}.update_channel: the name is out of date: call it upgrade_channel")
            channel = channel or contract.update_channel
        if channel is None and len(config.contracts) == 1:
            channel = "default"
        contracts[url] = attrs.evolve(contract, upgrade_channel=channel, update_channel=None)
    return attrs.evolve(config, contracts=contracts), warnings


def _contradictions(config: Config) -> Iterator[Mistake]:
    if not config.timeout:
        yield Mistake("timeout", "expected more than 0s")
    if not 1 <= config.bufsize <= 2**30:
        yield Mistake("bufsize", "expected a number of bytes from 1 to 1073741824")
    usage = config.network_usage
    if usage.timeframe is not None and usage.timeframe < 1:
        yield Mistake("network_usage.timeframe", "expected at least 1s")
    if usage.write_interval < 1:
        yield Mistake("network_usage.write_interval", "expected at least 1s")
    if usage.global_limit == 0:
        yield Mistake("network_usage.global_limit", "expected more than 0B; leave it out for no limit")
    for url, contract in config.contracts.items():
        path = contract_path(url)
        if contract.network_usage_limit == 0:
            yield Mistake(f"{path}.network_usage_limit", "expected more than 0B; leave it out for no limit")
        if contract.key is not None and not _CONTRACT_KEY.fullmatch(contract.key):
            yield Mistake(f"{path}.key", "expected user:password")
    channels = [url for url, contract in config.contracts.items() if contract.upgrade_channel is not None]
    if len(channels) != 1:
        yield Mistake(
            "contracts",
            f"expected exactly one contract with an upgrade_channel, where there are several; {len(channels)} have it",
        )


def _unknown_keys(data: dict[str, Any]) -> Iterator[str]:
    yield from _unknown(data, Config, "")
    for name, kind in (("network_usage", NetworkUsage), ("rest_api", RestApi), ("danger_zone", DangerZone)):
        if isinstance(data.get(name), dict):
            yield from _unknown(data[name], kind, f"{name}.")
    if isinstance(data.get("contracts"), dict):
        for url, fields in data["contracts"].items():
            if isinstance(fields, dict):
                yield from _unknown(fields, ContractConfig, f"{contract_path(url)}.")


def _unknown(fields: dict[str, Any], kind: type[attrs.AttrsInstance], path: str) -> Iterator[str]:
    known = [field.name for field in attrs.fields(kind)]
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            yield f"{path}{name}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
