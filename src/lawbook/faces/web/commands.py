"""`lawbook serve`."""

import contextlib
import socket
import threading
import webbrowser
from pathlib import Path

import click

from ...contract import LawbookError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; elsewhere than on loopback, readers need the token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8750, show_default=True, help="0 takes any that is free.")
@click.option("--token", envvar="LAWBOOK_TOKEN", help="What readers must know; made and shown where it is needed and not given.")
@click.option("--database", metavar="URL", help="SQLite in the records' folder by default, PostgreSQL by postgresql://user@host/name.")
@click.option("--folder", "folders", multiple=True, metavar="DIR", help="Models below this folder may be audited; may be repeated.")
@click.option("--base-url", metavar="URL", help="The address that readers use, where it is not the one that listens: in feeds and mails.")
@click.option("--open", "opens", is_flag=True, help="Open the book in the browser.")
def serve(host, port, token, database, folders, base_url, opens):
    """Open the book in a browser: every paper, every result live, every verdict with its evidence."""
    import secrets

    from .settings import Settings

    for folder in folders:
        if not Path(folder).is_dir():
            raise LawbookError(f"folder must be a folder that exists; it was {folder!r}.")
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise LawbookError(f"base-url must be an address that begins with http:// or https://; it was {base_url!r}.")
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    settings = Settings(host, port, token, database, tuple(str(Path(f).resolve()) for f in folders), base_url)
    made = None
    if token is not None and len(token) < 8:
        raise LawbookError("token must have at least 8 characters; secrets that are shorter can be guessed.")
    if token is None and not settings.loopback:
        made = secrets.token_urlsafe(18)
        settings = Settings(host, port, made, database, settings.folders, base_url)
    _serve(settings, listening, made, opens)


def _listen(host, port):
    """A socket that listens; LawbookError where it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(512)
    except OSError as error:
        raise LawbookError(f"The server cannot listen at {host}, port {port}: {error.strerror or error}.") from None
    return listening


def _serve(settings, listening, made, opens):
    import uvicorn

    from .app import create_app

    app = create_app(settings)
    app.state.store.engine  # noqa: B018 - a database that cannot be used is said now
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=3, ws="none"))
    click.echo(f"The book is open at {settings.address}/ (Ctrl-C closes it).")
    if made:
        click.echo(f"Its token is {made}")
    if opens:
        threading.Timer(0.5, webbrowser.open, (settings.address + "/",)).start()
    with contextlib.suppress(KeyboardInterrupt):  # which the server raises once more when it has closed
        server.run(sockets=[listening])
    click.echo("The book is closed.")
