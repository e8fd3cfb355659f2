"""The digest in a real browser: opened, read, subscribed to by the link of a mail, left with one click; looked at on a desktop, on a phone and in the dark."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from browsing import DESKTOP, PHONE, needs_chromium, opened, picture
from lawbook.artifacts.feed_formats import parse
from workbench import FeedServer, Mailbox, Server, smtp_server

pytestmark = needs_chromium
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> in a title"
PAPERS = [
    {"id": "rope", "url": "https://example.org/rope", "title": "How large must the RoPE base be?", "authors": [{"name": "Ada L."}, {"name": "Emmy N."}]},
    {"id": "hostile", "url": "javascript:document.title='taken'", "title": HOSTILE, "content_text": HOSTILE, "authors": [{"name": HOSTILE}], "tags": [HOSTILE]},
    {"id": "long", "url": "https://example.org/" + "l" * 300, "title": "Supercalifragilistic" * 12, "content_text": "https://example.org/" + "x" * 400},
]
PAPERS[0]["content_text"] = (
    "Rotary position embeddings turn pairs of dimensions; we bound the RoPE base from below for a context length, where the slowest phase must not wrap, "
    "and from above by floating point precision, for long context transformers."
)
MORE = [{"id": str(i), "url": f"https://example.org/{i}", "title": f"Paper number {i} on learning rates", "content_text": "A schedule of learning rates."} for i in range(40)]


def gather(home, *options):
    """`lawbook digest` in a process of its own."""
    command = [sys.executable, "-m", "lawbook.faces.cli", "digest", *map(str, options)]
    done = subprocess.run(command, env={**os.environ, "LAWBOOK_HOME": str(home)}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def mailbox():
    """A mail server on this machine, named in the environment of the workbench."""
    box = Mailbox()
    with smtp_server(box) as controller, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAWBOOK_SMTP_HOST", "127.0.0.1")
        patch.setenv("LAWBOOK_SMTP_PORT", str(controller.port))
        patch.setenv("LAWBOOK_MAIL_FROM", "digest@lawbook.example")
        yield box


@pytest.fixture(scope="module")
def server(tmp_path_factory, mailbox):
    """A workbench with two digests: of a feed's first papers, and of many more after a verdict has come in."""
    home, feeds = tmp_path_factory.mktemp("home"), FeedServer()
    url = feeds.serve("/feed.json", json.dumps({"title": HOSTILE, "items": PAPERS}))
    gather(home, "--feed", url)
    subprocess.run([sys.executable, "-m", "lawbook.faces.cli", "verify", "rope-base-region"], env={**os.environ, "LAWBOOK_HOME": str(home)}, capture_output=True, check=True)
    feeds.serve("/feed.json", json.dumps({"title": "Notes", "items": PAPERS + MORE}))
    gather(home, "--feed", url, "--fresh")
    feeds.server.shutdown()
    feeds.server.server_close()
    with Server(home) as made:
        made.home = home
        yield made


def reading(browser, server, address="/digest", **options):
    """A page of the digest; that a wrong address is answered by 400 is no complaint."""
    return opened(browser, server, address, forgiven="status of 400", **options)


def link_in(mail, page):
    """The address of the workbench's page (confirm, unsubscribe) that a mail in plain text names."""
    return re.search(rf"http://\S+/digest/{page}/\S+", mail.get_body(("plain",)).get_content())[0]


def test_a_digest_is_found_read_and_followed_into_the_book(browser, server):
    from playwright.sync_api import expect

    with reading(browser, server, "/") as page:
        page.get_by_role("navigation", name="Parts of the workbench").get_by_role("link", name="Digest").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"Digest of \d{4}-\d\d-\d\d"))
        expect(page.locator(".lead")).to_have_text(re.compile(r"^40 new papers, .*3 changed verdicts, since \d{4}-\d\d-\d\d\.$"))
        page.get_by_role("link", name="rope-base-region.bisection").click()
        expect(page).to_have_url(re.compile("/verdict/rope-base-region/bisection"))
        page.go_back()
        expect(page.locator("article", has_text="Paper number")).to_have_count(25)
        page.get_by_role("link", name="More papers").click()
        expect(page.locator("article", has_text="Paper number")).to_have_count(15)
        page.get_by_role("link", name="All digests").click()
        expect(page.locator(".digest-list li")).to_have_count(2)
        page.locator(".digest-list a").last.click()
        expect(page).to_have_url(re.compile("/digest/1$"))
        expect(page.get_by_text("This is the first digest")).to_be_visible()
        near = page.locator("article", has_text="How large must the RoPE base be?")
        assert near.locator("math").count() >= 1
        near.get_by_role("link", name=re.compile(r"^rope-base-region\.")).first.click()
        expect(page).to_have_url(re.compile("/paper/rope-base-region/"))


def test_markup_in_a_feed_is_shown_as_text(browser, server):
    from playwright.sync_api import expect

    with reading(browser, server, "/digest/1") as page:
        expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
        shown = page.locator(".digest")
        assert shown.locator("script, img, a[href^='javascript']").count() == 0 and "taken" not in page.title()
        article = shown.locator("article", has=page.get_by_role("heading", name=HOSTILE))
        assert article.inner_text().count(HOSTILE) == 4, "the title, the author, the feed and the summary"


