"""What a feed says: Atom, RSS, JSON Feed and answers of arXiv's API, read as plain text."""

import contextlib
import hashlib
import io
import json
import re
import unicodedata
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

from ..contract import LawbookError

ARXIV = re.compile(r"(?:arxiv\.org/(?:abs|pdf|html)/|oai:arxiv\.org:|arxiv[.:]\s?)(\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})(?:v\d+)?", re.IGNORECASE)
ANNOUNCED = re.compile(r"^arXiv:\S+\s+Announce Type:\s*(\S+)\s*(?:Abstract:)?\s*", re.IGNORECASE)
DOI = re.compile(r"(?:doi\.org/|doi:\s?|^)(10\.\d{4,9}/\S+)", re.IGNORECASE)
SECRETS = re.compile(r"((?:^|&)[^=&]*(?:token|key|secret|pass|auth|sig)[^=&]*=)[^&]*", re.IGNORECASE)
BLOCKS = {"p", "br", "div", "li", "ul", "ol", "tr", "td", "th", "table", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "section", "article", "hr", "dd", "dt"}
SILENT = {"script", "style", "template"}
DIRECTED = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}  # turn text around: what is read would not be what is there
LONGEST = {"title": 500, "summary": 6000, "name": 120}
TELLING = 15  # letters of a title by which two entries are the same; "Editorial" is not enough


class FeedError(LawbookError):
    """A feed that cannot be read, and why."""


@dataclass(frozen=True)
class Limits:
    """How much a feed may take."""

    seconds: float = 30.0  # for one feed, all told
    size: int = 10 * 2**20  # bytes, unpacked
    entries: int = 3000
    elements: int = 150_000  # of XML
    depth: int = 100
    broken: int = 2**20  # bytes of malformed XML that are looked at: reading it is slow
    redirects: int = 5
    side_by_side: int = 8
    pause: float = 3.0  # seconds between two requests to one host, as arXiv asks
    keep: float = 900.0  # seconds for which a copy is not asked for again


@dataclass(frozen=True)
class Entry:
    """One paper of a feed in plain text; `published` is ISO 8601 in UTC, or empty like all that the feed does not say."""

    title: str
    link: str = ""
    summary: str = ""
    authors: tuple[str, ...] = ()
    published: str = ""
    arxiv: str = ""  # without the version
    doi: str = ""
    categories: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()
    own_link: bool = True  # whether no other entry of its feed has the same address

    @property
    def keys(self):
        """By what it is known again, the surest first: arXiv id, DOI, address, title."""
        title = "".join(c for c in unicodedata.normalize("NFKD", self.title).casefold() if c.isalnum())
        keys = (
            self.arxiv and f"arxiv:{self.arxiv}",
            self.doi and f"doi:{self.doi}",
            self.link and self.own_link and f"link:{_same_link(self.link)}",
            len(title) >= TELLING and f"title:{hashlib.sha256(title.encode()).hexdigest()[:32]}",
        )
        return tuple(key for key in keys if key) or (f"title:{title}",)


@dataclass
class Feed:
    """What one feed holds. `state` is read, unchanged (the server says so), kept (a young copy), stale (a copy, as the feed is down) or file."""

    source: str
    title: str = ""
    entries: list[Entry] = field(default_factory=list)
    state: str = "file"
    said: list[str] = field(default_factory=list)


def is_address(source):
    """Whether a source is an address rather than a path."""
    return "://" in source


def shown(source):
    """A source as everyone may read it: an address without what is secret in it, of a path its last part."""
    if not is_address(source):
        return Path(source).name or source
    try:
        parts = urlsplit(source)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=SECRETS.sub(r"\1…", parts.query)))
    except ValueError:
        return source.partition("@")[2] or source


def parse(body, source, *, content_type="", limits=None):
    """The Feed in `body` (bytes); FeedError where there is none. What had to be mended or left out is in `said`."""
    limits = limits or Limits()
    start = body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not start:
        raise FeedError(f"The feed {shown(source)} is empty.")
    feed = Feed(source)
    entries, replaced = _json(body, feed, limits) if start in (b"{", b"[") else _xml(body, feed, content_type, limits)
    if replaced:
        feed.said.append(f"{shown(source)}: {many(replaced, 'new version')} of older papers {are(replaced)} left out")
    untitled = sum(not entry.title for entry in entries)
    if untitled:
        feed.said.append(f"{shown(source)}: {many(untitled, 'entry')} without a title {are(untitled)} left out")
    entries = [entry for entry in entries if entry.title]
    titles: dict[str, set[str]] = {}
    for entry in entries:
        titles.setdefault(entry.link, set()).add(entry.title)
    feed.entries = [replace(entry, feeds=(feed.title or shown(source),), own_link=len(titles[entry.link]) == 1) for entry in entries]
    return feed


