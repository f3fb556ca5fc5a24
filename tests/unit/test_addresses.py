"""Only the public Internet may be reached on a client's word."""

import ipaddress

import pytest

from gateway.errors import UrlNotAllowed
from gateway.outbound.addresses import is_public, parse_url

HTTPS_ONLY = frozenset({443})

REFUSED = {
    "this-network": "0.0.0.0",
    "this-network-last": "0.255.255.255",
    "private-10": "10.0.0.1",
    "private-172": "172.31.255.255",
    "private-192": "192.168.1.1",
    "carrier-grade-nat": "100.64.0.1",
    "alibaba-metadata": "100.100.100.200",
    "loopback": "127.0.0.1",
    "loopback-last": "127.255.255.255",
    "link-local": "169.254.0.1",
    "cloud-metadata": "169.254.169.254",
    "azure-wire-server": "168.63.129.16",
    "protocol-assignments": "192.0.0.8",
    "oracle-metadata": "192.0.0.192",
    "documentation-1": "192.0.2.1",
    "documentation-2": "198.51.100.1",
    "documentation-3": "203.0.113.1",
    "6to4-relay-anycast": "192.88.99.1",
    "benchmark": "198.19.0.1",
    "multicast": "224.0.0.1",
    "multicast-global-scope": "232.1.1.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6-unspecified": "::",
    "v6-loopback": "::1",
    "v6-compatible-private": "::10.0.0.1",
    "v6-compatible-public": "::8.8.8.8",
    "v6-mapped-loopback": "::ffff:127.0.0.1",
    "v6-mapped-private": "::ffff:10.1.2.3",
    "v6-mapped-metadata": "::ffff:169.254.169.254",
    "v6-mapped-shared": "::ffff:100.64.0.1",
    "v6-translated": "::ffff:0:10.0.0.1",
    "nat64-loopback": "64:ff9b::127.0.0.1",
    "nat64-private": "64:ff9b::10.0.0.1",
    "nat64-metadata": "64:ff9b::a9fe:a9fe",
    "nat64-local-prefix": "64:ff9b:1::808:808",
    "nat64-local-prefix-end": "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
    "6to4-private": "2002:a00:1::1",
    "6to4-loopback": "2002:7f00:1::",
    "6to4-public": "2002:808:808::1",
    "teredo-private-client": "2001:0:808:808:0:0:f5ff:fffe",
    "teredo-public": "2001:0:808:808:0:0:f7f7:f7f7",
    "isatap-private": "2a00:1450:4001:800:0:5efe:10.0.0.1",
    "isatap-global-bit": "2a00:1450:4001:800:200:5efe:192.168.0.1",
    "isatap-public": "2a00:1450:4001:800:200:5efe:8.8.8.8",
    "discard-only": "100::1",
    "dummy-prefix": "100:0:0:1::1",
    "v6-benchmark": "2001:2::1",
    "orchid": "2001:10::1",
    "orchid-2": "2001:20::1",
    "v6-documentation": "2001:db8::1",
    "v6-documentation-2": "3fff::1",
    "segment-routing": "5f00::1",
    "unique-local": "fc00::1",
    "aws-metadata-v6": "fd00:ec2::254",
    "v6-link-local": "fe80::1",
    "v6-link-local-with-zone": "fe80::1%eth0",
    "public-with-zone": "2a00:1450::1%eth0",
    "site-local": "fec0::1",
    "v6-multicast": "ff02::1",
    "v6-multicast-global-scope": "ff0e::1",
    "v6-unassigned": "4000::1",
}

PUBLIC = {
    "v4": "8.8.8.8",
    "v4-before-10": "9.255.255.255",
    "v4-after-10": "11.0.0.0",
    "v4-before-shared": "100.63.255.255",
    "v4-after-shared": "100.128.0.0",
    "v4-after-172": "172.32.0.0",
    "v4-last": "223.255.255.255",
    "azure-neighbour": "168.63.129.17",
    "v6": "2a00:1450:4001:800::200e",
    "v6-after-protocol-assignments": "2001:200::1",
    "v6-before-documentation": "2001:db7:ffff::1",
    "v6-after-documentation": "3fff:1000::1",
    "v6-after-6to4": "2003::1",
    "mapped-public": "::ffff:8.8.8.8",
    "nat64-public": "64:ff9b::8.8.8.8",
}

