"""The digest: feeds as they come, what is new, mails and subscribers, against a real feed server and a real mail server on this machine."""

import contextlib
import gzip
import html
import json
import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from lawbook.artifacts import feed_fetch, feed_formats, feeds
from lawbook.artifacts.feed_formats import parse
from lawbook.artifacts.feeds import Copy, FeedError, Limits, merged, read_feeds
from lawbook.contract import DomainError, LawbookError, UnknownName, Verdict, catalogue
from lawbook.faces import digest_views
from lawbook.jobs import digest, mail, subscribers
from lawbook.jobs.find import index
from lawbook.jobs.store import Store
from workbench import FeedServer, Mailbox, free_port, smtp_server

QUICK = Limits(seconds=1.5, size=200_000, pause=0)
ROPE = (
    "Rotary position embeddings turn pairs of dimensions; we bound the RoPE base from below for a context length, where the slowest phase must not wrap, "
    "and from above by floating point precision, for long context transformers."
)
ATOM = f"""<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>Theory &amp; practice</title><id>urn:x</id><updated>2026-11-20T00:00:00Z</updated>
<entry><title>How large must the RoPE base be?</title><id>urn:1</id><link href="/papers/rope?utm_source=feed"/><updated>2026-11-20T10:00:00+02:00</updated>
<author><name>Ada L.</name></author><author><name>Emmy N.</name></author><category term="cs.LG"/><summary>{ROPE}</summary></entry>
<entry><title>&lt;script&gt;alert(1)&lt;/script&gt; in a title</title><id>urn:2</id><link href="javascript:alert(1)"/><updated>2026-11-19T10:00:00Z</updated>
<summary type="html">&lt;p&gt;First&lt;/p&gt;&lt;p&gt;second &amp;lt;b&amp;gt;&lt;/p&gt;&lt;script&gt;alert(2)&lt;/script&gt;&lt;img src=x onerror=alert(3)&gt;</summary></entry>
</feed>"""
RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0" xmlns:arxiv="http://arxiv.org/schemas/atom" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>cs.LG updates on arXiv.org</title>
<link>http://rss.arxiv.org/rss/cs.LG</link><description>d</description>
<item><title>A law of speculative decoding</title><link>https://arxiv.org/abs/2611.01234</link><guid isPermaLink="false">oai:arXiv.org:2611.01234v1</guid>
<description>arXiv:2611.01234v1 Announce Type: new
Abstract: We study the acceptance rate of draft tokens in speculative decoding and the best draft length.</description>
<category>cs.LG</category><pubDate>Fri, 20 Nov 2026 00:00:00 -0500</pubDate><arxiv:announce_type>new</arxiv:announce_type><dc:creator>A. One, B. Two</dc:creator></item>
<item><title>An older paper</title><link>https://arxiv.org/abs/2401.00001</link><guid isPermaLink="false">oai:arXiv.org:2401.00001v3</guid>
<description>arXiv:2401.00001v3 Announce Type: replace
Abstract: Old.</description><arxiv:announce_type>replace</arxiv:announce_type></item></channel></rss>"""
API = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom">
<title>arXiv Query: cat:cs.LG</title><id>http://arxiv.org/api/q</id><updated>2026-11-21T00:00:00-05:00</updated><opensearch:totalResults>1</opensearch:totalResults>
<entry><id>http://arxiv.org/abs/2611.01234v2</id><updated>2026-11-21T10:00:00Z</updated><published>2026-11-20T05:00:00Z</published>
<title>A law of
  speculative decoding</title><summary>  The same paper.
</summary><author><name>A. One</name></author><author><name>B. Two</name></author><arxiv:doi>10.1000/XYZ.1</arxiv:doi>
<link href="http://arxiv.org/abs/2611.01234v2" rel="alternate" type="text/html"/><category term="cs.LG" scheme="http://arxiv.org/schemas/atom"/></entry></feed>"""
JSON_FEED = json.dumps(
    {
        "version": "https://jsonfeed.org/version/1.1",
        "title": "Notes",
        "items": [
            {
                "id": "1",
                "url": "https://example.org/sheep",
                "title": "Wool of mountain sheep",
                "content_html": "<p>Sheep graze &amp; grow wool in alpine meadows.</p>",
                "date_published": "2026-11-18T08:00:00Z",
            },
            {"id": 2, "external_url": "https://doi.org/10.1000/xyz.1", "title": "A law of speculative decoding (journal)", "authors": [{"name": "A. One"}, "B"], "tags": ["x", 3]},
            "no object",
            {"id": "3", "url": "https://example.org/untitled"},
        ],
    }
)
BOMB = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><rss version="2.0"><channel><title>&b;</title></channel></rss>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss version="2.0"><channel><title>&a;</title></channel></rss>'


