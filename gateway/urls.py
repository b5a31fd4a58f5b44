"""Which URLs of callers the gateway fetches or connects to.

A caller's URL makes the gateway send a request from where it stands, often inside a private
network. So its host must be in a list of the configuration, and what the host's name resolves to
is looked at before anything is connected to:

- an entry such as ``tools.example.com`` or ``10.0.0.7`` is a host by its exact name, and may lie
  in a private network, since somebody has named it;
- ``*.example.com`` is every host below that domain, and ``*`` every host; at public addresses;
- link-local addresses (where clouds hand out credentials) are never connected to.

What the configuration itself names, such as a connector, is trusted and may be anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from gateway.errors import InvalidRequest

__all__ = ["UrlPolicy", "host_of", "is_allowed_entry"]

MAX_URL_CHARACTERS = 8192
_NAME = re.compile(
    r"^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$"
)
_NUMBER = re.compile(r"^(0x[0-9a-f]*|\d+)$")
_AZURE_WIRE_SERVER = ip_address("168.63.129.16")
"""Public by its number, and yet the host of every virtual machine there."""
_NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class UrlPolicy:
    """The hosts of one setting, whose name is in every refusal."""

    def __init__(self, allowed_hosts: Sequence[str], setting: str) -> None:
        entries = [entry.lower().rstrip(".") for entry in allowed_hosts]
        self._setting = setting
        self._any = "*" in entries
        self._names = frozenset(one for one in entries if "*" not in one)
        self._domains = tuple(one[1:] for one in entries if one.startswith("*."))

    def check(self, url: str, param: str) -> str:
        """The URL's host, where a caller may name it. Raises ``InvalidRequest``.

        The host's addresses are not looked up here: :meth:`admits` is asked when a connection
        is made.
        """
        split = _split(url, param)
        host = host_of(url)
        if split.scheme not in ("http", "https"):
            raise _refused("only http and https URLs can be used", param)
        if "@" in split.netloc:
            raise _refused("it holds a user or a password; send credentials as headers", param)
        if host is None:
            raise _refused("it has no host that can be read", param)
        if not self._lists(host):
            raise InvalidRequest(
                f"Invalid '{param}': the host '{host[:255]}' is not allowed. Whoever runs the "
                f"gateway can add it to '{self._setting}'.",
                param=param,
                code="host_not_allowed",
            )
        address = _literal(host)
        if address is not None and not self.admits(host, address):
            raise _refused(f"'{host}' is not a public address", param)
        return host

    def admits(self, host: str, address: Address) -> bool:
        """Whether this host may be connected to at this address."""
        host = host.lower().rstrip(".")
        if not self._lists(host):
            return False
        if host in self._names:
            return all(_is_named_place(one) for one in _meanings(address))
        return all(_is_public(one) for one in _meanings(address))

    def _lists(self, host: str) -> bool:
        return self._any or host in self._names or host.endswith(self._domains)


def host_of(url: str) -> str | None:
    """The host of a URL in lower case; ``None`` where it isn't written as hosts are."""
    try:
        host = (urlsplit(url).hostname or "").lower().rstrip(".")
    except ValueError:
        return None
    if _literal(host) is not None:
        return host if "%" not in host else None
    labels = host.split(".")
    if not _NAME.match(host) or len(host) > 253 or _NUMBER.match(labels[-1]):
        # A name that ends in a number is an address in an old notation: 0x7f.1, 2130706433, 017.
        return None
    return host


def is_allowed_entry(entry: str) -> bool:
    """Whether this can stand in a list of hosts."""
    name = entry.removeprefix("*.")
    return entry == "*" or (
        "*" not in name
        and host_of(f"http://[{name}]" if ":" in name else f"http://{name}") == name.lower()
    )


def _split(url: str, param: str) -> SplitResult:
    if len(url) > MAX_URL_CHARACTERS:
        raise _refused(f"it is longer than {MAX_URL_CHARACTERS} characters", param)
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _refused("it holds characters that a URL can't have; write them encoded", param)
    try:
        split = urlsplit(url)
        _ = split.port  # raises for what is no port
    except ValueError:
        raise _refused("it can't be read", param) from None
    return split


def _refused(why: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{param}': this URL can't be used, {why}.", param=param, code="invalid_url"
    )


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _meanings(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address that is inside of it."""
    yield address
    if not isinstance(address, IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif address in _NAT64 or int(address) >> 32 == 0:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return True  # what it maps to counts, and is asked about too
    return address.is_global and not address.is_multicast and address != _AZURE_WIRE_SERVER


def _is_named_place(address: Address) -> bool:
    """Whether a host that is listed by its name may be there."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return True
    return not (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == _AZURE_WIRE_SERVER
        or address in _METADATA
    )


_METADATA = frozenset(
    map(ip_address, ("100.100.100.200", "fd00:ec2::254", "192.0.0.192", "fd20:ce::254"))
)
"""Where clouds hand out credentials at addresses that aren't link-local."""