def _first_few(items, feed, limits):
    """The items that are read of a feed that has too many, which is said."""
    if len(items) > limits.entries:
        feed.said.append(f"{shown(feed.source)} has {len(items)} entries, of which the first {limits.entries} are read")
    return items[: limits.entries]


def many(n, what):
    return f"{n} {what}" if n == 1 else f"{n} {what[:-1] + 'ies' if what.endswith('y') else what + 's'}"


def are(n):
    return "is" if n == 1 else "are"


def _xml(body, feed, content_type, limits):
    import feedparser

    source = shown(feed.source)
    broken = _look_over(body, source, limits)
    if broken is not None and len(body) > limits.broken:
        body, broken = body[: limits.broken], f"{broken}, and only its first {limits.broken / 2**20:g} MiB are looked at"
    try:
        headers = {"content-type": content_type} if content_type else None
        found = feedparser.parse(io.BytesIO(body), response_headers=headers, sanitize_html=False, resolve_relative_uris=False)  # markup is left out below
    except Exception as error:  # the reader of broken markup raises many kinds
        raise FeedError(f"The feed {source} cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:120]}.") from None
    if not found.version and not found.entries:
        pages = [_of(link, "href") for link in found.feed.get("links", ()) if link.get("type") in ("application/atom+xml", "application/rss+xml", "application/feed+json")]
        hint = f"; it is a page that names the feed {shown(urljoin(feed.source, pages[0]))}" if pages and is_address(feed.source) else ""
        raise FeedError(f"The feed {source} is no Atom, RSS or JSON feed{hint}.")
    if broken is not None and found.bozo:
        feed.said.append(f"{source} is malformed{broken}: it is read as far as it goes")
    feed.title = plain(_of(found.feed, "title"), _is_html(found.feed.get("title_detail")), LONGEST["name"])
    entries, replaced = [], 0
    for item in _first_few(found.entries, feed, limits):
        if "arxiv.org/api/errors" in _of(item, "id"):
            raise FeedError(f"The feed {source} is an error of arXiv's API: {plain(_of(item, 'summary'), False, 200).rstrip('.')}.")
        summary = _summary(item)
        announced = ANNOUNCED.match(summary)
        kind = _of(item, "arxiv_announce_type") or (announced[1] if announced else "")
        if kind.lower().startswith("replace"):
            replaced += 1
            continue
        places = [_of(item, "id"), _of(item, "link"), *(_of(link, "href") for link in item.get("links", ())), announced[0] if announced else ""]
        names = [_of(person, "name") for person in item.get("authors", ())]
        arxiv = _first(ARXIV, places)
        if arxiv and len(names) == 1:
            names = names[0].split(", ")  # arXiv's RSS has all authors in one
        entries.append(
            Entry(
                title=re.sub(r"\s*\(arXiv:\S+( \[\S+\])?( UPDATED)?\)$", "", plain(_of(item, "title"), _is_html(item.get("title_detail")), LONGEST["title"])),
                link=_link(_of(item, "link") or _of(item, "id"), feed.source),
                summary=summary[announced.end() :] if announced else summary,
                authors=_names(names),
                published=_moment(item),
                arxiv=arxiv,
                doi=_doi([_of(item, "arxiv_doi"), _of(item, "prism_doi"), _of(item, "dc_identifier"), *places]),
                categories=_names(_of(tag, "term") for tag in item.get("tags", ())),
            )
        )
    return entries, replaced


def _of(record, name):
    """The text under a name; a broken feed may have anything there."""
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _look_over(body, source, limits):
    """None of well-formed XML, or what breaks it; FeedError where it could do harm by entities of its own, or by its depth or number of elements."""
    from defusedxml import DefusedXmlException
    from defusedxml.sax import parseString

    try:
        parseString(body, _counter(source, limits), forbid_dtd=False, forbid_entities=True, forbid_external=True)
    except DefusedXmlException:
        raise FeedError(f"The feed {source} declares entities of its own, which is refused.") from None
    except FeedError:
        raise
    except Exception as error:  # malformed, or in an encoding that must be found out
        line = getattr(error, "getLineNumber", lambda: None)()
        return f" (line {line}: {error.getMessage()})" if line and hasattr(error, "getMessage") else ""
    return None


def _counter(source, limits):
    from xml.sax.handler import ContentHandler

    class Counter(ContentHandler):
        depth = elements = 0

        def startElement(self, name, attrs):
            self.depth += 1
            self.elements += 1
            if self.depth > limits.depth or self.elements > limits.elements:
                raise FeedError(f"The feed {source} has more than {limits.elements} elements, or {limits.depth} inside each other, which is refused.")

        def endElement(self, name):
            self.depth -= 1

    return Counter()


