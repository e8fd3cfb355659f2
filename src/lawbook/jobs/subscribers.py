"""Who gets the digest by mail: asked for, confirmed by a link in a mail, ended by one click. Links are signed; who has left is forgotten."""

import os
import secrets
import time
from dataclasses import dataclass, field

from ..contract import LawbookError
from . import mail
from .digest import named
from .store import alone, declared, keep

SECRET = "LAWBOOK_SECRET"  # signs the links; without it the store keeps a key of its own
CONFIRM, UNSUBSCRIBE = "lawbook confirm", "lawbook unsubscribe"
PATIENCE = 3 * 86400  # seconds for which a link of confirmation is good
PAUSE = 600  # seconds between two mails that one address can be made to get
MOST_ASKED = 60  # mails of confirmation in an hour, all told


class TooMany(LawbookError):
    """More subscriptions are asked for than one server should mail about."""


class BadLink(LawbookError):
    """A link that was not made here, was changed, or is too old."""


@declared
def subscribers(sa, metadata):
    times = [sa.Column(name, sa.Float) for name in ("asked_at", "confirmed_at")]
    return sa.Table("subscribers", metadata, sa.Column("id", sa.String, primary_key=True), sa.Column("email", sa.String, unique=True), *times)


@declared
def deliveries(sa, metadata):
    key = [sa.Column("digest", sa.Integer, primary_key=True), sa.Column("subscriber", sa.String, primary_key=True)]
    return sa.Table("deliveries", metadata, *key, sa.Column("sent_at", sa.Float), sa.Column("failure", sa.Text))


@dataclass
class Sent:
    """What became of a digest's mails."""

    sent: int = 0
    before: int = 0  # had it already
    failed: dict[str, str] = field(default_factory=dict)
    broken: str = ""  # why the rest was not tried


def link(store, address, subscriber, purpose):
    """The signed link by which a subscriber (id) confirms or leaves; `address` is that of the server, without a slash at its end."""
    page = "confirm" if purpose == CONFIRM else "unsubscribe"
    return f"{address}/digest/{page}/{_signer(store, purpose).dumps(subscriber)}"


def _signer(store, purpose):
    from itsdangerous import URLSafeTimedSerializer

    key = os.environ.get(SECRET) or named(store, "secret", lambda: secrets.token_urlsafe(32))
    return URLSafeTimedSerializer(key, salt=purpose)


def read_token(store, token, purpose):
    """The subscriber (id) of a signed token. BadLink where it is not ours, or an old one of a confirmation."""
    from itsdangerous import BadData, SignatureExpired

    try:
        subscriber = _signer(store, purpose).loads(token, max_age=PATIENCE if purpose == CONFIRM else None)
    except SignatureExpired:
        raise BadLink("This link is too old: ask for the digest once more.") from None
    except BadData:
        raise BadLink("This link is not whole, or was not made by this server: open it as it stands in the mail.") from None
    if not isinstance(subscriber, str):
        raise BadLink("This link was not made by this server.")
    return subscriber


def ask(store, relay, email, address, write):
    """Ask for the digest: the address gets a mail with a link to confirm, or to leave where it is subscribed. Nothing tells the one who asks which of the two.

    `write(link, confirmed)` makes (subject, text, html). DomainError where `email` is no address, TooMany, MailError.
    """
    import sqlalchemy as sa

    table, email, now = subscribers(), mail.read_address(email), time.time()
    with store.begin() as connection:
        alone(connection, "subscribers")  # one who asks twice at once gets one mail
        connection.execute(sa.delete(table).where(table.c.confirmed_at.is_(None), table.c.asked_at < now - PATIENCE))
        row = connection.execute(sa.select(table).where(table.c.email == email)).mappings().first()
        if row is not None and row["asked_at"] > now - PAUSE:
            return
        lately = connection.execute(sa.select(sa.func.count()).where(table.c.asked_at > now - 3600)).scalar() or 0
        if lately >= MOST_ASKED:
            raise TooMany("Too many subscriptions have been asked for in the last hour: try again later.")
        if row is None:
            subscriber = secrets.token_urlsafe(12)
            keep(connection, table, {"id": subscriber}, email=email, asked_at=now)
        else:
            subscriber = row["id"]
            keep(connection, table, {"id": subscriber}, email=email, asked_at=now)
    confirmed = row is not None and row["confirmed_at"] is not None
    target = link(store, address, subscriber, UNSUBSCRIBE if confirmed else CONFIRM)
    try:
        with mail.Post(relay) as post:
            post.send(mail.message(relay, email, *write(target, confirmed)))
    except mail.MailError:
        with store.begin() as connection:  # no mail went out, so one may ask again at once
            connection.execute(sa.update(table).where(table.c.id == subscriber).values(asked_at=now - PAUSE))
        raise


