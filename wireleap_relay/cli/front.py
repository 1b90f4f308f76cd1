"""The command that prints a web server's configuration for a relay that is to stand behind it."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from importlib.resources import files

import attrs

from wireleap_relay.cli.command import OK, Command, CommandError, warn
from wireleap_relay.config import Config, parse_config
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.home import Home
from wireleap_relay.wire.address import Address, join_host_port
from wireleap_relay.wire.jsontext import below

_PLAIN_PATH = re.compile(r"[A-Za-z0-9._~/-]*")


@attrs.frozen
class Front:
    """A web site with a relay behind one of its paths.

    :ivar published: where clients find the relay: the site's address and the path.
    :ivar relay: where the relay listens.
    :ivar certificate: file with the site's certificate and those that lead to it; for HAProxy with its key, too.
    :ivar key: file with the certificate's key.
    :ivar root: folder of the site's pages.
    """

    published: Address
    relay: ListenAddress
    certificate: str
    key: str
    root: str = "/var/www/html"

    @property
    def near(self) -> str:
        """Where a server on the same machine finds the relay, if not at a unix socket."""
        everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
        return join_host_port(everywhere.get(self.relay.host, self.relay.host), self.relay.port)


def render(server: str, front: Front) -> str:
    """Write a server's configuration.

    :param server: one of :data:`SERVERS`.
    """
    name, of_server = SERVERS[server]
    values = {
        "HOST": front.published.host if ":" not in front.published.host else f"[{front.published.host}]",
        "PORT": str(front.published.port),
        "PATH": front.published.path,
        "CERTIFICATE": front.certificate,
        "KEY": front.key,
        "ROOT": front.root,
        **of_server(front),
    }
    text = files("wireleap_relay.cli").joinpath("fronts", name).read_text("utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _nginx(front: Front) -> Mapping[str, str]:
    relay = front.relay
    return {
        "NGINX_SERVER": f"unix:{relay.path}" if relay.path else front.near,
        "NGINX_PASS": f"{'grpc' if relay.plain else 'grpcs'}://wireleap_relay",
    }


def _apache(front: Front) -> Mapping[str, str]:
    scheme = "h2c" if front.relay.plain else "h2"
    where = f"unix:{front.relay.path}|{scheme}://localhost" if front.relay.path else f"{scheme}://{front.near}"
    return {"APACHE_PASS": where + front.published.path}


def _haproxy(front: Front) -> Mapping[str, str]:
    where = f"unix@{front.relay.path}" if front.relay.path else front.near
    return {"HAPROXY_SERVER": f"{where} {'proto h2' if front.relay.plain else 'ssl verify none alpn h2'}"}


def _caddy(front: Front) -> Mapping[str, str]:
    where = f"unix/{front.relay.path}" if front.relay.path else front.near
    if front.relay.plain:
        return {"CADDY_PASS": where, "CADDY_VERSIONS": "h2c 2"}
    return {"CADDY_PASS": where, "CADDY_VERSIONS": "2\n                tls_insecure_skip_verify"}


#: The file with a server's configuration, and what has to be filled in there for no other.
SERVERS: Mapping[str, tuple[str, Callable[[Front], Mapping[str, str]]]] = {
    "nginx": ("nginx.conf", _nginx),
    "apache": ("apache.conf", _apache),
    "haproxy": ("haproxy.cfg", _haproxy),
    "caddy": ("Caddyfile", _caddy),
}


def _front(arguments: Namespace) -> int:
    home: Home = arguments.home
    config, warnings = parse_config(home.read_config())
    warn(warnings)
    published = _published(config, arguments.contract)
    for path in (published.path, config.address.path):
        if not _PLAIN_PATH.fullmatch(path):
            raise CommandError(
                f"{path}: web servers' configurations have their own ideas of this: use letters, digits and . _ ~ - only"
            )
    front = Front(published, config.address, *_certificate(arguments.server, published.host))
    print(render(arguments.server, front), end="")
    return OK


def _certificate(server: str, host: str) -> tuple[str, str]:
    if server == "haproxy":  # it has certificate and key in one file
        return f"/etc/haproxy/{host}.pem", f"/etc/haproxy/{host}.pem"
    return f"/etc/letsencrypt/live/{host}/fullchain.pem", f"/etc/letsencrypt/live/{host}/privkey.pem"


def _published(config: Config, contract: str | None) -> Address:
    if contract is not None and contract not in config.contracts:
        raise CommandError(f"--contract: {contract} is none of the config's contracts")
    addresses = {
        fields.address: below(below("contracts", url), "address")
        for url, fields in config.contracts.items()
        if contract in (None, url)
    }
    if len(addresses) > 1:
        raise CommandError("the contracts have several addresses: say which one with --contract URL")
    [(address, key)] = addresses.items()
    if address.path in ("", "/"):
        raise CommandError(
            f"{key}: has no path, and a web server needs one to tell tunnels from visitors: publish an address such as"
            f" wireleap://{address.host_port}/wireleap"
        )
    return address


def _front_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("server", metavar="SERVER", choices=sorted(SERVERS), help=", ".join(sorted(SERVERS)))
    parser.add_argument("--contract", metavar="URL", help="whose published address, where contracts have several")


FRONT = Command(
    "front",
    "print a web server's configuration that passes tunnels to this relay",
    "Prints a complete configuration for nginx, Apache, HAProxy or Caddy: a web site of your own at the address that"
    " this relay's config publishes, and the relay behind its path. The site's certificate is expected where certbot"
    " puts it. docs/fronting.md tells which server can do what.",
    _front,
    _front_arguments,
)
