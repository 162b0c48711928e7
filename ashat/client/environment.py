"""What the environment says of the way to a server: its proxies, and whom to trust.

As curl, Go and Python's own library read it: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in lower case
first, `SSL_CERT_FILE` and `SSL_CERT_DIR`. Loopback never goes through a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from typing import Any
from urllib.request import getproxies

import httpx

from ashat.errors import UsageError

_SCHEMES = ("http", "https", "socks5", "socks5h")
_ENTRY = re.compile(r"(?:(?P<scheme>[a-z0-9+.-]+)://)?(?P<host>\[[^\]]*\](?:/[0-9]+)?|[^:]*)(?::(?P<port>[0-9]{1,5}))?")
_HOST = re.compile(r"[^%]+")  # httpx writes so what no host may have
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine, so that what is sent there crosses no network."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def proxy_of(url: httpx.URL) -> str | None:
    """Find the URL of the proxy through which `url` is reached; None: without one.

    Raises:
        UsageError: the variable that names it holds no proxy's URL.
    """
    proxies = getproxies()
    if is_loopback(url.host) or is_excepted(url, proxies.get("no", "")):
        return None
    scheme = url.scheme if proxies.get(url.scheme) else "all"
    named = proxies.get(scheme)
    if not named:
        return None
    return _usable(scheme, named)


def _usable(scheme: str, named: str) -> str:
    proxy = named if "://" in named else f"http://{named}"
    try:
        parsed = httpx.URL(proxy)
        usable = parsed.scheme in _SCHEMES and bool(_HOST.fullmatch(parsed.host)) and 0 < (parsed.port or 1) < 65536
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise UsageError(
            f"{_variable(f'{scheme}_proxy')} holds no proxy's URL; give one such as http://proxy.example:3128 or "
            "socks5://proxy.example:1080, or unset it."
        )
    return proxy


def is_excepted(url: httpx.URL, no_proxy: str) -> bool:
    """Tell whether `no_proxy` excepts `url`: `*`, a host and what is below it, an address, a network, each with or
    without a port. What is none of these excepts nothing."""
    return any(_matches(entry.lower(), url) for entry in re.split(r"[\s,]+", no_proxy) if entry)


def for_others(*urls: str) -> dict[str, str]:
    """Make the proxy variables such that httpx, in others' hands, reaches `urls` and loopback as `proxy_of` says.

    There are none where there is no proxy.

    httpx alone does not except loopback, and fails at a network or an address in brackets in `NO_PROXY`.

    Raises:
        UsageError: a variable holds no proxy's URL, or names certificates that cannot be used.
    """
    proxies = getproxies()
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        default_trust()
    named = [scheme for scheme in ("http", "https", "all") if proxies.get(scheme)]
    for scheme in named:
        _usable(scheme, proxies[scheme])
    if not named:
        return {}
    entries = [entry for entry in re.split(r"[\s,]+", proxies.get("no", "")) if entry]
    excepted = [host for host in map(_excepted_host, urls) if host]
    no_proxy = ",".join(dict.fromkeys([*filter(None, map(_as_httpx_reads, entries)), *_LOOPBACK, *excepted]))
    return {"NO_PROXY": no_proxy, "no_proxy": no_proxy}


def _excepted_host(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return ""  # whoever uses it says so
    return parsed.host if proxy_of(parsed) is None else ""


def _as_httpx_reads(entry: str) -> str:
    """Write an entry as httpx reads it, or at least does not fail at it; "" where there is no such way.

    `is_excepted` reads it as before.
    """
    if "://" not in entry and _address(entry) is None and ":" in entry.partition("/")[0]:
        bracketed = re.sub(r"^([^\[/]*:[^\[/]*:[^/]*)", r"[\1]", entry)
        entry = f"all://{bracketed}"
    try:
        httpx.URL(entry if "://" in entry else f"all://[{entry}]" if ":" in entry else f"all://*{entry}")
    except httpx.InvalidURL:
        return ""
    return entry


def default_trust() -> ssl.SSLContext:
    """Make what trusts the authorities that `SSL_CERT_FILE` or `SSL_CERT_DIR` names, else those of certifi.

    Raises:
        UsageError: the file or the directory cannot be used.
    """
    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        if not file and directory:
            os.listdir(directory)  # which OpenSSL would not miss
        return httpx.create_ssl_context()
    except OSError as error:
        name, value = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", directory)
        why = error.strerror or error
        raise UsageError(f"{name} names {value}, which cannot be used: {why}; mend it, or unset {name}.") from None


def _matches(entry: str, url: httpx.URL) -> bool:
    if entry == "*":
        return True
    address = _address(url.host)
    network = _network(entry)
    if network is not None:
        return address is not None and address in network
    found = _ENTRY.fullmatch(entry)
    if found is None or (found["scheme"] or url.scheme) not in (url.scheme, "all"):
        return False
    if found["port"] and int(found["port"]) != (url.port or {"http": 80, "https": 443}.get(url.scheme)):
        return False
    network = _network(found["host"])
    if network is not None:
        return address is not None and address in network
    name = found["host"].removeprefix("*").lstrip(".").rstrip(".")
    host = url.host.lower().rstrip(".")
    return bool(name) and address is None and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> Any:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> Any:
    try:
        return ipaddress.ip_network(re.sub(r"^\[([^\]]*)\](/[0-9]+)?$", r"\1\2", text), strict=False)
    except ValueError:
        return None


def _variable(name: str) -> str:
    """Say which of the two ways to write the variable `name` is set."""
    return name if os.environ.get(name) else name.upper()