@pytest.fixture
def server():
    made = FeedServer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def mailbox(monkeypatch):
    """A mail server on this machine, named in the environment."""
    box = Mailbox()
    with smtp_server(box) as controller:
        monkeypatch.setenv("LAWBOOK_SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("LAWBOOK_SMTP_PORT", str(controller.port))
        monkeypatch.setenv("LAWBOOK_MAIL_FROM", "digest@lawbook.example")
        yield box


@pytest.fixture
def certificate(tmp_path):
    """(file of a certificate of localhost that nobody has signed but itself, file of its key)."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here to make a certificate with")
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", key, "-out", made], check=True, capture_output=True)
    return made, key


@pytest.fixture
def store(database):
    made = Store(database)
    yield made
    made.close()


def read(body, source="https://example.org/feed", **more):
    return parse(body.encode() if isinstance(body, str) else body, source, **more)


def test_atom_is_read_as_plain_text():
    feed = read(ATOM)
    first, second = feed.entries
    assert feed.title == "Theory & practice" and feed.said == []
    assert (first.title, first.link) == ("How large must the RoPE base be?", "https://example.org/papers/rope?utm_source=feed")
    assert first.authors == ("Ada L.", "Emmy N.") and first.published == "2026-11-20T08:00:00Z" and first.categories == ("cs.LG",) and first.feeds == ("Theory & practice",)
    assert second.title == "<script>alert(1)</script> in a title" and second.link == ""  # text that shows markup stays text, to be escaped
    assert second.summary == "First second <b>"


def test_rss_of_arxiv_leaves_out_replacements():
    feed = read(RSS)
    (paper,) = feed.entries
    assert (paper.arxiv, paper.link, paper.published) == ("2611.01234", "https://arxiv.org/abs/2611.01234", "2026-11-20T05:00:00Z")
    assert paper.authors == ("A. One", "B. Two") and paper.summary.startswith("We study the acceptance rate")
    assert feed.said == ["https://example.org/feed: 1 new version of older papers is left out"]


def test_answers_of_arxiv_and_json_feeds():
    (paper,) = read(API).entries
    assert (paper.arxiv, paper.title, paper.doi, paper.published, paper.summary) == (
        "2611.01234",
        "A law of speculative decoding",
        "10.1000/xyz.1",
        "2026-11-20T05:00:00Z",
        "The same paper.",
    )
    feed = read(JSON_FEED)
    assert [e.title for e in feed.entries] == ["Wool of mountain sheep", "A law of speculative decoding (journal)"]
    assert feed.entries[0].summary == "Sheep graze & grow wool in alpine meadows." and feed.entries[1].authors == ("A. One",) and feed.entries[1].doi == "10.1000/xyz.1"
    assert any("1 item that is no object" in s for s in feed.said) and any("1 entry without a title" in s for s in feed.said)
    error = API.replace("http://arxiv.org/abs/2611.01234v2</id>", "http://arxiv.org/api/errors#bad</id>").replace("The same paper.", "incorrect id format")
    with pytest.raises(FeedError, match="error of arXiv's API: incorrect id format"):
        read(error)


@pytest.mark.parametrize(
    "bomb", [BOMB, EXTERNAL, BOMB.replace('version="1.0"', 'version="1.0" encoding="utf-16"').encode("utf-16"), BOMB.replace("<!ENTITY a", "<!ENTITY % c 'x'><!ENTITY a")]
)
def test_entities_are_refused(bomb):
    with pytest.raises(FeedError, match="entities of its own, which is refused"):
        read(bomb)


def test_a_malformed_feed_is_read_as_far_as_it_goes():
    cut = read(ATOM[: ATOM.index("<title>&lt;script") + 10])
    assert cut.entries[0].title == "How large must the RoPE base be?"
    assert re.search(r"is malformed \(line \d+: .*\): it is read as far as it goes", cut.said[0])
    stray = read(RSS.replace("A law of speculative decoding", "A law & its <em>limits"))
    assert "A law" in stray.entries[0].title and "malformed" in stray.said[0]


def test_hostile_feeds_are_refused_or_read_quickly():
    began = time.monotonic()
    size = 3_000_000
    for start, part in (
        (b"", b"<a>"),
        (b"", b"<item><title>"),
        (b"", b"<item><title>x</title></item>"),
        (b"<item><title>x</title><description>", b"&lt;b&gt;"),
        (b"<item><title>", b"&"),
    ):
        with contextlib.suppress(FeedError):
            assert len(read(b'<rss version="2.0"><channel>' + start + part * (size // len(part)), limits=replace(QUICK, broken=100_000)).entries) <= 1
    assert time.monotonic() - began < 30  # a loaded machine; it takes 2 s


def test_a_broken_feed_never_raises_anything_else():
    rng = random.Random(0)
    for _ in range(300):
        body = bytearray(rng.choice([ATOM, RSS, API, JSON_FEED]).encode())
        for _ in range(rng.choice([1, 2, 5])):
            at = rng.randrange(len(body))
            body[at : at + rng.choice([0, 1, 20])] = rng.choice([b"", b"<", b">", b"&", b"&#x0;", b"<![x", b"<![CDATA[", b"<!--", b"\x00", b"\xff", b'"', b"{", b"<?xml"])
        with contextlib.suppress(FeedError):
            merged([read(bytes(body))])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b'{"items": [', "its JSON breaks off"),
        (b"[1, 2]", "is no JSON feed"),
        (b"[" * 100_000, "its JSON breaks off"),
        (b"\x00\xff\xfe\x80garbage", "is no Atom, RSS or JSON feed"),
        (b"<html><head><link rel='alternate' type='application/atom+xml' href='/a.xml'></head><body>hi</body></html>", "names the feed https://example.org/a.xml"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "no Atom, RSS or JSON feed"),
    ],
)
def test_what_is_no_feed_is_said(body, sentence):
    with pytest.raises(FeedError, match=re.escape(sentence)):
        read(body)


def test_letters_that_deceive_are_left_out():
    item = {"id": "1", "url": "https://example.org/a\x00b", "title": "Red\x1b[31m \u202etxt.exe\u2066 \ud800end\ufffe", "content_text": "x" * 10_000}
    (entry,) = read(json.dumps({"items": [item]})).entries
    assert entry.title == "Red[31m txt.exe end" and entry.link == "" and len(entry.summary) == feed_formats.LONGEST["summary"]


def test_duplicates_are_shown_once():
    papers, said = merged(
        [read(RSS, "https://a.example/1"), read(API, "https://a.example/2"), read(JSON_FEED, "https://a.example/3"), read(ATOM), read(ATOM, "https://www.example.org/feed")]
    )
    titles = [p.title for p in papers]
    assert titles.count("A law of speculative decoding") == 1 and "A law of speculative decoding (journal)" not in titles  # joined by arXiv id, then by DOI
    joined = papers[0]
    assert joined.doi == "10.1000/xyz.1" and joined.feeds == ("cs.LG updates on arXiv.org", "arXiv Query: cat:cs.LG", "Notes")
    assert said == ["4 entries that are in the feeds more than once are shown once"]


def test_an_address_that_many_papers_share_does_not_join_them():
    items = [
        {"id": str(i), "title": title, "url": "https://lab.example/papers"}
        for i, title in enumerate(["On the width of networks", "On the depth of networks", "On the depth of networks"])
    ]
    papers, _ = merged([read(json.dumps({"items": items}))])
    assert [p.title for p in papers] == ["On the width of networks", "On the depth of networks"] and all(p.link == "https://lab.example/papers" for p in papers)


def test_copies_are_kept_and_said(server):
    url = server.serve("/a", ATOM, ETag='"one"', Last_Modified="Fri, 20 Nov 2026 10:00:00 GMT")
    copies = {}
    (feed,), failed = read_feeds([url], copies=copies, limits=QUICK)
    assert feed.state == "read" and not failed and copies[url].etag == '"one"'
    (feed,), _ = read_feeds([url], copies=copies, limits=QUICK)
    assert feed.state == "kept" and "was not fetched again" in feed.said[0] and len(server.asked) == 1
    server.serve("/a", b"", status=304)
    (feed,), _ = read_feeds([url], copies=copies, limits=QUICK, fresh=True)
    assert feed.state == "unchanged" and len(feed.entries) == 2 and "has not changed since" in feed.said[0]
    assert server.asked[-1][1]["If-None-Match"] == '"one"' and server.asked[-1][1]["If-Modified-Since"] == "Fri, 20 Nov 2026 10:00:00 GMT"
    copies[url] = replace(copies[url], fetched_at=time.time() - 10_000)
    for body, status in ((b"overloaded", 503), (b"<html>login</html>", 200)):
        server.serve("/a", body, status=status)
        (feed,), failed = read_feeds([url], copies=copies, limits=QUICK)
        assert feed.state == "stale" and len(feed.entries) == 2 and not failed and "its copy of" in feed.said[0]
    assert copies[url].body == ATOM.encode()  # a page of errors does not take the copy's place


def test_a_feed_that_is_down_does_not_stop_the_others(server):
    good = server.serve("/good", ATOM)
    down, closed = server.serve("/down", "no", status=500, Retry_After="60"), f"http://127.0.0.1:{free_port()}/"
    nowhere, missing = "http://feed.invalid/x", server.url + "/missing"
    read_now, failed = read_feeds([down, good, closed, nowhere, missing, "no-file.xml"], limits=QUICK)
    assert [f.source for f in read_now] == [good]
    assert "is down: the server answers 500" in failed[down] and "come back after 60" in failed[down]
    assert "cannot be reached" in failed[closed] and "cannot be reached" in failed[nowhere] and "answers 404" in failed[missing] and "There is no file" in failed["no-file.xml"]


def test_size_and_time_are_limited(server):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"<a>" * 10_000)

    def slow(handler):
        for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:  # never silent for long, never done
            handler.wfile.write(bytes([letter]))
            handler.wfile.flush()
            time.sleep(0.1)

    server.answers |= {"/endless": endless, "/slow": slow}
    packed = server.serve("/packed", gzip.compress(b" " * 5_000_000), Content_Encoding="gzip")
    broken = server.serve("/broken", b"\x1f\x8bnot gzip", Content_Encoding="gzip")
    began = time.monotonic()
    _, failed = read_feeds([server.url + "/endless", packed, broken, server.url.replace("127.0.0.1", "localhost") + "/slow"], limits=QUICK)
    assert time.monotonic() - began < 6
    assert "is larger than" in failed[server.url + "/endless"] and "is larger than" in failed[packed] and "cannot be reached" in failed[broken]
    assert "did not arrive within 1.5 s" in failed[server.url.replace("127.0.0.1", "localhost") + "/slow"]
    many = json.dumps({"items": [{"id": str(i), "title": f"Paper {i}"} for i in range(50)]})
    feed = read(many, limits=replace(QUICK, entries=20))
    assert len(feed.entries) == 20 and "of which the first 20 are read" in feed.said[0]


def test_redirects_lead_only_where_they_may(server):
    server.serve("/real", ATOM)
    moved = server.serve("/moved", "", status=301, Location="/real")
    (feed,), _ = read_feeds([moved], limits=QUICK)
    assert feed.entries and f"{moved} has moved to {server.url}/real" in feed.said
    targets = {"file:///etc/passwd": "scheme 'file'", "ftp://example.org/": "scheme 'ftp'", "data:text/xml,<rss/>": "scheme 'data'", "javascript:1": "scheme 'javascript'"}
    targets |= {
        server.url.replace("127.0.0.1", "localhost") + "/real": "inside a private network",
        "http://[::1]/": "inside a private network",
        "http://169.254.169.254/meta": "private network",
    }
    targets |= {"http://[broken": "redirects to what is no address", "/loop5": "redirects more than 5 times"}
    for i, (target, sentence) in enumerate(targets.items()):
        _, failed = read_feeds([server.serve(f"/loop{i + 10}" if target != "/loop5" else "/loop5", "", status=302, Location=target)], limits=QUICK)
        assert sentence in next(iter(failed.values())), target
    assert not any(path.startswith("/etc") for path, _ in server.asked)
    with pytest.raises(FeedError, match="from https to http"):
        feed_fetch._redirected("https://example.org/", "https://example.org/", "http://example.org/feed")


@pytest.fixture
def rebinding(server, monkeypatch):
    """A feed server at 127.0.0.2, which stands for a public address, and a resolver that says so of rebind.test once and names `server` at every other time.

    Returns (the server at 127.0.0.2, an address of the name, the names that were asked for).
    """
    public, asked, real = FeedServer("127.0.0.2", server.server.server_port), [], socket.getaddrinfo

    def resolve(host, port, *more, **options):
        host = host.decode() if isinstance(host, bytes) else host
        if host == "rebind.test":
            asked.append(host)
            host = "127.0.0.2" if len(asked) == 1 else "127.0.0.1"
        return real(host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(feed_fetch, "_is_public", lambda address: address == "127.0.0.2")
    server.serve("/feed", "what only this machine may see")
    public.serve("/feed", ATOM)
    yield public, f"http://rebind.test:{server.server.server_port}", asked
    public.server.shutdown()
    public.server.server_close()


def test_a_name_that_means_another_address_a_moment_later_leads_nowhere_else(server, rebinding):
    public, there, asked = rebinding
    (feed,), failed = read_feeds([server.serve("/away", "", status=302, Location=f"{there}/feed")], limits=QUICK)
    assert not failed and len(feed.entries) == 2 and asked == ["rebind.test"] and [path for path, _ in server.asked] == ["/away"]
    assert public.asked[0][1]["Host"] == there.removeprefix("http://")


def test_a_named_host_that_turns_to_this_machine_is_held_to_its_first_address(server, rebinding):
    public, there, asked = rebinding
    public.serve("/start", "", status=302, Location="/feed")
    (feed,), _ = read_feeds([f"{there}/start"], limits=QUICK)
    assert len(feed.entries) == 2 and asked == ["rebind.test"] and server.asked == []
    asked.clear()
    public.serve("/start", "", status=302, Location=f"{server.url}/feed")
    _, failed = read_feeds([f"{there}/start"], limits=QUICK)
    assert "inside a private network" in failed[f"{there}/start"] and server.asked == []


def test_the_next_address_of_a_host_is_tried_where_one_is_down(server, monkeypatch):
    real = socket.getaddrinfo
    both = lambda port: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in ("127.0.0.3", "127.0.0.1")]  # noqa: E731
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *more, **options: both(port) if host == "two.test" else real(host, port, *more, **options))
    server.serve("/feed", ATOM, Set_Cookie="who=me")
    url = f"http://two.test:{server.server.server_port}/feed"
    for _ in range(2):
        (feed,), failed = read_feeds([url], limits=QUICK)
        assert not failed and len(feed.entries) == 2 and "Cookie" not in server.asked[-1][1]


def test_certificates_are_those_of_the_name(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    names = []
    context.sni_callback = lambda connection, name, _: names.append(name)
    server, real = FeedServer(context=context), socket.getaddrinfo
    server.serve("/feed", ATOM)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: real("127.0.0.1" if host == "other.test" else host, *more, **options))
    good, other = (f"https://{host}:{server.server.server_port}/feed" for host in ("localhost", "other.test"))
    (feed,), failed = read_feeds([good, other], limits=QUICK)
    server.server.shutdown()
    server.server.server_close()
    assert feed.source == good and sorted(names) == ["localhost", "other.test"] and "certificate verify failed" in failed[other].lower()


def test_a_proxy_resolves_names_by_itself(server, monkeypatch):
    server.serve("http://feed.invalid/feed", ATOM)
    monkeypatch.setenv("http_proxy", server.url)
    (feed,), failed = read_feeds(["http://feed.invalid/feed"], limits=QUICK)
    assert not failed and len(feed.entries) == 2
    monkeypatch.setenv("no_proxy", "feed.invalid")
    _, failed = read_feeds(["http://feed.invalid/feed"], limits=QUICK)
    assert "its name is not known" in failed["http://feed.invalid/feed"]


@pytest.mark.parametrize("source", ["ftp://example.org/feed", "file:///etc/passwd", "http://", "http://[::1", "gopher://x/", "http://host:99999/x"])
def test_only_http_addresses_are_fetched(source):
    _, failed = read_feeds([source], limits=QUICK)
    assert "must be an http(s) address" in failed[source]


def test_files_are_read_and_passwords_not_shown(tmp_path):
    (tmp_path / "feed.xml").write_text(ATOM)
    (tmp_path / "large.xml").write_bytes(b" " * 300_000)
    read_now, failed = read_feeds([tmp_path / "feed.xml", tmp_path / "large.xml", tmp_path], limits=QUICK)
    assert len(read_now) == 1 and read_now[0].state == "file" and len(read_now[0].entries) == 2
    assert [s.partition(" is ")[2] for s in failed.values()] == ["larger than 0.190735 MiB.", "a folder: name one file in it."]
    _, failed = read_feeds([f"http://me:secret@127.0.0.1:{free_port()}/feed"], limits=QUICK)
    assert "secret" not in str(failed) and "me:" not in str(failed)
    assert feeds.shown("https://a.example/f?cat=cs.LG&api_key=abc&Token=d") == "https://a.example/f?cat=cs.LG&api_key=…&Token=…"


def test_tags_and_neighbours():
    entries = index()
    papers = digest.placed([*read(ATOM).entries, *read(JSON_FEED).entries[:1]], entries)
    rope = papers[0]
    assert rope["nearest"][0]["result"].startswith("rope-base-region.") and rope["nearest"][0]["score"] > digest.NEAR and "rope" in rope["nearest"][0]["shared"]
    assert {"rope", "context length"} <= set(rope["tags"]) and len(rope["tags"]) <= digest.MOST_TAGS
    sheep = next(p for p in papers if "sheep" in p["title"])
    assert sheep["nearest"] == []  # nothing in the book is about sheep
    assert papers[0]["title"] == "How large must the RoPE base be?"  # what is near comes first
    assert digest.placed(read(ATOM).entries, [])[0]["nearest"] == []  # an empty book
    known = next(e for e in entries if e["slug"] == "rope-base-region")
    same = [feeds.Entry("Another title", arxiv=known["arxiv"]), feeds.Entry(known["title"].upper()), feeds.Entry("A paper that is not there")]
    assert sorted(p["in_book"] for p in digest.placed(same, entries)) == ["", "rope-base-region", "rope-base-region"]


def test_each_paper_of_the_book_is_nearest_to_itself():
    entries = index()
    near = digest.Neighbours(entries)
    assert all(near.of(f"{e['title']}. {e['says']}")[0]["result"].startswith(e["slug"] + ".") for e in entries if e["results"])


@pytest.mark.parametrize(("text", "seconds"), [("12h", 12 * 3600), ("7d", 7 * 86400), ("2w", 14 * 86400), ("0.5d", 43200)])
def test_since(text, seconds):
    assert digest.read_since(text, 1e9) == 1e9 - seconds
    assert digest.read_since("2026-11-01") == digest.read_since("2026-11-01T00:00:00+00:00")
    for wrong in ("yesterday", "-1d", "9" * 30 + "d", "2026-13-01"):
        with pytest.raises(LawbookError, match="since must be a date"):
            digest.read_since(wrong)


PAPER = '''"""A paper of one's own."""

from lawbook.contract import Paper, positive, real
from lawbook.trials import Identity

paper = Paper(__name__, title="A {word} law of widgets", arxiv="2611.09999", tags=["widgets"], source="known", says="Widgets grow.")


@paper.law(r"y = 2 x")
def doubled(x: positive("", example=1.0)) -> real(""):
    """Twice x."""
    return 2 * x


@paper.trial(Identity(rtol=1e-9), of=[doubled], controls={{"thrice": lambda x: 3 * x}}, quick=10, full=20)
def twice(draw, doubled):
    """By adding."""
    x = draw.uniform(1, 2)
    return x + x, doubled(x)
'''


def judged(status, seed=0):
    controls = [{"name": "thrice", "rejected": True, "status": "violated", "reason": "off"}]
    return Verdict("widgets", "twice", "identity", ("doubled",), status, f"because it is {status}", 10, None, {}, {}, controls, seed, "quick", {}, 0.1)


def test_what_is_new_in_the_book(tmp_path, monkeypatch, store):
    first = digest.keep_digest(digest.gather([], store=store), store)
    assert first.since is None and first.empty and first.book["counts"]["papers"] == len(index())
    (tmp_path / "chapters" / "own").mkdir(parents=True)
    (tmp_path / "chapters" / "own" / "widgets.py").write_text(PAPER.format(word="first"))
    monkeypatch.setenv("LAWBOOK_CHAPTERS", str(tmp_path / "chapters"))
    trial = catalogue.paper("widgets").trials["twice"]
    store.records().keep(trial, judged("upheld"))
    second = digest.keep_digest(digest.gather([], store=store, records=store.records()), store)
    assert [p["slug"] for p in second.book["papers"]] == ["widgets"] and second.headline == "1 paper added to the book, 1 changed verdict"
    assert [(v["trial"], v["before"], v["now"]) for v in second.verdicts] == [("widgets.twice", None, "upheld")]
    store.records().keep(trial, judged("violated", seed=1))
    third = digest.keep_digest(digest.gather([], store=store, records=store.records()), store)
    assert [(v["before"], v["now"], v["reason"]) for v in third.verdicts] == [("upheld", "violated", "because it is violated")] and not third.book["papers"]
    assert digest.gather([], store=store, records=store.records()).empty
    assert [d.id for d in digest.latest(store)] == [3, 2, 1] and digest.kept(store, 2).to_dict() == second.to_dict()
    with pytest.raises(UnknownName):
        digest.kept(store, 99)


def test_two_digests_at_once_do_not_both_count(store):
    made, said = [digest.gather([], store=store) for _ in range(4)], []
    together = threading.Barrier(len(made))

    def keep(one):
        together.wait()
        try:
            digest.keep_digest(one, store)
        except LawbookError as error:
            said.append(str(error))

    threads = [threading.Thread(target=keep, args=[one]) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digest.latest(store)) == 1 and len(said) == 3 and all("made meanwhile" in sentence for sentence in said)


def test_the_command_from_feeds_to_mail(server, mailbox, shell, tmp_path):
    urls = [server.serve("/atom", ATOM), server.serve("/rss", RSS), server.serve("/api", API), server.serve("/bomb", BOMB), server.url + "/gone"]
    (tmp_path / "notes.json").write_text(JSON_FEED)
    (tmp_path / "feeds.txt").write_text(f"# mine\n\n{tmp_path / 'notes.json'}\n{urls[0]}\n")
    page, atom = tmp_path / "digest.html", tmp_path / "digest.xml"
    options = [part for url in urls for part in ("--feed", url)]
    command = ["digest", *options, "--feeds", tmp_path / "feeds.txt", "--out", page, "--atom", atom, "--mail", "me@example.org", "--base-url", "https://books.example/"]
    status, out, err = shell(*command, "--preview")
    assert status == 1 and len(mailbox.mails) == 1  # looked at, and not kept
    status, out, err = shell(*command)
    assert status == 1 and "4 new papers" in out and "rope-base-region." in out
    assert "/gone is down: the server answers 404" in err and "entities of its own" in err and "mailed to me@example.org" in err and "was not fetched again" in err
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; in a title" in text and "javascript:" not in text and "onerror" not in text
    assert "<math" in text and "https://books.example/paper/rope-base-region/" in text and "Not read:" in text
    assert not re.search(r"""(src|href)=["'](?!https?://|#)""", text)
    parsed = parse(atom.read_bytes(), "digest.xml")
    assert parsed.said == [] and [e.title for e in parsed.entries] == ["4 new papers"] and parsed.entries[0].published
    (_, sent) = mailbox.to("me@example.org")
    assert sent["Subject"] == "lawbook digest: 4 new papers" and sent["From"] == "lawbook <digest@lawbook.example>" and sent["List-Unsubscribe"] is None
    plain, rich = (sent.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert "<script>alert(1)</script> in a title" in plain and "<script" not in rich and "&lt;script&gt;" in rich and "\n* How large must the RoPE base be?" in plain
    server.serve("/atom", ATOM.replace("</feed>", "<entry><title>A paper that came later</title><id>urn:9</id><updated>2026-11-28T00:00:00Z</updated></entry></feed>"))
    status, out, err = shell("digest", "--feed", urls[0], "--fresh", "--format", "json")
    assert status == 0 and [p["title"] for p in json.loads(out)["papers"]] == ["A paper that came later"] and "2 of 3 papers were in an earlier digest" in err
    status, out, err = shell("digest", "--feed", urls[0], "--mail", "me@example.org", "--atom", atom)
    assert status == 0 and out == "Nothing new.\n" and "no mail was sent" in err and len(mailbox.mails) == 2
    assert [e.title for e in parse(atom.read_bytes(), "digest.xml").entries] == ["1 new paper", "4 new papers"]


def test_since_leaves_out_older_papers(shell, tmp_path):
    (tmp_path / "a.xml").write_text(ATOM)
    status, out, err = shell("digest", "--feed", tmp_path / "a.xml", "--since", "2026-11-20", "--preview")
    assert status == 0 and "1 new paper." in out and "1 paper from before 2026-11-20 00:00 UTC is left out" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--send"], "Mail needs a server"),
        (["--send", "--preview"], "is not kept"),
        (["--send", "--smtp-host", "127.0.0.1", "--mail-from", "a@b.example"], "give --base-url"),
        (["--mail", "me@example.org", "--smtp-host", "127.0.0.1"], "Mail needs a sender"),
        (["--mail", "me@example.org", "--smtp-host", "mail.example.org", "--smtp-user", "me", "--mail-from", "a@b.example"], "needs a password"),
        (["--mail", "me@example.org", "--smtp-host", "x.example", "--smtp-port", "0", "--mail-from", "a@b.example"], "port of the mail server"),
        (["--mail", "me@example.org", "--smtp-host", "x.example", "--smtp-tls", "ssl", "--mail-from", "a@b.example"], "starttls, tls or none"),
        (["--mail", "two@example.org, three@example.org", "--smtp-host", "127.0.0.1", "--mail-from", "a@b.example"], "looks like name@example.org"),
        (["--base-url", "javascript:1"], "must start with http"),
        (["--since", "soon"], "since must be a date"),
        (["--out", "no/folder/digest.html"], "does not exist"),
        (["--feeds", "no-list.txt"], "cannot be read"),
        (["--database", "mysql://x/y"], "must be SQLite or PostgreSQL"),
    ],
)
def test_mistakes_are_one_sentence(shell, options, sentence):
    status, out, err = shell("digest", *options)
    assert status == 2 and sentence in err and len(err.strip().splitlines()) == 1 and not out


def test_a_mail_server_that_is_down_keeps_nothing(shell, tmp_path, monkeypatch, store):
    (tmp_path / "a.xml").write_text(ATOM)
    monkeypatch.setenv("LAWBOOK_MAIL_FROM", "digest@lawbook.example")
    status, _, err = shell("digest", "--feed", tmp_path / "a.xml", "--mail", "me@example.org", "--smtp-host", "127.0.0.1", "--smtp-port", free_port(), "--database", store.url)
    assert status == 2 and "cannot be reached" in err and digest.latest(store) == []


def enrol(store, *addresses):
    """Subscribers who have confirmed."""
    relay = mail.Relay.from_settings()
    for address in addresses:
        links = []
        subscribers.ask(store, relay, address, "https://books.example", lambda link, known, links=links: (links.append(link), digest_views.request_mail(link, known))[1])
        assert subscribers.confirm(store, links[0].rpartition("/")[2]) == address


def test_subscribers_get_each_digest_once(mailbox, store, shell, tmp_path):
    (tmp_path / "a.xml").write_text(ATOM)
    enrol(store, "ada@example.org", "bob@example.org", "cid@example.org")
    mailbox.mails.clear()
    mailbox.refused.add("bob@example.org")
    command = ["digest", "--send", "--base-url", "https://books.example", "--database", store.url]
    status, _, err = shell(*command, "--feed", tmp_path / "a.xml")
    assert status == 1 and "2 mails sent" in err and "refuses bob@example.org: 550 5.1.1 no such person" in err
    (sent,) = mailbox.to("ada@example.org")
    link = sent["List-Unsubscribe"].strip("<>")
    assert link.startswith("https://books.example/digest/unsubscribe/") and sent["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click" and "lawbook.example" in sent["List-Id"]
    assert link in sent.get_body(("plain",)).get_content() and html.escape(link) in sent.get_body(("html",)).get_content() and "https://books.example/digest/1" in str(sent)
    assert mailbox.to("cid@example.org")[0]["List-Unsubscribe"] != sent["List-Unsubscribe"]
    mailbox.refused.clear()
    status, _, err = shell(*command)
    assert status == 0 and "1 mail sent, 2 had it before" in err and len(mailbox.mails) == 3
    subscribers.unsubscribe(store, link.rpartition("/")[2])
    assert "ada@example.org" not in subscribers.confirmed(store).values()


def test_an_interrupted_round_goes_on_without_sending_twice(mailbox, store, shell, tmp_path):
    (tmp_path / "a.xml").write_text(ATOM)
    enrol(store, *(f"reader{i}@example.org" for i in range(4)))
    mailbox.mails.clear()
    mailbox.breaks_after = 2
    command = ["digest", "--send", "--base-url", "https://books.example", "--database", store.url]
    status, _, err = shell(*command, "--feed", tmp_path / "a.xml")
    assert status == 1 and "2 mails sent" in err and "ends the connection" in err and "go out with `lawbook digest --send`" in err
    mailbox.breaks_after = None
    status, _, err = shell(*command)
    assert status == 0 and "2 mails sent, 2 had it before" in err
    assert sorted(recipients[0] for recipients, _ in mailbox.mails) == [f"reader{i}@example.org" for i in range(4)]


def test_mail_is_encrypted_and_certificates_are_checked(certificate, monkeypatch):
    from aiosmtpd.smtp import AuthResult

    certificate, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    box = Mailbox()

    def authenticator(server, session, envelope, mechanism, data):
        return AuthResult(success=(data.login, data.password) == (b"me", b"secret"), handled=False)

    with smtp_server(box, tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticator) as controller:
        monkeypatch.setenv("LAWBOOK_SMTP_PASSWORD", "secret")
        relay = mail.Relay.from_settings(host="localhost", port=str(controller.port), tls="starttls", user="me", sender="digest@lawbook.example")
        assert "secret" not in repr(relay)
        with pytest.raises(mail.MailError, match="cannot be spoken to in encryption"), mail.Post(relay):
            pass
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with mail.Post(relay) as post:
            post.send(mail.message(relay, "me@example.org", "Hello", "text", "<p>text</p>"))
        assert box.to("me@example.org")[0]["Subject"] == "Hello"
        with pytest.raises(mail.MailError, match="refuses the user 'me'"), mail.Post(replace(relay, password="wrong")):
            pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a@",
        "@b.example",
        "a b@c.example",
        "a@b.example\nBcc: d@e.example",
        "a@b.example, c@d.example",
        "A <a@b.example>",
        '"a b"@c.example',
        "ä@b.example",
        "a" * 65 + "@b.example",
        "a@" + "b" * 300,
    ],
)
def test_only_one_plain_address_is_accepted(text):
    with pytest.raises(DomainError, match=r"looks like name@example\.org"):
        mail.read_address(text)
    assert mail.read_address(" Ada@Bücher.Example ") == "Ada@xn--bcher-kva.example"


def test_links_are_signed_and_expire(mailbox, store, monkeypatch):
    enrol(store, "ada@example.org")
    (subscriber,) = subscribers.confirmed(store)
    good = subscribers.link(store, "", subscriber, subscribers.UNSUBSCRIBE).rpartition("/")[2]
    for token, act in (("x" + good, subscribers.unsubscribe), (good, subscribers.confirm), ("", subscribers.unsubscribe), ("a.b.c", subscribers.confirm)):
        with pytest.raises(subscribers.BadLink):
            act(store, token)
    stale = subscribers.link(store, "", subscriber, subscribers.CONFIRM).rpartition("/")[2]
    monkeypatch.setattr(subscribers, "PATIENCE", -1)
    with pytest.raises(subscribers.BadLink, match="too old"):
        subscribers.confirm(store, stale)
    subscribers.unsubscribe(store, good)
    subscribers.unsubscribe(store, good)  # twice is as good as once
    assert subscribers.confirmed(store) == {}


def test_nobody_is_flooded(mailbox, store, monkeypatch):
    relay = mail.Relay.from_settings()
    for _ in range(3):
        subscribers.ask(store, relay, "ada@example.org", "https://books.example", digest_views.request_mail)
    assert len(mailbox.mails) == 1
    monkeypatch.setattr(subscribers, "MOST_ASKED", 2)
    subscribers.ask(store, relay, "bob@example.org", "https://books.example", digest_views.request_mail)
    with pytest.raises(subscribers.TooMany):
        subscribers.ask(store, relay, "cid@example.org", "https://books.example", digest_views.request_mail)
    monkeypatch.setattr(subscribers, "MOST_ASKED", 99)
    with pytest.raises(mail.MailError):
        subscribers.ask(store, replace(relay, port=free_port()), "ada2@example.org", "https://books.example", digest_views.request_mail)
    subscribers.ask(store, relay, "ada2@example.org", "https://books.example", digest_views.request_mail)  # the first try sent nothing
    assert len(mailbox.to("ada2@example.org")) == 1
    threads = [threading.Thread(target=subscribers.ask, args=[store, relay, "eva@example.org", "https://books.example", digest_views.request_mail]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mailbox.to("eva@example.org")) == 1


@pytest.fixture
def client():
    from fastapi.testclient import TestClient

    from lawbook.faces.web.app import Settings, create_app

    with TestClient(create_app(Settings(base_url="http://testserver")), base_url="http://testserver") as made:
        yield made


def form_of(page):
    return re.search(r'name="csrf" value="([^"]+)"', page.text)[1]


def test_the_pages(client, mailbox, tmp_path):
    assert "No digest has been made yet" in client.get("/digest").text and "There is none yet" in client.get("/digest/archive").text
    assert parse(client.get("/digest/feed.xml").content, "feed").entries == []
    (tmp_path / "a.xml").write_text(ATOM)
    store = client.app.state.store
    digest.keep_digest(digest.gather([tmp_path / "a.xml"], store=store), store)
    page = client.get("/digest")
    assert (
        page.status_code == 200
        and "2 new papers" in page.text
        and "alert(1)&lt;/script&gt; in a title" in page.text
        and "<script>alert" not in page.text
        and 'style="' not in page.text
    )
    assert "/paper/rope-base-region/" in page.text and client.get(re.search(r'href="(/paper/rope-base-region/\w+)"', page.text)[1]).status_code == 200
    assert client.get("/digest/1").status_code == 200 and client.get("/digest/7").status_code == 404 and client.get("/digest/99999999999").status_code == 404
    assert 'href="/digest/1"' in client.get("/digest/archive").text
    (tmp_path / "many.json").write_text(json.dumps({"items": [{"id": str(i), "title": f"Paper number {i} of many"} for i in range(60)]}))
    digest.keep_digest(digest.gather([tmp_path / "many.json"], store=store), store)
    pages = [client.get("/digest", params={"page": n}).text for n in (1, 2, 3, 4)]
    assert [page.count("<article") for page in pages] == [25, 25, 10, 0] and 'href="/digest/2?page=3"' in pages[1] and "Page 3 of 3" in pages[2]
    assert client.get("/digest", params={"page": "-5"}).status_code == 200 and client.get("/digest", params={"page": "x"}).status_code == 422
    *_, entry = parse(client.get("/digest/feed.xml").content, "http://testserver/digest/feed.xml").entries
    assert entry.title == "2 new papers" and entry.link == "http://testserver/digest/1"


def test_a_subscription_in_the_browser(client, mailbox):
    csrf = form_of(client.get("/digest"))
    assert client.post("/digest/subscribe", data={"email": "ada@example.org"}).status_code == 403
    assert client.post("/digest/subscribe", data={"email": "nobody", "csrf": csrf}).status_code == 400
    said = client.post("/digest/subscribe", data={"email": "ada@example.org", "csrf": csrf})
    assert said.status_code == 200 and "Look into your mail" in said.text
    store, plain = client.app.state.store, mailbox.to("ada@example.org")[0].get_body(("plain",)).get_content()
    path = re.search(r"http://testserver(/digest/confirm/\S+)", plain)[1]
    assert client.get(path).status_code == 200 and subscribers.confirmed(store) == {}  # opening the link is not enough: programs do that
    assert "You are subscribed" in client.post(path).text and list(subscribers.confirmed(store).values()) == ["ada@example.org"]
    signed, _, signature = path.rpartition(".")
    assert client.post(f"{signed}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}").status_code == 400
    again = client.post("/digest/subscribe", data={"email": "ada@example.org", "csrf": csrf})
    assert again.text.count("Look into your mail") == said.text.count("Look into your mail")  # does not tell who is subscribed
    (subscriber,) = subscribers.confirmed(store)
    leave = subscribers.link(store, "", subscriber, subscribers.UNSUBSCRIBE)
    assert "Unsubscribe" in client.get(leave).text and subscribers.confirmed(store)
    client.cookies.clear()
    done = client.post(leave, data={"List-Unsubscribe": "One-Click"})  # as a mail program does: no cookie, no form of ours
    assert done.status_code == 200 and subscribers.confirmed(store) == {}
    assert client.post(leave, data={"List-Unsubscribe": "One-Click"}).status_code == 200


def test_signed_links_need_no_token(mailbox):
    from fastapi.testclient import TestClient

    from lawbook.faces.web.app import Settings, create_app

    with TestClient(create_app(Settings(base_url="http://testserver", token="a-long-token")), base_url="http://testserver", follow_redirects=False) as closed:
        assert closed.get("/digest").status_code == 303
        enrol(closed.app.state.store, "ada@example.org")
        (subscriber,) = subscribers.confirmed(closed.app.state.store)
        leave = subscribers.link(closed.app.state.store, "", subscriber, subscribers.UNSUBSCRIBE)
        assert closed.get(leave).status_code == 200 and closed.post(leave, data={"List-Unsubscribe": "One-Click"}).status_code == 200
        assert subscribers.confirmed(closed.app.state.store) == {}


def test_a_server_without_mail_says_so(client, monkeypatch):
    page = client.get("/digest")
    assert "no mail server set" in page.text and '<input id="email"' not in page.text
    monkeypatch.setenv("LAWBOOK_SMTP_HOST", "mail.example.org")
    assert "This server cannot send mail" in client.get("/digest").text


def test_copies_in_the_store(store):
    copies = digest.Copies(store)
    copies["https://a.example/"] = Copy(b"\x00\xff", "text/xml", '"e"', "", 1.5)
    copies["https://a.example/"] = Copy(b"two", fetched_at=2.5)
    assert copies["https://a.example/"] == Copy(b"two", fetched_at=2.5) and len(copies) == 1 and copies.get("https://b.example/") is None
    del copies["https://a.example/"]
    with pytest.raises(KeyError):
        del copies["https://a.example/"]
