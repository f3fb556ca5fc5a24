"""Which addresses the service may connect to on a client's word: those of the public Internet, and no others.

Pure functions. The table is the IANA registries of special-purpose addresses (RFC 6890), kept here because
`ipaddress.is_global` differs between Python releases and calls some of these ranges global.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from gateway.errors import UrlNotAllowed

Address = IPv4Address | IPv6Address

LONGEST_URL = 2048
_HTTPS_PORT = 443
_AUTHORITY_END = re.compile(r"[/?#]")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)*{_LABEL}")

_REFUSED_V4 = [
    IPv4Network("0.0.0.0/8"),  # this network
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),  # shared by carriers
    IPv4Network("127.0.0.0/8"),
    IPv4Network("168.63.129.16/32"),  # Azure's host, seen from its guests
    IPv4Network("169.254.0.0/16"),  # link-local, and the metadata of most clouds
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.0.2.0/24"),  # documentation
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("192.168.0.0/16"),
    IPv4Network("198.18.0.0/15"),  # benchmarks
    IPv4Network("198.51.100.0/24"),  # documentation
    IPv4Network("203.0.113.0/24"),  # documentation
    IPv4Network("224.0.0.0/4"),  # multicast
    IPv4Network("240.0.0.0/4"),  # reserved, and broadcast
]

# All that is public in IPv6 is in 2000::/3. Loopback, ::/96, unique local, link-local, site-local, multicast,
# 64:ff9b:1::/48 (NAT64 of local networks, RFC 8215) and 5f00::/16 (segment routing) do not.
_PUBLIC_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = [
    IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("3fff::/20"),  # documentation
]
# These carry an IPv4 address in their last 32 bits, and that is the address that is reached.
_EMBEDDING_V6 = [
    IPv6Network("::ffff:0:0/96"),  # mapped
    IPv6Network("64:ff9b::/96"),  # NAT64
]
_ISATAP = 0x00005EFE  # third quarter of the address; the bit that says "globally unique" may be set
_ISATAP_MASK = 0xFDFFFFFF


def is_public(address: Address) -> bool:
    """Whether `address` is of the public Internet, also seen through what tunnels and translators make of it.

    Mapped and NAT64 forms are judged by the IPv4 address in them, since networks with IPv6 only see the whole IPv4
    Internet so; the tunnels 6to4, Teredo and ISATAP carry nothing of the kind and are refused whatever they hold.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4) and address.is_global
    if address.scope_id is not None:
        return False
    if any(address in network for network in _EMBEDDING_V6):
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if int(address) >> 32 & _ISATAP_MASK == _ISATAP:
        return False
    return address in _PUBLIC_V6 and not any(address in network for network in _REFUSED_V6) and address.is_global


def parse_url(text: str, ports: frozenset[int]) -> httpx.URL:
    """A URL that may be asked for, as far as its text tells. Raises UrlNotAllowed."""
    if len(text) > LONGEST_URL:
        raise UrlNotAllowed(f"the URL has {len(text)} characters, at most {LONGEST_URL} are accepted")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise UrlNotAllowed("this is not a URL; send one like https://example.com/picture.jpg") from error
    if url.scheme != "https":
        raise UrlNotAllowed("the URL must begin with https://")
    if "@" in _AUTHORITY_END.split(text.partition("//")[2], maxsplit=1)[0]:
        raise UrlNotAllowed("the URL may hold no user name or password")
    port = _HTTPS_PORT if url.port is None else url.port
    if port not in ports:
        raise UrlNotAllowed(f"port {port} is not allowed, only {', '.join(map(str, sorted(ports)))}")
    if not _is_host(url.raw_host.decode("ascii")):
        raise UrlNotAllowed("the URL names no host, or not in the form of a host name or an address")
    return url


def _is_host(host: str) -> bool:
    if _NAME.fullmatch(host):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # no zone