BAD_URLS = {
    "empty": "",
    "no-scheme": "example.com/a.jpg",
    "scheme-relative": "//example.com/a.jpg",
    "http": "http://example.com/a.jpg",
    "ftp": "ftp://example.com/a.jpg",
    "file": "file:///etc/passwd",
    "data": "data:image/png;base64,AAAA",
    "gopher": "gopher://example.com/",
    "no-host": "https:///a.jpg",
    "no-authority": "https:example.com",
    "user": "https://user@example.com/",
    "user-and-password": "https://user:secret@example.com/",
    "empty-user": "https://@example.com/",
    "backslash-user": "https://example.com\\@10.0.0.1/",
    "other-port": "https://example.com:8443/",
    "port-zero": "https://example.com:0/",
    "port-negative": "https://example.com:-1/",
    "port-of-redis": "https://example.com:6379/",
    "port-not-a-number": "https://example.com:https/",
    "space": "https://exa mple.com/",
    "newline": "https://example.com/\r\nX-Injected: 1",
    "nul": "https://example.com\x00.evil/",
    "leading-dot": "https://.example.com/",
    "double-dot": "https://example..com/",
    "trailing-dot": "https://example.com./",
    "long-label": f"https://{'a' * 64}.com/",
    "long-name": f"https://{'a.' * 130}com/",
    "escaped-dot": "https://example%2ecom/",
    "zone": "https://[fe80::1%25eth0]/",
    "half-address": "https://[::1/",
    "lone-surrogate": "https://\ud800.com/",
    "too-long": f"https://example.com/{'a' * 2048}",
}

GOOD_URLS = {
    "plain": ("https://example.com/a.jpg", b"example.com", b"/a.jpg"),
    "upper-case": ("HTTPS://EXAMPLE.com/A.jpg", b"example.com", b"/A.jpg"),
    "no-path": ("https://example.com", b"example.com", b"/"),
    "default-port": ("https://example.com:443/", b"example.com", b"/"),
    "query-with-at": ("https://example.com?by=a@b", b"example.com", b"/?by=a@b"),
    "fragment-is-not-sent": ("https://example.com/a#b@c", b"example.com", b"/a"),
    "international": ("https://exämple.com/ä", b"xn--exmple-cua.com", b"/%C3%A4"),
    "address": ("https://8.8.8.8/", b"8.8.8.8", b"/"),
    "address-v6": ("https://[2a00:1450::1]/", b"2a00:1450::1", b"/"),
    "one-label": ("https://redis/", b"redis", b"/"),  # what it resolves to is looked at later
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC.values(), ids=PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", [text for text in REFUSED.values() if ":" not in text])
@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}", "64:ff9b:1::{}", "::{}", "::ffff:0:{}"])
def test_no_form_of_v6_hides_a_refused_v4_address(form: str, text: str) -> None:
    assert not is_public(ipaddress.ip_address(form.format(text)))


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_a_bad_url_is_refused_in_words_that_can_be_sent(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as caught:
        parse_url(url, HTTPS_ONLY)
    assert caught.value.detail.encode()


@pytest.mark.parametrize(("text", "host", "target"), GOOD_URLS.values(), ids=GOOD_URLS)
def test_a_good_url_is_taken_apart(text: str, host: bytes, target: bytes) -> None:
    url = parse_url(text, HTTPS_ONLY)
    assert (url.raw_host, url.raw_path) == (host, target)


def test_a_setting_allows_other_ports() -> None:
    assert parse_url("https://example.com:8443/", frozenset({443, 8443})).port == 8443
    with pytest.raises(UrlNotAllowed, match="port 443 is not allowed, only 8443"):
        parse_url("https://example.com/", frozenset({8443}))
