"""Search the book by words, tag, kind, chapter and argument name, without importing the papers: an index follows their files."""

import json
import math
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

from ..contract import UnknownName, catalogue
from .places import home

# how much a word counts by where it stands
WEIGHTS = {"title": 4.0, "slug": 4.0, "tags": 4.0, "names": 3.0, "arguments": 3.0, "summaries": 1.5, "says": 1.5, "statements": 0.5}
COMMON = {"a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "is", "of", "on", "or", "that", "the", "to", "with"}


def find(words="", *, tag=None, kind=None, chapter=None, argument=None):
    """Papers as records, the most relevant first; without words, all of them by chapter.

    Each: {slug, title, chapter, arxiv, year, source, kinds, tags, says, results: [{name, kind, arguments, statement, summary}], trials: [{name, form, results, control}]}.
    """
    entries = index()
    _known("tag", tag, {t for e in entries for t in e["tags"]})
    _known("kind", kind, {k for e in entries for k in e["kinds"]})
    _known("chapter", chapter, {e["chapter"] for e in entries})
    _known("argument", argument, {a for e in entries for r in e["results"] for a in r["arguments"]})
    kept = [
        e
        for e in entries
        if (tag is None or tag in e["tags"])
        and (kind is None or kind in e["kinds"])
        and (chapter is None or e["chapter"] == chapter)
        and (argument is None or any(argument in r["arguments"] for r in e["results"]))
    ]
    return rank(kept, words) if words.strip() else kept


def _known(what, name, known):
    if name is not None and name not in known:
        raise UnknownName(what, name, sorted(known))


def rank(entries, words):
    """Entries that contain at least one of the words, by weighted term frequency and rarity (BM25 without length normalisation), whole matches of all words first."""
    wanted = terms(words)
    documents = [weighted_terms(e) for e in entries]
    frequency = Counter(word for document in documents for word in document)
    scored = []
    for entry, document in zip(entries, documents, strict=True):
        score, matched = 0.0, 0
        for word in wanted:
            hits = {term: weight for term, weight in document.items() if term == word or (len(word) > 2 and term.startswith(word))}
            if hits:
                matched += 1
                weight = max(w * (1.0 if term == word else 0.6) for term, w in hits.items())
                score += math.log(1 + len(entries) / max(frequency[t] for t in hits)) * weight / (weight + 3)
        if matched:
            scored.append((matched / len(wanted) + score, entry))
    return [entry for _, entry in sorted(scored, key=lambda pair: -pair[0])]


def terms(text):
    """The words of a text, lower case, plurals and joined names taken apart."""
    words = re.findall(r"[a-z0-9]+", text.lower().replace("_", " "))
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words if word not in COMMON]


def weighted_terms(entry):
    """What an entry of the index speaks of: a Counter of its words, each weighted by the places that it stands in."""
    texts = {
        "title": entry["title"],
        "slug": entry["slug"],
        "tags": " ".join(entry["tags"]),
        "says": entry["says"],
        "names": " ".join(r["name"] for r in entry["results"]),
        "arguments": " ".join(a for r in entry["results"] for a in r["arguments"]),
        "summaries": " ".join(r["summary"] for r in entry["results"]),
        "statements": " ".join(r["statement"] for r in entry["results"]),
    }
    weighted: Counter = Counter()
    for place, text in texts.items():
        for word, times in Counter(terms(text)).items():
            weighted[word] += WEIGHTS[place] * (1 + math.log(times))
    return weighted


def describe(paper):
    """What `find` knows of a paper."""
    return {
        "slug": paper.slug,
        "title": paper.title,
        "chapter": paper.chapter,
        "arxiv": paper.arxiv,
        "year": paper.year,
        "source": paper.source,
        "kinds": paper.kinds,
        "tags": paper.tags,
        "says": paper.says,
        "results": [{"name": r.name, "kind": r.kind, "arguments": list(r.arguments), "statement": r.statement, "summary": r.summary} for r in paper.results.values()],
        "trials": [{"name": t.name, "form": t.form.name, "results": list(t.results), "control": bool(t.controls)} for t in paper.trials.values()],
        "findings": [f.sentence for f in paper.findings.values()],
    }


def index():
    """One entry a paper. Entries are kept on disk with their file's stamp, so only files that changed are imported; where nothing can be kept, all are."""
    files = catalogue.files()
    contract = Path(catalogue.__file__).parent
    stamp_of_code = max(f.stat().st_mtime_ns for f in (*contract.glob("*.py"), Path(__file__)))
    place = home() / "index.json"
    try:
        kept = json.loads(place.read_text())
        kept = kept["entries"] if kept["code"] == stamp_of_code else {}
    except (OSError, ValueError, KeyError, TypeError):
        kept = {}
    entries, changed = {}, False
    for slug, (_, file) in files.items():
        stat = file.stat()
        stamp = [str(file), stat.st_mtime_ns, stat.st_size]
        if slug in kept and kept[slug]["stamp"] == stamp:
            entries[slug] = kept[slug]
        else:
            entries[slug], changed = {"stamp": stamp, "entry": describe(catalogue.paper(slug))}, True
    if changed or len(entries) != len(kept):
        _write(place, json.dumps({"code": stamp_of_code, "entries": entries}))
    return [kept["entry"] for kept in entries.values()]


def _write(place, text):
    """Replace the file at once, so that no reader sees half of it; a place that cannot be written is left alone."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "w") as out:
            out.write(text)
        os.replace(temporary, place)
    except OSError:
        pass
