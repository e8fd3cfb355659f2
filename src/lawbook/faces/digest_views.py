"""How a digest is shown: the same content as a page, a mail in HTML and in plain text, and an Atom feed."""

import math
import time
import uuid
from functools import cache, lru_cache
from importlib import metadata

import jinja2
from markupsafe import Markup

from ..contract.verdict import STATUSES
from . import notebook

STATES = {
    "read": "fetched now",
    "unchanged": "unchanged by the server's word, read from the copy kept here",
    "kept": "read from the copy kept here, which is young",
    "stale": "down: read from the copy kept here",
    "file": "read from a file",
}
MANY = 4  # authors after which the rest is counted
LONG = 1200  # letters of a summary
PER_PAGE = 25


@cache
def environment(escaped=True):
    """Templates of mails and feeds; whatever comes from a feed is escaped where it is markup."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lawbook.faces"), autoescape=escaped, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )


def shown(digest, address="", formulas=True, page=None):
    """A digest as its templates want it: texts, and links to the workbench at `address` where there is one (None: no links; empty: links within the server).

    With `page` (from 1) only PER_PAGE of its papers, and on the first page all else.
    """

    def place(name, kind="paper"):
        return None if address is None else f"{address}/{kind}/{name.replace('.', '/')}"

    def linked(record, key, kind="paper"):
        return {**record, "link": place(record[key], kind)}

    counts = digest.book.get("counts", {"papers": 0, "results": 0, "findings": 0, "verdicts": {}})
    papers = []
    first = page in (None, 1)
    for paper in digest.papers if page is None else digest.papers[(page - 1) * PER_PAGE : page * PER_PAGE]:
        nearest = [{**linked(n, "result"), "formula": _formula(n["statement"]) if formulas else ""} for n in paper["nearest"]]
        people, more = paper["authors"][:MANY], len(paper["authors"]) - MANY
        authors = ", ".join(people) + (f" and {more} more" if more > 0 else "")
        facts = [authors, paper["published"][:10], ", ".join(paper["feeds"]), paper["arxiv"] and f"arXiv {paper['arxiv']}"]
        summary = paper["summary"] if len(paper["summary"]) <= LONG else paper["summary"][:LONG].rpartition(" ")[0] + " …"
        book_link = paper["in_book"] and place(paper["in_book"])
        papers.append({**paper, "nearest": nearest, "people": authors, "facts": " · ".join(filter(None, facts)), "summary": summary, "book_link": book_link})
    return {
        "page": page or 1,
        "pages": 1 if page is None else max(math.ceil(len(digest.papers) / PER_PAGE), 1),
        "first": digest.since is None,
        "empty": digest.empty,
        "headline": digest.headline,
        "day": _at(digest.made_at, "%Y-%m-%d"),
        "since": _at(digest.since, "%Y-%m-%d") if digest.since is not None else "",
        "counts": counts,
        "tried": ", ".join(f"{counts['verdicts'][status]} are {status}" for status in STATUSES if counts["verdicts"].get(status)),
        "papers": papers,
        "verdicts": [linked(v, "trial", "verdict") for v in digest.verdicts if first],
        "added": [linked(p, "slug") for p in digest.book.get("papers", ()) if first],
        "results": [linked(r, "result") for r in digest.book.get("results", ()) if first],
        "findings": digest.book.get("findings", []) if first else [],
        "sources": [{**feed, "how": STATES[feed["state"]]} for feed in digest.feeds],
        "failed": list(digest.failed.values()),
        "said": digest.said,
    }


@lru_cache(4096)
def _formula(statement):
    return Markup(notebook.mathml(statement))


def _at(moment, form):
    return time.strftime(form, time.gmtime(moment))


def write_page(digest, path, address=None):
    """The digest as one self-contained page."""
    from .report import page

    page("digest.html", path, shown=shown(digest, address))


def mail(digest, unsubscribe=None, address=None):
    """(subject, text, HTML) of a digest as a mail."""
    archive = f"{address}/digest/{digest.id}" if address and digest.id else None
    content = {"title": f"lawbook digest: {digest.headline}", "shown": shown(digest, address, formulas=False), "lines": [], "target": None, "action": None}
    return content["title"], *_both(content | {"unsubscribe": unsubscribe, "archive": archive})


def request_mail(link, confirmed):
    """(subject, text, HTML) of the mail by which a subscription is confirmed, or ended where it already is."""
    if confirmed:
        title, action = "You get the lawbook digest", "Unsubscribe"
        lines = ["This address was entered once more for the digest of lawbook. It is subscribed already, so nothing changes. With this link the subscription ends:"]
    else:
        title, action = "Confirm the lawbook digest", "Confirm the subscription"
        lines = [
            "This address was entered for the digest of lawbook: new papers, the results of the book nearest to them, and verdicts that changed.",
            "If it was you, open this link and confirm. If it was not, do nothing: without your word no digest is sent, and the address is forgotten in three days.",
        ]
    return title, *_both({"title": title, "shown": None, "lines": lines, "target": link, "action": action, "unsubscribe": None, "archive": None})


def _both(content):
    return environment(False).get_template("digest_mail.txt").render(**content), environment().get_template("digest_mail.html").render(**content)


def feed(digests, identity, address=None):
    """What the template of the Atom feed wants: the digests (newest first) of the store named `identity` (a UUID)."""
    body = environment().get_template("web/digest_body.html")
    entries = [
        {
            "id": uuid.uuid5(identity, repr(digest.made_at)).urn,
            "title": digest.headline,
            "updated": _at(digest.made_at, "%Y-%m-%dT%H:%M:%SZ"),
            "link": f"{address}/digest/{digest.id}" if address and digest.id else None,
            "content": body.render(shown=shown(digest, address, formulas=False)),
        }
        for digest in digests
    ]
    updated = entries[0]["updated"] if entries else _at(0, "%Y-%m-%dT%H:%M:%SZ")
    return {"id": identity.urn, "updated": updated, "version": metadata.version("lawbook"), "address": address, "entries": entries}


def atom(digests, identity, address=None):
    """An Atom feed as text, one entry a digest."""
    return environment().get_template("web/digest.xml").render(feed=feed(digests, identity, address))


def write_atom(digests, identity, path, address=None):
    """An Atom feed as a file."""
    from .report import page

    page("web/digest.xml", path, feed=feed(digests, identity, address))
