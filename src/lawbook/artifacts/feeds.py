"""Feeds of papers, by address or from a file: read, with copies kept where they were fetched, and every paper once."""

import asyncio
from dataclasses import asdict, replace
from pathlib import Path

from .feed_fetch import Copy, fetch_all, when
from .feed_formats import Entry, Feed, FeedError, Limits, are, is_address, many, parse, shown

__all__ = ["Copy", "Entry", "Feed", "FeedError", "Limits", "merged", "read_feeds", "shown", "when"]


def read_feeds(sources, *, copies=None, fresh=False, limits=None, progress=None):
    """(the feeds that could be read, {source: sentence} for those that could not); a feed that is down does not stop the others.

    `sources` are http(s) addresses or paths. `copies` is a mapping from address to Copy: a young copy is not asked for again (unless `fresh`), an older one only if it has
    changed, and where a feed is down its copy is read, which `Feed.said` tells. `progress(done, total, source)` is called as feeds arrive.
    """
    limits = limits or Limits()
    copies = {} if copies is None else copies
    sources = list(dict.fromkeys(map(str, sources)))
    fetched = asyncio.run(fetch_all([s for s in sources if is_address(s)], copies, fresh, limits))
    feeds, failed = [], {}
    for done, source in enumerate(sources, 1):
        try:
            if source in fetched:
                feeds.append(_of_address(source, fetched[source], copies, limits))
            else:
                feeds.append(parse(_bytes_of(source, limits), source, limits=limits))
        except FeedError as error:
            failed[shown(source) if is_address(source) else source] = str(error)
        if progress:
            progress(done, len(sources), shown(source))
    return feeds, failed


def _of_address(source, answer, copies, limits):
    if isinstance(answer, FeedError):
        kept = copies.get(source)
        if kept is None:
            raise answer
        state, copy, said = "stale", kept, [f"{str(answer)[:-1]}; its copy of {when(kept.fetched_at)} is read instead"]
    else:
        state, copy, said = answer
    try:
        feed = parse(copy.body, source, content_type=copy.content_type, limits=limits)
    except FeedError as error:
        kept = copies.get(source)
        if state != "read" or kept is None:
            raise
        state, copy, said = "stale", kept, [*said, f"{str(error)[:-1]}; its copy of {when(kept.fetched_at)} is read instead"]
        feed = parse(copy.body, source, content_type=copy.content_type, limits=limits)
    if state in ("read", "unchanged"):
        copies[source] = copy
    feed.state, feed.said = state, [*said, *feed.said]
    return feed


def _bytes_of(source, limits):
    path = Path(source)
    if path.is_dir():
        raise FeedError(f"The feed {shown(source)} is a folder: name one file in it.")
    if not path.is_file():
        raise FeedError(f"There is no file {shown(source)}; an address starts with http:// or https://.")
    try:
        with path.open("rb") as file:
            body = file.read(limits.size + 1)
    except OSError as error:
        raise FeedError(f"The feed {shown(source)} cannot be read: {error.strerror}.") from None
    if len(body) > limits.size:
        raise FeedError(f"The feed {shown(source)} is larger than {limits.size / 2**20:g} MiB.")
    return body


def merged(feeds):
    """(entries, sentences): every paper once, the first of its kind filled up with what its duplicates say."""
    kept: list[Entry] = []
    known: dict[str, int] = {}
    doubles = 0
    for entry in (entry for feed in feeds for entry in feed.entries):
        at = next((known[key] for key in entry.keys if key in known), None)
        if at is None:
            at = len(kept)
            kept.append(entry)
        else:
            doubles += 1
            first = kept[at]
            missing = {name: value for name, value in asdict(entry).items() if not getattr(first, name) and value}
            kept[at] = replace(first, **missing | {"feeds": tuple(dict.fromkeys(first.feeds + entry.feeds))})
        for key in entry.keys:
            known.setdefault(key, at)
    return kept, [f"{many(doubles, 'entry')} that {are(doubles)} in the feeds more than once {are(doubles)} shown once"] if doubles else []
