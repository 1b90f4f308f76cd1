"""What a relay's parts are told out of its config."""

from __future__ import annotations

from wireleap_relay.config import Config, NetworkUsage
from wireleap_relay.contracts.limits import GlobalLimit
from wireleap_relay.contracts.service import ContractSettings
from wireleap_relay.home import Home
from wireleap_relay.tokens.archive import Archive
from wireleap_relay.usage.service import UsageSettings
from wireleap_relay.usage.window import CalendarFrame, TimeFrame


def contract_settings(config: Config) -> dict[str, ContractSettings]:
    """Give what the config says of each contract, by its URL."""
    return dict(config.contracts.items())


def global_limit(config: Config) -> GlobalLimit:
    """Give what all contracts may use together."""
    return GlobalLimit(config.network_usage.global_limit, config.network_usage.global_soft)


def usage_settings(home: Home, usage: NetworkUsage) -> UsageSettings:
    """Give how usage is measured and kept."""
    frame = CalendarFrame(usage.start) if usage.start else TimeFrame(round((usage.timeframe or 0) * 1000))
    return UsageSettings(frame, home.inside(usage.archive_dir) if usage.archive_dir else None, usage.write_interval)


def archive(home: Home, config: Config) -> Archive | None:
    """Give where sharetokens go that contracts have accepted; None where they are not kept."""
    return Archive(home.inside(config.archive_dir)) if config.archive_dir else None
