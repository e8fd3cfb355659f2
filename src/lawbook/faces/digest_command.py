"""`lawbook digest`: what is new, as a table, a page, a feed and a mail."""

import contextlib
import sys
from pathlib import Path

import click

from ..contract import LawbookError
from ..contract.encoding import dumps
from .cli import bar, print_table, say


@click.command()
@click.option("--feed", "sources", multiple=True, metavar="URL|FILE", help="Atom, RSS, JSON Feed or an answer of arXiv's API; may be repeated.")
@click.option("--feeds", "lists", multiple=True, metavar="FILE", help="A file with one address or path a line; # begins a remark.")
@click.option("--since", metavar="DATE|SPAN", help="Leave out papers that are older: 2026-11-01, 12h, 7d or 2w.")
@click.option("--fresh", is_flag=True, help="Ask every server again, even where the copy kept here is young.")
@click.option("--out", type=click.Path(dir_okay=False), help="Write one self-contained HTML page.")
@click.option("--atom", "atom_file", type=click.Path(dir_okay=False), help="Write an Atom feed of this and earlier digests.")
@click.option("--mail", "recipients", multiple=True, metavar="ADDRESS", help="Mail this digest to an address of your own; may be repeated.")
@click.option("--send", is_flag=True, help="Mail it to all subscribers; without anything new, the last digest to those who have not had it.")
@click.option("--preview", is_flag=True, help="Keep nothing: the next digest will have all of this again.")
@click.option("--base-url", envvar="LAWBOOK_URL", metavar="URL", help="Address of your workbench, for links; --send needs it.")
@click.option("--smtp-host", help="Mail server; or LAWBOOK_SMTP_HOST. The password comes from LAWBOOK_SMTP_PASSWORD only.")
@click.option("--smtp-port", help="Or LAWBOOK_SMTP_PORT; 587, or 465 with tls, by default.")
@click.option("--smtp-tls", help="starttls, tls or none; or LAWBOOK_SMTP_TLS. starttls by default; none on this machine.")
@click.option("--smtp-user", help="Or LAWBOOK_SMTP_USER.")
@click.option("--mail-from", help="Sender of the mails; or LAWBOOK_MAIL_FROM.")
@click.option("--database", metavar="URL", help="Database of the workbench: SQLite in the records' folder by default, or PostgreSQL.")
@click.option("--records", metavar="URL", help="Database of the verdicts; that of --database, or SQLite in the records' folder, by default.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def digest(sources, lists, since, fresh, out, atom_file, recipients, send, preview, base_url, smtp_host, smtp_port, smtp_tls, smtp_user, mail_from, database, records, form):
    """Gather what is new: papers from feeds, with the book's nearest results; what the book has gained; verdicts that changed.

    Compares with the last digest that was kept. Without a feed, only the book is looked at. Ends with status 1 where a feed could not be read or a mail not be sent.
    """
    from ..jobs import digest as gathering
    from ..jobs import mail, subscribers
    from ..jobs.records import Records
    from ..jobs.store import Store
    from . import digest_views

    if preview and send:
        raise LawbookError("A digest that is only looked at (--preview) is not kept, so it cannot be sent to subscribers (--send).")
    moment = gathering.read_since(since) if since else None
    address = _address(base_url)
    relay = mail.Relay.from_settings(host=smtp_host, port=smtp_port, tls=smtp_tls, user=smtp_user, sender=mail_from) if send or recipients else None
    if (send or recipients) and relay is None:
        raise LawbookError("Mail needs a server: give --smtp-host, or set LAWBOOK_SMTP_HOST.")
    if send and address is None:
        raise LawbookError("Subscribers need a link by which they can leave: give --base-url, the address of your workbench.")
    recipients = [mail.read_address(recipient) for recipient in recipients]
    for path in filter(None, (out, atom_file)):
        if not Path(path).absolute().parent.is_dir():
            raise LawbookError(f"The folder of {path} does not exist.")
    if relay:
        with mail.Post(relay):  # a server that cannot be reached is found out before anything is kept
            pass
    sources = [*sources, *(line for path in lists for line in _read_list(path))]
    store = Store(database)
    with contextlib.closing(store), bar("reading feeds", len(sources) or None) as progress:
        made = gathering.gather(sources, store=store, since=moment, fresh=fresh, records=Records(records) if records else store.records(), progress=progress)
        new = made.since is None or not made.empty
        if out:
            digest_views.write_page(made, out, address)
            say(f"page written to {out}")
        if atom_file:
            digest_views.write_atom([*([made] if new else []), *gathering.latest(store)], gathering.identity(store), atom_file, address)
            say(f"feed written to {atom_file}")
        if new and not preview:
            gathering.keep_digest(made, store)
        _print(made, form)
        failed = bool(made.failed)
        if recipients and made.empty:
            say("nothing is new, so no mail was sent")
        elif recipients:
            failed |= _mail(made, recipients, relay, address)
        if send:
            current = made if not made.empty else next((kept for kept in gathering.latest(store) if not kept.empty), None)
            failed |= current is not None and _send(subscribers.send(store, current, relay, address, lambda d, link: digest_views.mail(d, link, address), progress))
    if failed:
        sys.exit(1)


def _address(text):
    if text is None:
        return None
    if not text.startswith(("http://", "https://")) or len(text.split()) != 1:
        raise LawbookError(f"The base URL must start with http:// or https://; it was {text!r}.")
    return text.rstrip("/")


def _read_list(path):
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LawbookError(f"The list of feeds {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return [text for line in lines if (text := line.strip()) and not text.startswith("#")]


def _print(made, form):
    for sentence in [*made.said, *(s[:-1] for s in made.failed.values())]:
        say(sentence)
    if form == "json":
        click.echo(dumps(made.to_dict()))
        return
    click.echo(f"{made.headline}." if made.since is not None or not made.empty else "The first digest: the next one tells what has changed.")
    if made.verdicts:
        columns = {"trial": "trial", "was": "before", "is now": "now", "why": "reason"}
        print_table({head: [v[name] or "not tried" for v in made.verdicts] for head, name in columns.items()})
    if made.papers:
        print_table(
            {
                "new paper": [p["title"] for p in made.papers],
                "link": [p["link"] for p in made.papers],
                "tags": [", ".join(p["tags"]) for p in made.papers],
                "near in the book": [", ".join(n["result"] for n in p["nearest"]) for p in made.papers],
            }
        )
    for title, lines in (
        ("Added to the book", [f"{p['slug']}: {p['title']}" for p in made.book["papers"]]),
        ("New results", [r["result"] for r in made.book["results"]]),
        ("New findings", [f"{f['slug']}: {f['sentence']}" for f in made.book["findings"]]),
    ):
        if lines:
            click.echo(f"\n{title}")
            for line in lines:
                click.echo(f"  {line}")


def _mail(made, recipients, relay, address):
    """Mail to one's own addresses; whether one of them failed."""
    from ..jobs import mail
    from . import digest_views

    failed = False
    with mail.Post(relay) as post:
        for recipient in recipients:
            try:
                post.send(mail.message(relay, recipient, *digest_views.mail(made, address=address)))
                say(f"mailed to {recipient}")
            except mail.Refused as error:
                failed = True
                say(str(error))
    return failed


def _send(done):
    """Say what became of the mails to subscribers; whether one of them failed."""
    say(f"{done.sent} mail{'' if done.sent == 1 else 's'} sent" + (f", {done.before} had it before" if done.before else ""))
    for sentence in done.failed.values():
        say(sentence)
    if done.broken:
        say(f"{done.broken} The mails that are left go out with `lawbook digest --send`.")
    return bool(done.failed or done.broken)
