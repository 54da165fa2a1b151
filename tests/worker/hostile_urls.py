"""Addresses that lead inside, or nowhere, in all the spellings that look-ups and URL readers understand."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

# `{p}` is the port of a listener on loopback that must never hear from us.
HOSTILE_URLS = [
    # loopback in all its spellings
    "http://127.0.0.1:{p}/",
    "http://127.0.0.1/",
    "http://127.1:{p}/",
    "http://127.0.1:{p}/",
    "http://127.255.255.254/",
    "http://2130706433:{p}/",
    "http://0x7f000001:{p}/",
    "http://0x7f.1:{p}/",
    "http://0x7f.0x0.0x0.0x1:{p}/",
    "http://017700000001:{p}/",
    "http://0177.0.0.1:{p}/",
    "http://0177.0x0.0.1:{p}/",
    "http://0000000177.1:{p}/",
    "http://0:{p}/",
    "http://0.0.0.0:{p}/",
    "http://0.0.0.1/",
    "http://localhost:{p}/",
    "http://LOCALHOST:{p}/",
    "http://localhost.:{p}/",
    "https://localhost/",
    "http://127。0。0。1:{p}/",
    "http://①②⑦.⓪.⓪.①:{p}/",
    "http://１２７.0.0.1:{p}/",
    "http://[::1]:{p}/",
    "http://[0:0:0:0:0:0:0:1]:{p}/",
    "http://[::]:{p}/",
    "http://[::127.0.0.1]:{p}/",
    "http://[::ffff:127.0.0.1]:{p}/",
    "http://[::ffff:7f00:1]:{p}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    # private, shared, link-local and cloud metadata
    "http://10.0.0.1/",
    "http://10.255.255.255/",
    "http://172.16.0.1/",
    "http://172.31.255.254/",
    "http://192.168.1.1/",
    "http://192.168.257/",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.43518/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25lo]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fec0::1]/",
    # tunnels and translators that end inside
    "http://[64:ff9b::7f00:1]:{p}/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::1]/",
    "http://[2002:a9fe:a9fe::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[5f00::1]/",
    # addresses that belong to nobody or to everybody
    "http://192.0.0.1/",
    "http://192.0.0.9/",
    "http://192.0.0.170/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    "http://[100::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[4000::1]/",
    # not an address at all
    "http://user@127.0.0.1:{p}/",
    "http://user:secret@example.com/",
    "http://@127.0.0.1:{p}/",
    "http://example.com@127.0.0.1:{p}/",
    "http://example.com\\@127.0.0.1:{p}/",
    "http://127.0.0.1:{p}\\@example.com/",
    "http://127.0.0.1:{p}#@example.com/",
    "http://127.0.0.1:{p}?@example.com/",
    "//127.0.0.1:{p}/",
    "127.0.0.1:{p}",
    "",
    "http://",
    "http:///etc/passwd",
    "http:127.0.0.1:{p}",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{p}/",
    "gopher://127.0.0.1:{p}/_x",
    "unix:///var/run/redis.sock",
    "http+unix://%2Fvar%2Frun%2Fredis.sock/",
    "ws://127.0.0.1:{p}/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:0x50/",
    "http://local\thost:{p}/",
    "http://127.0.0.1\r\nHost: example.com:{p}/",
    "http://" + "a" * 64 + ".example/",
    "http://[::1",
]

INSIDE = (
    *("127.0.0.1", "127.8.8.8", "10.0.0.1", "10.200.3.4", "172.16.0.1", "172.31.9.9", "192.168.0.1"),
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "100.64.0.10", "0.0.0.0", "192.0.0.192"),
    *("198.18.5.5", "224.0.0.251", "255.255.255.255"),
)
"""Addresses of which every spelling has to be refused."""


def spellings(text: str) -> Iterator[str]:
    """One IPv4 address as look-ups read it, and as IPv6 carries it."""
    number, four = int(IPv4Address(text)), IPv4Address(text).packed
    one, two, three, last = four
    yield text
    yield str(number)
    yield hex(number)
    yield f"0{number:o}"
    yield f"{one}.{number & 0xFFFFFF}"
    yield f"{one}.{two}.{number & 0xFFFF}"
    yield ".".join(f"0x{byte:02x}" for byte in four)
    yield ".".join(f"0{byte:o}" for byte in four)
    yield f"0x{one:x}.{two}.0{three:o}.{last}"
    yield f"[::ffff:{text}]"
    yield f"[{IPv6Address(number)}]"
    yield f"[{IPv6Address((0x64FF9B << 96) + number)}]"
    yield f"[{IPv6Address((0x2002 << 112) + (number << 80) + 1)}]"


ALL_URLS = (*HOSTILE_URLS, *(f"http://{host}/" for text in INSIDE for host in spellings(text)))
