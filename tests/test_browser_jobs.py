"""The pages of jobs in a real browser: clicked by mouse and by keyboard, looked at on a desktop, on a phone and in the dark, and free of serious findings of axe."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import made_logs

SERVER = """
import sys, uvicorn
from lawbook.faces.web.app import Settings, create_app
if __name__ == "__main__":
    port, *folders = sys.argv[1:]
    uvicorn.run(create_app(Settings(port=int(port), folders=tuple(folders))), host="127.0.0.1", port=int(port), log_level="warning")
"""
TABLE = "params,tokens,loss,run\n" + "".join(f"{n},{d},{1.8 + 480 / n**0.35 + 2000 / d**0.37},<b>run</b>\n" for n in (1e7, 3e7, 1e8, 3e8) for d in (1e9, 3e9, 1e10, 3e10))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = os.environ.get("LAWBOOK_SCREENSHOTS")  # a folder to keep pictures of the pages in


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "models" / "small").mkdir(parents=True)
    (folder / "server.py").write_text(SERVER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "LAWBOOK_HOME": str(folder / "home")}
    process = subprocess.Popen([sys.executable, folder / "server.py", str(port), folder / "models"], env=environment, stderr=(folder / "log").open("w"))
    until = time.monotonic() + 60
    while True:
        with socket.socket() as there:
            if there.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert "Traceback" not in (folder / "log").read_text()


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here (lawbook[test])")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed here (Debian: chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address):
    """A fresh browser; nothing may go wrong in its console, and no request may leave the machine."""
    context = chromium.new_context(base_url=address, viewport={"width": 1200, "height": 900})
    shown = context.new_page()
    wrong = []
    shown.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") and "status of 422" not in message.text else None)
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:", "about:")) else wrong.append(request.url))
    yield shown
    context.close()
    assert not wrong


def accessible(page, name):
    """No serious finding of axe, and a picture where they are kept."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed here (lawbook[test])")
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [(v["id"], [node["html"][:200] for node in v["nodes"]][:3]) for v in found if v["impact"] in ("serious", "critical")]
    assert not serious, f"{name}: {serious}"
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def ended(page, seconds=60):
    """Wait until the page says that its job has ended."""
    page.wait_for_selector(".job-done, .job-failed, .job-cancelled, .job-interrupted", timeout=seconds * 1000)
    page.wait_for_selector("text=Begin again")


def test_a_table_is_uploaded_fitted_and_read_about(page, tmp_path):
    table = tmp_path / "runs <i>odd.csv"
    table.write_text(TABLE)
    page.goto("/jobs")
    page.click("text=Fit laws to a table of runs")
    accessible(page, "job-new-fit")
    page.set_input_files("#table", table)
    page.fill("#bootstrap", "0")
    page.fill("#starts", "64")
    page.click("button:has-text('Begin')")
    page.wait_for_url("**/jobs/*")
    assert page.locator("h1").inner_text() == "fit: runs__i_odd.csv, bootstrap 0, starts 64"
    ended(page)
    assert page.locator("#job-state").inner_text() == "done"
    frame = page.frame_locator("iframe.job-report")
    assert frame.locator("h1").inner_text() == "Which law fits these runs"
    assert frame.locator("svg").count() >= 2
    accessible(page, "job-fit")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than a phone"
    accessible(page, "job-fit-phone")
    page.locator("iframe.job-report").scroll_into_view_if_needed()
    if SHOTS:
        page.wait_for_timeout(500)  # frames draw themselves when they are looked at
        page.screenshot(path=f"{SHOTS}/job-fit-phone-report.png")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 1200, "height": 900})
    accessible(page, "job-fit-dark")
    page.goto(page.locator("text=The report as a page of its own").get_attribute("href"))
    assert "Which law fits" in page.content() and page.evaluate("self.origin") == "null", "a box without an origin"


