"""Mail by SMTP: settings, messages in plain text and HTML with the headers of a list, one connection for many of them."""

import os
import smtplib
import ssl
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import ip_address

from ..contract import DomainError, LawbookError

SETTINGS = {"host": "LAWBOOK_SMTP_HOST", "port": "LAWBOOK_SMTP_PORT", "tls": "LAWBOOK_SMTP_TLS", "user": "LAWBOOK_SMTP_USER", "sender": "LAWBOOK_MAIL_FROM"}
PASSWORD = "LAWBOOK_SMTP_PASSWORD"
TLS = ("starttls", "tls", "none")
PORTS = {"starttls": 587, "tls": 465, "none": 25}
SECONDS = 20
LONGEST = 254  # of an address


class MailError(LawbookError):
    """Mail that cannot be sent, and why."""


class Refused(MailError):
    """The server refuses one message; others may go."""


@dataclass(frozen=True)
class Relay:
    """The server that mail is handed to. A password leaves this machine encrypted only."""

    host: str
    port: int
    tls: str
    sender: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def from_settings(cls, **given):
        """The Relay of `given` (host, port, tls, user, sender) and, for what is None or missing, of the environment; the password comes from the environment only.

        None where no host is named at all.
        """
        values = {name: given.get(name) or os.environ.get(variable) for name, variable in SETTINGS.items()}
        host = values["host"]
        if not host:
            return None
        try:
            port = int(values["port"]) if values["port"] else None
        except ValueError:
            port = 0
        if port is not None and not 0 < port < 2**16:
            raise DomainError(f"The port of the mail server ({SETTINGS['port']}) must be a whole number from 1 to 65535; it was {values['port']!r}.")
        tls = values["tls"] or {465: "tls"}.get(port or 0) or ("none" if _is_here(host) else "starttls")
        if tls not in TLS:
            raise DomainError(f"The encryption of mail ({SETTINGS['tls']}) must be {', '.join(TLS[:-1])} or {TLS[-1]}; it was {tls!r}.")
        password = os.environ.get(PASSWORD)
        if tls == "none" and not _is_here(host) and values["user"]:
            raise DomainError(f"A password is not sent to {host} without encryption: {SETTINGS['tls']} must be starttls or tls.")
        if values["user"] and not password:
            raise DomainError(f"The mail user {values['user']!r} needs a password in the environment variable {PASSWORD}.")
        if not values["sender"]:
            raise DomainError(f"Mail needs a sender: give an address in {SETTINGS['sender']}.")
        return cls(host, port or PORTS[tls], tls, read_address(values["sender"]), values["user"], password)


def _is_here(host):
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_address(text):
    """A mail address as it is written in a header; DomainError where the text is none."""
    text = text.strip()
    try:
        address = Address(addr_spec=text)
        domain = address.domain.encode("idna").decode()
        fine = address.username.isascii() and address.username and domain and len(text) <= LONGEST and len(address.username) <= 64 and not set(text) & set(' \t\r\n"<>,;:()[]\\')
    except (ValueError, IndexError, UnicodeError, MessageError):
        fine = False
    if not fine:
        raise DomainError(f"A mail address looks like name@example.org; it was {text[:80]!r}.")
    return f"{address.username}@{domain.lower()}"


def message(relay, recipient, subject, text, html, *, unsubscribe=None, name="lawbook digest"):
    """A mail in plain text and HTML. With `unsubscribe` (an address) it carries the headers by which a mail program ends the subscription with one click."""
    mail = EmailMessage()
    domain = relay.sender.rpartition("@")[2]
    mail["From"] = Address(display_name="lawbook", addr_spec=relay.sender)
    mail["To"] = Address(addr_spec=recipient)
    mail["Subject"] = " ".join(subject.split())
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain=domain)
    mail["Auto-Submitted"] = "auto-generated"
    if unsubscribe:
        mail["List-Id"] = f"{name} <digest.lawbook.{domain}>"
        mail["List-Unsubscribe"] = f"<{unsubscribe}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(text)
    mail.add_alternative(html, subtype="html")
    return mail


class Post:
    """One connection to the relay for as many messages as there are: `with Post(relay) as post: post.send(mail)`."""

    def __init__(self, relay):
        self.relay = relay
        self._server: smtplib.SMTP | None = None

    def __enter__(self):
        self._connect()
        return self

    def __exit__(self, *_):
        if self._server is not None:
            try:
                self._server.quit()
            except (smtplib.SMTPException, OSError):
                self._server.close()

    def send(self, mail):
        """Hand over one message. Refused where the server does not take this one, MailError where it takes none."""
        try:
            self._send(mail)
        except smtplib.SMTPServerDisconnected:  # servers end connections after a while: once more on a new one
            self._connect()
            try:
                self._send(mail)
            except smtplib.SMTPServerDisconnected:
                raise MailError(f"The mail server {self.relay.host}:{self.relay.port} ends the connection.") from None

    def _send(self, mail):
        assert self._server is not None
        try:
            self._server.send_message(mail)
        except smtplib.SMTPServerDisconnected:
            raise
        except smtplib.SMTPRecipientsRefused as error:
            code, reason = next(iter(error.recipients.values()))
            raise Refused(f"The mail server refuses {mail['To']}: {code} {_words(reason)}.") from None
        except smtplib.SMTPSenderRefused as error:
            raise MailError(f"The mail server refuses the sender {self.relay.sender}: {error.smtp_code} {_words(error.smtp_error)}.") from None
        except smtplib.SMTPResponseException as error:
            raise Refused(f"The mail server refuses the mail to {mail['To']}: {error.smtp_code} {_words(error.smtp_error)}.") from None
        except (smtplib.SMTPException, OSError) as error:
            raise MailError(f"The mail server {self.relay.host}:{self.relay.port} fails: {_words(error)}.") from None

    def _connect(self):
        relay = self.relay
        where = f"The mail server {relay.host}:{relay.port}"
        context = ssl.create_default_context()
        try:
            if relay.tls == "tls":
                self._server = smtplib.SMTP_SSL(relay.host, relay.port, timeout=SECONDS, context=context)
            else:
                self._server = smtplib.SMTP(relay.host, relay.port, timeout=SECONDS)
            if relay.tls == "starttls":
                self._server.starttls(context=context)
            if relay.user:
                self._server.login(relay.user, relay.password or "")
        except smtplib.SMTPAuthenticationError as error:
            raise MailError(f"{where} refuses the user {relay.user!r}: {error.smtp_code} {_words(error.smtp_error)}.") from None
        except smtplib.SMTPNotSupportedError:
            raise MailError(f"{where} does not offer what {'a login' if relay.tls != 'starttls' else 'starttls'} needs; {SETTINGS['tls']} is {relay.tls}.") from None
        except ssl.SSLError as error:
            raise MailError(f"{where} cannot be spoken to in encryption: {_words(error.reason or error)}.") from None
        except (smtplib.SMTPException, OSError) as error:
            raise MailError(f"{where} cannot be reached: {_words(getattr(error, 'strerror', None) or error)}.") from None


def _words(reason):
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:200].rstrip(".")
