"""What tests of the workbench share: a book filled up with made-up papers, a server in a process of its own, and servers of feeds and of mail."""

import contextlib
import email.policy
import os
import re
import socket
import subprocess
import sys
import threading
import time
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

PAPER = '''"""A made-up paper."""

from lawbook.contract import Paper, positive, real
from lawbook.trials import Identity

paper = Paper(
    __name__,
    title="{title}",
    arxiv="{arxiv}",
    tags={tags},
    source="derived",
    says="{says}",
)


@paper.law(r"y = {number} x^{{\\\\alpha}} + \\\\{letter}", assumes=["The input is positive."])
def {name}(x: positive("tokens", example=1000.0, typical=(1.0, 1e6)), alpha: real(example=0.5) = 0.5) -> positive("nats"):
    """Made-up law number {number} of `x`."""
    return {number} * x**alpha


@paper.trial(Identity(rtol=1e-9), of=[{name}], controls={{"doubled": lambda x, alpha=0.5: 2 * {number} * x**alpha}}, quick=20, full=100)
def powers(draw, {name}):
    """The power of a logarithm."""
    import numpy as np

    x = draw.log_uniform(1, 1e6) if hasattr(draw, "log_uniform") else float(draw.rng.uniform(1, 1e6))
    return {number} * np.exp(0.5 * np.log(x)), {name}(x)
'''
WORDS = [
    "loss",
    "tokens",
    "parameters",
    "attention",
    "gradient",
    "sharpness",
    "diffusion",
    "margin",
    "kernel",
    "entropy",
    "router",
    "cache",
    "quantised",
    "bandit",
    "watermark",
    "spectrum",
    "lottery",
    "curriculum",
    "retrieval",
    "alignment",
]
LETTERS = ("beta", "gamma", "delta", "theta", "kappa", "lambda", "omega")


def fill(folder, count):
    """`count` made-up papers in chapters below `folder`."""
    for i in range(count):
        a, b, c = WORDS[i % 20], WORDS[(i * 7 + 3) % 20], WORDS[(i * 13 + 5) % 20]
        chapter = folder / f"made_{i % 9}"
        chapter.mkdir(parents=True, exist_ok=True)
        says = (
            f"The {a} of a {b} follows a power of the {c}. " * 4
            + f"It is the made-up paper number {i}, and it says what {a}, {b} and {c} have to do with each other in {200 + i} settings."
        )
        text = PAPER.format(
            title=f"On the {a} of {b} and {c}, part {i}",
            arxiv=f"{15 + i % 11:02d}{1 + i % 12:02d}.{10000 + i}",
            tags=[a, b, f"theme {i % 40}"],
            says=says,
            number=i + 1,
            letter=LETTERS[i % 7],
            name=f"{a}_{b}_law",
        )
        (chapter / f"made_paper_{i}.py").write_text(text)


class Server:
    """`lawbook serve` in a process of its own, at an address that is free."""

    def __init__(self, home, *options, chapters=None):
        command = [sys.executable, "-m", "lawbook.faces.cli", "serve", "--port", "0", *map(str, options)]
        self.environment = {
            **os.environ,
            "LAWBOOK_HOME": str(home),
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **({"LAWBOOK_CHAPTERS": str(chapters)} if chapters else {}),
        }
        began = time.perf_counter()
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"(http://\S+?)/ ", line)
        assert found, line + self.process.stdout.read()
        self.address = found[1]
        while True:
            try:
                if httpx.get(self.address + "/login", follow_redirects=False, timeout=30).status_code < 500:
                    break
            except httpx.ConnectError:
                time.sleep(0.02)
        self.seconds = time.perf_counter() - began  # until it answered

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class FeedServer:
    """Answers by path: {path: (status, headers, body) or callable(handler)}; `asked` is every request with its headers."""

    def __init__(self, host="127.0.0.1", port=0, context=None):
        self.answers, self.asked = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, dict(self.headers)))
                answer = outer.answers.get(self.path, (404, {}, b"not here"))
                if callable(answer):
                    with contextlib.suppress(OSError):
                        answer(self)
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                body = body.encode() if isinstance(body, str) else body
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http://{host}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, path, body, status=200, **headers):
        self.answers[path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        return self.url + path


class Mailbox:
    """Keeps what is sent; refuses the recipients in `refused`, and everything after `breaks_after` mails."""

    def __init__(self):
        self.mails, self.refused, self.breaks_after = [], set(), None

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return "550 5.1.1 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.breaks_after is not None and len(self.mails) >= self.breaks_after:
            server.transport.close()
            return "421 closing"
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=email.policy.default)))
        return "250 OK"

    def to(self, address):
        return [m for recipients, m in self.mails if address in recipients]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def smtp_server(mailbox, **options):
    from aiosmtpd.controller import Controller

    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()