def _json(body, feed, limits):
    source = shown(feed.source)
    try:
        content = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise FeedError(f"The feed {source} is malformed: its JSON breaks off or is wrong{where}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("items"), list):
        raise FeedError(f"The feed {source} is no JSON feed: it has no list of items.")
    feed.title = plain(_string(content.get("title")), False, LONGEST["name"])
    given = _first_few(content["items"], feed, limits)
    items = [item for item in given if isinstance(item, dict)]
    if len(items) < len(given):
        wrong = len(given) - len(items)
        feed.said.append(f"{source}: {many(wrong, 'item')} that {are(wrong)} no object {are(wrong)} left out")
    entries = []
    for item in items:
        has = {name: _string(item.get(name)) for name in ("id", "url", "external_url", "title", "summary", "content_text", "content_html", "date_published", "date_modified")}
        people = item.get("authors") if isinstance(item.get("authors"), list) else [item.get("author")]
        places = [has["id"], has["url"], has["external_url"]]
        tags = item.get("tags") if isinstance(item.get("tags"), list) else []
        html = not has["summary"] and not has["content_text"]
        entries.append(
            Entry(
                title=plain(has["title"], False, LONGEST["title"]),
                link=_link(has["url"] or has["external_url"] or has["id"], feed.source),
                summary=plain(has["summary"] or has["content_text"] or has["content_html"], html, LONGEST["summary"]),
                authors=_names(_string(person.get("name")) for person in people if isinstance(person, dict)),
                published=_iso(has["date_published"]) or _iso(has["date_modified"]),
                arxiv=_first(ARXIV, places),
                doi=_doi(places),
                categories=_names(map(_string, tags)),
            )
        )
    return entries, 0


def _string(value):
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _is_html(detail):
    return bool(detail) and detail.get("type") in ("text/html", "application/xhtml+xml")


def _summary(item):
    if _of(item, "summary"):
        return plain(item["summary"], _is_html(item.get("summary_detail")), LONGEST["summary"])
    content = item.get("content") or [{}]
    return plain(_of(content[0], "value"), _is_html(content[0]), LONGEST["summary"])


def _names(names):
    return tuple(name for name in (plain(n, False, LONGEST["name"]) for n in names) if name)[:500]


def _first(pattern, texts):
    return next((match[1].lower() for text in texts if (match := pattern.search(text))), "")


def _doi(texts):
    found = _first(DOI, texts).rstrip(".,;)")
    return "" if found.startswith("10.48550/arxiv") else found


def _link(text, base):
    """An http(s) address, or nothing: other schemes could run what they hold."""
    try:
        address = urljoin(base, text.strip()) if is_address(base) else text.strip()
        parts = urlsplit(address)
    except ValueError:
        return ""
    fine = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"[\s<>\"\\^`{|}\x00-\x1f]", address)
    return address if fine and len(address) <= 2000 else ""


def _same_link(link):
    """An address without what differs between two writings of it."""
    parts = urlsplit(link)
    query = "&".join(sorted(p for p in parts.query.split("&") if p and not p.lower().startswith(("utm_", "fbclid=", "gclid="))))
    return f"{(parts.hostname or '').removeprefix('www.')}{f':{parts.port}' if _port(parts) else ''}{parts.path.rstrip('/')}{'?' + query if query else ''}"


def _port(parts):
    try:
        return parts.port if parts.port not in (80, 443) else None
    except ValueError:
        return None


def _moment(item):
    moment = dict.get(item, "published_parsed") or dict.get(item, "updated_parsed")  # plainly: its own get stands one in for the other, with a warning
    try:
        return datetime(*moment[:6], tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""
    except ValueError:
        return ""


def _iso(text):
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return ""


class _Text(HTMLParser):
    """The text of HTML, its blocks apart."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.silent = [], 0

    def handle_starttag(self, tag, attrs):
        self.silent += tag in SILENT
        if tag in BLOCKS:
            self.parts.append(" ")

    def handle_endtag(self, tag):
        self.silent -= tag in SILENT and self.silent > 0
        if tag in BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data):
        if not self.silent:
            self.parts.append(data)


def plain(text, is_html, longest):
    """Text of at most `longest` letters on one line, without markup where it is HTML, without letters that control a terminal or turn text around."""
    text = text[: 8 * longest]
    if is_html:
        reader = _Text()
        with contextlib.suppress(AssertionError):  # raised by declarations that are not closed: what was read so far stays
            reader.feed(text)
            reader.close()
        text = "".join(reader.parts)
    text = unicodedata.normalize("NFC", text)
    text = "".join(c if c.isspace() or (unicodedata.category(c) not in ("Cc", "Cs", "Cn", "Co") and c not in DIRECTED) else "" for c in text)
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
