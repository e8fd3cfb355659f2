"""Feeds by address: fetched side by side within limits, asked only for what has changed, and followed only where a redirect may lead.

A name is resolved once, and the connection goes to the very addresses that were looked at: a name that means another address a moment later leads nowhere else.
"""

import asyncio
import ipaddress
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from .feed_formats import FeedError, shown

KINDS = "application/atom+xml, application/rss+xml, application/feed+json, application/json;q=0.9, application/xml;q=0.9, text/xml;q=0.9, */*;q=0.5"


@dataclass(frozen=True)
class Copy:
    """What was fetched from an address, with what the server needs to say whether it is still so."""

    body: bytes
    content_type: str = ""
    etag: str = ""
    last_modified: str = ""
    fetched_at: float = 0.0


def when(moment):
    """A time in seconds as people write it, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


async def fetch_all(addresses, copies, fresh, limits):
    """{address: (state, Copy, sentences) or FeedError}: hosts side by side, one request after the other to each."""
    import httpx2

    from .. import __version__

    answers: dict = {}
    if not addresses:
        return answers
    hosts: dict[str, list[str]] = {}
    for address in addresses:
        hosts.setdefault(_host(address), []).append(address)
    room = asyncio.Semaphore(limits.side_by_side)
    headers = {"User-Agent": f"lawbook/{__version__} (a digest of feeds)", "Accept": KINDS, "Accept-Encoding": "gzip"}

    async def one_host(host, theirs):
        asked = False
        for address in theirs:
            kept = copies.get(address)
            if kept is not None and not fresh and 0 <= time.time() - kept.fetched_at < limits.keep:
                answers[address] = ("kept", kept, [f"{shown(address)}: its copy of {when(kept.fetched_at)} is young enough and was not fetched again"])
                continue
            if asked and not _is_loopback(host):
                await asyncio.sleep(limits.pause)
            asked = True
            async with room:
                try:
                    async with asyncio.timeout(limits.seconds):
                        answers[address] = await _fetch(clients, address, kept, limits)
                except FeedError as error:
                    answers[address] = error
                except TimeoutError:
                    answers[address] = FeedError(f"The feed {shown(address)} did not arrive within {limits.seconds:g} s.")
                except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
                    reason = " ".join(str(error).split())[:160] or type(error).__name__
                    answers[address] = FeedError(f"The feed {shown(address)} cannot be reached: {reason.rstrip('.')}.")

    def client(proxy):
        way = {"proxy": proxy} if proxy else {"mounts": dict.fromkeys(("http://", "https://", "all://"))}
        unshared = httpx2.Limits(max_keepalive_connections=0)  # names that share an address share no connection and no cookies
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return httpx2.AsyncClient(headers=headers, timeout=limits.seconds, follow_redirects=False, limits=unshared, cookies=cookies, **way)

    async with AsyncExitStack() as stack:
        clients = {proxy: await stack.enter_async_context(client(proxy)) for proxy in (None, *_proxies().values())}
        async with asyncio.TaskGroup() as group:
            for host, theirs in hosts.items():
                group.create_task(one_host(host, theirs))
    return answers


async def _fetch(clients, address, kept, limits):
    import httpx2

    url, said = address, []
    known: dict[str, list[str]] = {}  # host -> its addresses: first of the one that was named, then of those that it leads to
    for _ in range(limits.redirects + 1):
        _check(url, address)
        host = httpx2.URL(url).raw_host.decode()
        if host not in known:
            found = await _resolved(host)
            if known and not all(map(_is_public, found)):
                raise FeedError(f"The feed {shown(address)} redirects to {host}, an address inside a private network, which is refused.")
            known[host] = found
        headers = {}
        if kept is not None:
            headers = {name: value for name, value in (("If-None-Match", kept.etag), ("If-Modified-Since", kept.last_modified)) if value}
        async with _answer(clients, url, headers, known[host], limits.seconds) as response:
            if response.is_redirect and "location" in response.headers:
                target = _redirected(address, url, response.headers["location"])
                if response.status_code in (301, 308):
                    said.append(f"{shown(address)} has moved to {shown(target)}")
                url = target
                continue
            if response.status_code == 304 and kept is not None:
                return "unchanged", replace(kept, fetched_at=time.time()), [*said, f"{shown(address)} has not changed since {when(kept.fetched_at)}: the copy is read"]
            if response.status_code != 200:
                again = f", which asks to come back after {response.headers['retry-after']}" if response.headers.get("retry-after", "").strip() else ""
                raise FeedError(f"The feed {shown(address)} is down: the server answers {response.status_code} {response.reason_phrase}{again}.")
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > limits.size:
                    raise FeedError(f"The feed {shown(address)} is larger than {limits.size / 2**20:g} MiB.")
            names = ("content-type", "etag", "last-modified")
            return "read", Copy(bytes(body), *(response.headers.get(name, "") for name in names), time.time()), said
    raise FeedError(f"The feed {shown(address)} redirects more than {limits.redirects} times.")


def _check(url, address):
    """FeedError unless the address is one that is fetched."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise FeedError(f"The feed {shown(address)} must be an http(s) address; it cannot be read as one.") from None
    if parts.scheme not in ("http", "https"):
        raise FeedError(f"The feed {shown(address)} must be an http(s) address or a path; its scheme was {parts.scheme!r}.")
    if not host:
        raise FeedError(f"The feed {shown(address)} must be an http(s) address; it names no host.")


def _redirected(address, url, location):
    """Where a redirect leads: elsewhere, but not to files or out of encryption."""
    try:
        target = urljoin(url, location)
        before, after = urlsplit(url), urlsplit(target)
        _ = after.hostname
    except ValueError:
        raise FeedError(f"The feed {shown(address)} redirects to what is no address.") from None
    if after.scheme not in ("http", "https"):
        raise FeedError(f"The feed {shown(address)} redirects to the scheme {after.scheme!r}, which is refused.")
    if before.scheme == "https" and after.scheme == "http":
        raise FeedError(f"The feed {shown(address)} redirects from https to http, which is refused.")
    return target


async def _resolved(host):
    """The addresses of a host, as the system has them now; none where it does not know the host."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(entry[4][0] for entry in found))


def _is_public(address):
    return ipaddress.ip_address(address.partition("%")[0]).is_global


@asynccontextmanager
async def _answer(clients, url, headers, addresses, seconds):
    """The answer to a request that goes to the first of these addresses that can be reached, and names the host of `url` there, as its certificate must."""
    import httpx2

    proxy = _proxy(url)
    if not addresses and not proxy:
        raise httpx2.ConnectError("its name is not known")
    client, targets = clients[proxy], [None] if proxy else addresses
    timeout = httpx2.Timeout(seconds, connect=seconds / (len(targets) + 1))
    for place, target in enumerate(targets, 1):
        request = client.build_request("GET", url, headers=headers, timeout=timeout)
        if target is not None:
            request.extensions = {**request.extensions, "sni_hostname": request.url.raw_host.decode()}
            request.url = request.url.copy_with(host=target)
        try:
            response = await client.send(request, stream=True)
            break
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if place == len(targets):
                raise
    try:
        yield response
    finally:
        await response.aclose()


def _proxies():
    """Scheme -> the proxy that the system has for it."""
    found = getproxies()
    return {scheme: proxy if "://" in proxy else f"http://{proxy}" for scheme in ("http", "https") if (proxy := found.get(scheme) or found.get("all"))}


def _proxy(url):
    """The proxy that is asked for this address, and resolves its name; None where it is asked directly."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc.rpartition("@")[2]) else _proxies().get(parts.scheme)


def _host(address):
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host):
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