def confirm(store, token):
    """Confirm a subscription and return its address; doing it twice changes nothing. BadLink where there is nothing to confirm."""
    import sqlalchemy as sa

    table, subscriber = subscribers(), read_token(store, token, CONFIRM)
    with store.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == subscriber, table.c.confirmed_at.is_(None)).values(confirmed_at=time.time()))
        email = connection.execute(sa.select(table.c.email).where(table.c.id == subscriber)).scalar()
    if email is None:
        raise BadLink("This link is too old: ask for the digest once more.")
    return email


def unsubscribe(store, token):
    """End a subscription and forget its address; doing it twice changes nothing. BadLink where the token is not ours."""
    import sqlalchemy as sa

    subscriber = read_token(store, token, UNSUBSCRIBE)
    with store.begin() as connection:
        connection.execute(sa.delete(deliveries()).where(deliveries().c.subscriber == subscriber))
        connection.execute(sa.delete(subscribers()).where(subscribers().c.id == subscriber))


def confirmed(store):
    """{id: address} of everyone who gets the digest, in the order in which they confirmed."""
    import sqlalchemy as sa

    table = subscribers()
    with store.read() as connection:
        return dict(connection.execute(sa.select(table.c.id, table.c.email).where(table.c.confirmed_at.is_not(None)).order_by(table.c.confirmed_at)).all())


def _stays(store, subscriber):
    """Whether a subscriber is still there: a round takes a while, and who leaves meanwhile gets no mail."""
    import sqlalchemy as sa

    with store.read() as connection:
        return connection.execute(sa.select(subscribers().c.id).where(subscribers().c.id == subscriber)).first() is not None


def send(store, digest, relay, address, write, progress=None):
    """Mail a kept digest to every subscriber who has not had it. What was sent is kept one by one, so that an interrupted round goes on without sending twice.

    `write(digest, unsubscribe)` makes (subject, text, html). One address that is refused does not stop the others; a server that is down does, which `broken` tells.
    """
    import sqlalchemy as sa

    table, everyone, done = deliveries(), confirmed(store), Sent()
    with store.read() as connection:
        had = set(connection.execute(sa.select(table.c.subscriber).where(table.c.digest == digest.id, table.c.sent_at.is_not(None))).scalars())
    todo = {subscriber: email for subscriber, email in everyone.items() if subscriber not in had}
    done.before = len(everyone) - len(todo)
    if not todo:
        return done
    try:
        with mail.Post(relay) as post:
            for subscriber, email in todo.items():
                if not _stays(store, subscriber):
                    continue
                target = link(store, address, subscriber, UNSUBSCRIBE)
                try:
                    post.send(mail.message(relay, email, *write(digest, target), unsubscribe=target))
                except mail.Refused as error:
                    done.failed[email] = str(error)
                    outcome = {"sent_at": None, "failure": str(error)}
                else:
                    done.sent += 1
                    outcome = {"sent_at": time.time(), "failure": None}
                with store.begin() as connection:
                    keep(connection, table, {"digest": digest.id, "subscriber": subscriber}, **outcome)
                if progress:
                    progress(done.sent + len(done.failed), len(todo), "")
    except mail.MailError as error:
        done.broken = str(error)
    return done
