"""Addresses: what is one, what of it is asked for, and which origin it has, for every reader the same."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from sregistry.oci.address import Address, from_header, host_of, is_loopback, origin, same_origin


@pytest.mark.parametrize(
    ("text", "scheme", "netloc", "target"),
    [
        ("https://a.example", "https", "a.example", "/"),
        ("HTTPS://A.Example:443/X%7ey", "https", "a.example", "/X%7ey"),
        ("http://a:0080/x?", "http", "a", "/x?"),
        ("http://a:/x", "http", "a", "/x"),
        ("http://a:443/", "http", "a:443", "/"),
        ("https://user:pa%20ss@a:5/x#part", "https", "a:5", "/x"),
        ("http://a?x=/y", "http", "a", "/?x=/y"),
        ("http://[::1]:5/x", "http", "[::1]:5", "/x"),
        ("http://[2001:DB8::0:1]/", "http", "[2001:db8::1]", "/"),
        ("http://my_host.-/", None, None, None),
        ("http://my_host/", "http", "my_host", "/"),
        ("http://a.example./x", "http", "a.example.", "/x"),
        ("http://a/%2f+%2F;=~|^`{}\\<>\"'..//./../x?a=%zz&b=[", "http", "a", "/%2f+%2F;=~|^`{}\\<>\"'..//./../x?a=%zz&b=["),
        ("http://a/b c?d e", "http", "a", "/b%20c?d%20e"),
        ("http://a/ü?\u202e", "http", "a", "/%C3%BC?%E2%80%AE"),
    ],
)
def test_what_an_address_says(text: str, scheme: str | None, netloc: str, target: str) -> None:
    if scheme is None:
        assert origin(text) == ("", "")
        return
    address = Address.parse(text)
    assert (address.scheme, address.netloc, address.target) == (scheme, netloc, target)
    assert Address.parse(address.url) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "/x",
            "//a/x",
            "a.example",
            "http:/a",
            "http:a",
            "http:///x",
            "http://",
            "http://@/",
            "http://:80/",
            "ftp://a/",
            "file:///x",
            "javascript:x",
        ),
        *(
            " http://a/",
            "http://a /",
            "http://a\t/",
            "ht\ntp://a/",
            "http://a/\n",
            "http://a/\x00",
            "http://a/\x7f",
            "http://a\r\nHost: b/",
        ),
        *(
            "http://a\\@b/",
            "http://a\\b/",
            "http:\\\\a/",
            "http://a@b@c/",
            "http://a[/",
            "http://[::1/",
            "http://[::1]x/",
            "http://x[::1]/",
        ),
        *("http://[fe80::1%25lo]/", "http://[fe80::1%lo]/", "http://[1.2.3.4]/", "http://[v1.a]/", "http://[]/"),
        *("http://a%2eb/", "http://a%00/", "http://%31/", "http://a..b/", "http://.a/", "http://-a/", "http://a,b/", "http://a;b/"),
        *(
            "http://a:0/",
            "http://a:65536/",
            "http://a:9999999999/",
            "http://a:-1/",
            "http://a:+1/",
            "http://a:8 0/",
            "http://a:８０/",
            "http://a:x/",
        ),
        *(
            "http://bücher.example/",
            "http://１２７.0.0.1/",
            "http://a。b/",
            "http://ａ/",
            "http://a\u202eb/",
            "http://\u200b/",
            "http://a\ud800/",
        ),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(text)
    assert (origin(text), host_of(text), is_loopback(text) and not text.startswith("//")) == (("", ""), "", False)
    assert not same_origin(text, text)


@given(
    st.text(st.sampled_from("htps:/\\@[]%.#?&a1\t \u00fcA_-:~0"), max_size=24) | st.text(max_size=12).map(lambda rest: f"http://a{rest}")
)
def test_all_who_read_what_is_connected_to_read_the_same(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    one, other = urlsplit(address.url), parse_url(address.url)
    port = f":{one.port}" if one.port else ""
    host = f"[{one.hostname}]" if ":" in (one.hostname or "") else one.hostname
    assert (one.scheme, f"{host}{port}") == (other.scheme, other.netloc) == address.origin
    assert address.url.isascii() and address.url.isprintable() and " " not in address.url


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("https://b/%7E?x=%2f", "https://b/%7E?x=%2f"),
        ("//b/y", "http://b/y"),
        ("/y/../%7e", "http://a/y/../%7e"),
        ("y", "http://a/v2/y"),
        ("./y/./z?../", "http://a/v2/y/z?../"),
        ("../../../y", "http://a/y"),
        ("..", "http://a/"),
        ("?z", "http://a/v2/x?z"),
        ("#z", "http://a/v2/x?q"),
        ("", "http://a/v2/x?q"),
        ("/\\b/", "http://a/\\b/"),
        ("\\\\b/", "http://a/v2/\\\\b/"),
        ("HTTP://B", "http://b/"),
    ],
)
def test_references(reference: str, url: str) -> None:
    assert Address.parse("http://a/v2/x?q").join(reference).url == url


@pytest.mark.parametrize("reference", ["///b", "http:b", "mailto:b", "//b\\c/", "/x\n", "http://b\\@a/"])
def test_references_to_no_address(reference: str) -> None:
    with pytest.raises(ValueError):
        Address.parse("http://a/v2/x?q").join(reference)


def test_a_header_s_bytes_are_kept() -> None:
    assert from_header("/ü~%7e".encode().decode("latin-1")) == "/%C3%BC~%7e"
    assert from_header("/\xff\x80 ") == "/%FF%80"


@pytest.mark.parametrize(
    ("text", "here"),
    [
        *((f"http://{host}/", True) for host in ("localhost", "LOCALHOST:5", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::ffff:127.0.0.1]")),
        *((f"//{host}", True) for host in ("localhost:5000", "[::1]:5")),
        *(
            (f"http://{host}/", False)
            for host in ("127.evil.example", "localhost.evil.example", "a", "127.1", "0x7f.1", "[::2]", "10.0.0.1")
        ),
        *((text, False) for text in (r"http://evil\@127.0.0.1/", r"http://127.0.0.1\@evil/", "http://127.0.0.1@evil/", "127.0.0.1", "")),
    ],
)
def test_what_is_on_this_machine(text: str, here: bool) -> None:
    assert is_loopback(text) is here


def test_origins() -> None:
    assert origin("HTTPS://U:P@Host:443/x") == origin("https://host/y") == ("https", "host")
    assert origin("http://host:443/") != origin("http://host/") and not same_origin("http://host/", "https://host/")
    assert not same_origin("http://host./", "http://host/")
    assert (host_of("http://u:p@h:5/x?y"), host_of("/x"), host_of("http://[::1"), host_of(None)) == ("h:5", "", "", "")
