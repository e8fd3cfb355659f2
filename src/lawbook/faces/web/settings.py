"""What a server of the workbench is told when it starts."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

from ...jobs.queue import Limits

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    host: str = "127.0.0.1"
    port: int = 8750
    token: str | None = None  # asked of everyone where the server is bound elsewhere than to loopback
    database: str | None = None  # URL; SQLite in the records' folder without one
    folders: tuple[str, ...] = ()  # local models and tables may be read only below these
    base_url: str | None = None  # the address in feeds and mails, where it is not the one that listens
    live_workers: int = 2  # processes that answer the forms at once
    live_seconds: float = 5.0  # after which a form's answer is left to a job
    live_memory: int = 4 * 2**30
    limits: Limits = field(default_factory=Limits)  # of the queue of jobs

    @property
    def loopback(self):
        return self.host in LOOPBACK or _is_loopback(self.host)

    @property
    def upload_limit(self):
        """The most bytes that one request may carry: tables, and the fields around them."""
        return self.limits.upload + 2**20

    @property
    def address(self):
        """Where this server is reached, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.base_url or f"http://{host}:{self.port}").rstrip("/")

    def names_host(self, host):
        """Whether a request may call this server by the name `host`: an address, localhost, or a name that was given at start. Other names are what rebinding uses."""
        name = urlsplit(f"//{host}").hostname or ""
        given = {"localhost", self.host, urlsplit(self.address).hostname}
        return name in given or (_is_loopback(name) if self.loopback else _is_address(name))


def _is_address(name):
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name):
    return _is_address(name) and ip_address(name).is_loopback