def test_a_log_is_uploaded_and_read_about(page, tmp_path):
    log = tmp_path / "judgments.jsonl"
    made_logs.judge(log, questions=20)
    page.goto("/jobs")
    page.click("text=Audit a log")
    accessible(page, "job-new-log")
    page.set_input_files("#table", log)
    page.click("button:has-text('Begin')")
    page.wait_for_url("**/jobs/*")
    ended(page)
    assert page.locator("#job-state").inner_text() == "done"
    frame = page.frame_locator("iframe.job-report")
    assert frame.locator("h1").inner_text() == "What judgments.jsonl lets anyone conclude"
    assert "favours the answer shown first" in frame.locator("p.first").inner_text()
    accessible(page, "job-log")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than a phone"
    accessible(page, "job-log-phone")
    page.goto("/jobs/new/log")
    page.fill("#fields", "sensitive")
    page.click("button:has-text('Begin')")
    assert "role=column" in page.locator("#wrong").inner_text()


def test_what_is_wrong_stays_in_the_form(page):
    page.goto("/jobs/new/plan")
    page.fill("#compute", "<script>alert(1)</script>")
    page.click("button:has-text('Begin')")
    wrong = page.locator("[role=alert]")
    assert wrong.inner_text().startswith("compute must be") and "<script>alert(1)</script>" in wrong.inner_text()
    assert page.input_value("#compute") == "<script>alert(1)</script>"
    accessible(page, "job-new-plan-wrong")


def test_a_trial_is_begun_from_its_page_watched_and_stopped(page):
    page.goto("/jobs/new/verify")
    page.select_option("#effort", "full")
    page.click("button:has-text('Begin')")
    page.wait_for_selector("text=trials begin", timeout=30_000)
    page.wait_for_selector("#job-now:text-matches(': [0-9,]+ of [0-9,]+ draws$')", timeout=60_000)
    accessible(page, "job-running")
    assert page.locator("#job-progress").get_attribute("max")
    page.keyboard.press("Tab")
    page.locator("button:has-text('Stop')").focus()
    page.keyboard.press("Enter")
    ended(page, 20)
    assert page.locator("#job-state").inner_text() == "cancelled"
    page.goto("/verdict/rope-base-region/bisection")
    page.locator("main form button[type=submit], main form button").last.click()
    page.wait_for_url("**/jobs/*")
    ended(page)
    assert page.locator("table .job-upheld").count() == 1
    page.click("table >> text=rope-base-region.bisection")
    page.wait_for_url("**/verdict/rope-base-region/bisection")


def test_two_plans_are_compared(page):
    for compute in ("1e21", "1e22"):
        page.goto("/jobs/new/plan")
        page.fill("#compute", compute)
        page.click("button:has-text('Begin')")
        page.wait_for_url("**/jobs/*")
        ended(page)
    page.goto("/jobs?kind=plan")
    boxes = page.locator("input[name=job]")
    boxes.nth(0).check()
    boxes.nth(1).check()
    accessible(page, "jobs")
    page.click("text=Compare the two")
    rows = page.locator("tbody tr").all_inner_texts()
    assert any(row.startswith("compute") for row in rows) and any(row.startswith("quantities.params.value") for row in rows)
    accessible(page, "job-compare")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto("/jobs")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    accessible(page, "jobs-phone")


def test_an_audit_outside_the_folders_is_refused(page):
    page.goto("/jobs/new/audit")
    page.fill("#path", "/etc/passwd")
    page.click("button:has-text('Begin')")
    assert "one of the folders named" in page.locator("[role=alert]").inner_text()


def test_the_page_about_the_api(page):
    page.goto("/api")
    assert "curl" in page.content()
    accessible(page, "api")


def test_a_job_can_be_watched_without_scripts(chromium, address):
    context = chromium.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs/new/verify")
    page.fill("#names", "rope-base-region.bisection")
    page.click("button:has-text('Begin')")
    page.wait_for_selector("text=Begin again", timeout=60_000)
    assert "upheld" in page.content()
    context.close()