def test_a_subscription_is_begun_confirmed_and_ended(browser, server, mailbox):
    from playwright.sync_api import expect

    with reading(browser, server) as page:
        page.get_by_label("Your mail address").fill("ada@example.org")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Look into your mail")
        (asked,) = mailbox.to("ada@example.org")
        page.goto(link_in(asked, "confirm"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Confirm the subscription")
        picture(page, "digest-confirm", full_page=True)
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are subscribed")
        assert "1 mail sent" in gather(server.home, "--send", "--base-url", server.address)
        issue = mailbox.to("ada@example.org")[-1]
        assert issue["Subject"].strip().startswith("lawbook digest: 40 new papers, ")
        page.goto(link_in(issue, "unsubscribe"))
        page.get_by_role("button", name="Unsubscribe").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are unsubscribed")
        page.goto(link_in(asked, "confirm"))
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_role("main")).to_contain_text("This link is too old")


def test_a_mail_program_ends_a_subscription_with_one_click(browser, server, mailbox):
    from playwright.sync_api import expect

    with reading(browser, server, java_script_enabled=False) as page:
        page.get_by_label("Your mail address").fill("bob@example.org")
        page.get_by_role("button", name="Subscribe").click()
        page.goto(link_in(mailbox.to("bob@example.org")[0], "confirm"))
        page.get_by_role("button", name="Confirm").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are subscribed")
    assert "1 mail sent" in gather(server.home, "--send", "--base-url", server.address)
    issue = mailbox.to("bob@example.org")[-1]
    assert issue["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert httpx.post(issue["List-Unsubscribe"].strip("<>"), data={"List-Unsubscribe": "One-Click"}).status_code == 200
    feeds = FeedServer()
    gather(server.home, "--send", "--base-url", server.address, "--feed", feeds.serve("/late.json", json.dumps({"items": [{"id": "late", "title": "A late paper"}]})))
    feeds.server.shutdown()
    feeds.server.server_close()
    assert len(mailbox.to("bob@example.org")) == 2, "the request to confirm and one digest"


def test_an_address_that_is_none_is_refused(browser, server, mailbox):
    from playwright.sync_api import expect

    with reading(browser, server) as page:
        field = page.get_by_label("Your mail address")
        field.fill("nobody")
        page.get_by_role("button", name="Subscribe").click()
        assert field.evaluate("field => field.matches(':invalid')"), "the browser says so"
        page.evaluate("document.querySelector('.digest-form').noValidate = true")
        page.get_by_role("button", name="Subscribe").click()
        expect(page.get_by_role("main")).to_contain_text("A mail address looks like name@example.org; it was 'nobody'.")


def test_the_mail_shows_markup_as_text(browser, server, mailbox):
    """The HTML of a digest's mail, as a mail program would draw it."""
    mailbox.mails.clear()
    feeds = FeedServer()
    url = feeds.serve("/feed.json", json.dumps({"title": HOSTILE, "items": PAPERS}))
    gather(server.home / "another", "--feed", url, "--mail", "me@example.org", "--base-url", server.address)
    feeds.server.shutdown()
    feeds.server.server_close()
    html = mailbox.to("me@example.org")[0].get_body(("html",)).get_content()
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.set_content(html)
    assert page.get_by_role("heading", name=HOSTILE).count() == 1 and page.locator("script, img, iframe, form, a[href^='javascript']").count() == 0 and "taken" not in page.title()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(page, "digest-mail-phone", full_page=True)
    context.close()


def test_the_feed_has_every_digest(browser, server):
    with reading(browser, server) as page:
        address = page.get_by_role("link", name="Atom feed").first.get_attribute("href")
        assert page.locator("head link[rel=alternate][title=Digests]").get_attribute("href") == address
        answer = page.request.get(address)
        feed = parse(answer.body(), server.address + address)
        assert answer.headers["content-type"].startswith("application/atom+xml") and feed.said == []
        assert [entry.title.partition(",")[0] for entry in feed.entries][-2:] == ["40 new papers", "3 new papers"]
        page.goto(feed.entries[-1].link)
        assert page.url.endswith("/digest/1")


@pytest.mark.parametrize(("device", "scheme"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light"), ("phone", "dark")])
def test_pages_are_accessible(browser, server, mailbox, scheme, device):
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    viewport = DESKTOP if device == "desktop" else PHONE
    with reading(browser, server, color_scheme=scheme, viewport=viewport, bypass_csp=True, has_touch=device == "phone") as page:
        for name, address in (("issue", "/digest/2"), ("first", "/digest/1"), ("archive", "/digest/archive"), ("said", None)):
            if address:
                page.goto(address)
            else:
                page.goto("/digest")
                page.get_by_label("Your mail address").fill(f"{device}-{scheme}@example.org")
                page.get_by_role("button", name="Subscribe").click()
                page.wait_for_selector("text=Look into your mail")
            picture(page, f"digest-{device}-{scheme}-{name}", full_page=True)
            page.evaluate(axe)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            assert len(found["passes"]) > 10, address
            assert [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found["violations"]] == [], address
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], f"{address} is wider than the screen"
