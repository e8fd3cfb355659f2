"""The workbench in a real browser: it is clicked, typed into, looked at and checked for accessibility. Screenshots go to LAWBOOK_SCREENSHOTS where that names a folder."""

import re
from pathlib import Path

import pytest

import lawbook
from browsing import DESKTOP, PHONE, needs_chromium, opened, picture
from workbench import Server

pytestmark = needs_chromium
LOSS = "/paper/beyond-chinchilla/chinchilla_loss?params=7B&tokens=1T&_x=params&_by=tokens&_values=1T,2T,4T&_solve=tokens&_target=2.0"
PAGES = ["/", "/tag/rope", "/paper/rope-base-region", LOSS, "/paper/condition-number-tuning", "/verdicts", "/verdict/rope-base-region/ordered", "/feedback", "/no-such-page"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAWBOOK_HOME", str(home))
        lawbook.verify("rope-base-region")
    with Server(home) as made:
        yield made


def test_search_answers_while_one_types(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server) as page:
        page.get_by_label("Words").type("context length")
        first = page.locator(".papers article h2").first
        expect(page.locator("#found")).to_contain_text("for “context length”")
        expect(first).to_have_text(lawbook.find("context length")[0]["title"])
        assert page.url.endswith("/?q=context+length")
        page.get_by_label("Kind").select_option("bound")
        expect(page.locator("#found")).to_contain_text(f"{len(lawbook.find('context length', kind='bound'))} paper")
        page.reload()
        expect(page.get_by_label("Kind")).to_have_value("bound")
        page.goto("/verdicts")
        page.get_by_role("search").get_by_role("searchbox").fill("rope")
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_contain_text("for “rope”")


def test_layout_colours_and_marks_are_remembered(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server) as page:
        page.get_by_role("button", name="List").click()
        expect(page.locator("ul.papers")).to_have_class("papers list")
        picture(page, "desktop-list")
        page.get_by_label("Colours").select_option("dark")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        star = page.get_by_role("button", name="Favourite").first
        star.click()
        expect(star).to_have_attribute("aria-pressed", "true")
        like = page.get_by_role("button", name="Like").first
        like.click()
        expect(like.locator(".count")).to_have_text("1")
        page.wait_for_load_state("networkidle")
        page.reload()
        expect(page.locator("ul.papers")).to_have_class("papers list")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
        page.get_by_label("Mine").select_option("favourite")
        expect(page.locator("#found")).to_have_text(re.compile("^1 paper"))
        page.get_by_role("button", name="Favourite").first.click()
        page.get_by_role("button", name="Like").first.click()
        page.get_by_label("Colours").select_option("auto")
        page.wait_for_load_state("networkidle")


def test_a_form_answers_while_it_is_filled(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server, "/paper/beyond-chinchilla") as page:
        section = page.locator("#chinchilla_loss")
        value = section.locator("output")
        expect(value).to_contain_text("nats")  # the examples are answered without being asked
        expect(section.locator("svg.plot")).to_be_visible()
        section.get_by_label("params (params)", exact=True).fill("70B")
        section.get_by_label("tokens (tokens)", exact=True).fill("1.4T")
        wanted = lawbook.run("beyond-chinchilla.chinchilla_loss", params=70e9, tokens=1.4e12).value
        expect(value).to_have_text(f"{wanted:.6g} nats")
        expect(page).to_have_url(re.compile(r"/chinchilla_loss\?params=70B&tokens=1\.4T"))
        expect(page.locator("#said")).to_have_text(f"chinchilla loss: {wanted:.6g} nats")  # for screen readers
        slider = section.get_by_label("params, slider")
        before = section.get_by_label("params (params)", exact=True).input_value()
        slider.focus()
        page.keyboard.press("ArrowRight")
        expect(section.get_by_label("params (params)", exact=True)).not_to_have_value(before)
        assert slider.get_attribute("aria-valuetext") != before
        expect(value).not_to_have_text(f"{wanted:.6g} nats")
        section.get_by_label("params (params)", exact=True).fill("minus one")
        expect(section.get_by_role("alert")).to_contain_text("params must be a number such as 70B")
        section.get_by_label("params (params)", exact=True).fill("70B")
        expect(value).to_have_text(f"{wanted:.6g} nats")
        page.reload()
        expect(page.locator("#chinchilla_loss output")).to_have_text(f"{wanted:.6g} nats")
        expect(page.locator("#chinchilla_loss").get_by_label("tokens (tokens)", exact=True)).to_have_value("1.4T")


def test_plots_are_compared_and_the_unknown_is_solved_for(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server, "/paper/beyond-chinchilla/chinchilla_loss?params=7B&tokens=1T") as page:
        section = page.locator("#chinchilla_loss")
        section.get_by_label("along").select_option("params")
        expect(section.locator(".line")).to_have_count(1)
        section.get_by_label("compared over").select_option("tokens")
        section.get_by_label("at", exact=True).fill("1T, 2T, 4T")
        expect(section.locator(".line")).to_have_count(3)
        expect(section.locator(".legend li")).to_have_count(3)
        section.get_by_label("unknown").select_option("tokens")
        section.get_by_label("so that").fill("2.0")
        root = lawbook.solve("beyond-chinchilla.chinchilla_loss", "tokens", target=2.0, params=7e9).roots[0]
        expect(section.locator(".solution")).to_contain_text(f"tokens = {root:.8g}")
        picture(page, "desktop-result")


def test_copies_reach_the_clipboard(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server, "/paper/beyond-chinchilla/chinchilla_loss?params=7B&tokens=1T", permissions=["clipboard-read", "clipboard-write"]) as page:
        page.get_by_text("Copy as Python, shell, JSON or BibTeX").first.click()
        for name, part in (
            ("Python", 'lawbook.run("beyond-chinchilla.chinchilla_loss"'),
            ("Shell", "lawbook run beyond-chinchilla.chinchilla_loss --params 7B"),
            ("BibTeX", "@misc{"),
        ):
            page.get_by_role("button", name=f"Copy as {name}").first.click()
            expect(page.locator("#said")).to_have_text("Copied.")
            assert part in page.evaluate("navigator.clipboard.readText()")
            page.wait_for_timeout(1600)  # until the button has its name again


def test_a_file_fills_its_field(browser, server, tmp_path):
    from playwright.sync_api import expect

    table = tmp_path / "numbers.csv"
    table.write_text("1\n2\n3\n")
    with opened(browser, server, "/paper/repeated-sampling-coverage/fit_coverage") as page:
        section = page.locator("#fit_coverage")
        section.get_by_label("File for samples").set_input_files(table)
        expect(section.get_by_label("samples", exact=False).first).to_have_value("1\n2\n3\n")


def test_everything_works_without_scripts(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server, "/paper/beyond-chinchilla", java_script_enabled=False) as page:
        section = page.locator("#chinchilla_loss")
        assert section.locator("math").count() == 1
        expect(section.get_by_label("params, slider")).to_be_hidden()
        section.get_by_label("params (params)", exact=True).fill("70B")
        section.get_by_role("button", name="Compute", exact=True).click()
        expect(page.locator("#chinchilla_loss output")).to_contain_text("nats")
        expect(page.locator("#chinchilla_loss svg.plot")).to_be_visible()
        page.get_by_role("button", name="Favourite").first.click()
        expect(page.get_by_role("button", name="Favourite").first).to_have_attribute("aria-pressed", "true")
        page.goto("/")
        page.get_by_role("button", name="List").click()
        expect(page.locator("ul.papers")).to_have_class("papers list")
        page.get_by_label("Words").fill("rope")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#found")).to_contain_text("for “rope”")


def test_a_claim_is_put_on_trial_with_a_click(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server, "/verdict/one-epoch/bounds") as page:
        expect(page.locator(".judgement")).to_contain_text("not yet tried")
        page.get_by_label("seed").fill("5")
        page.get_by_role("button", name="Put on trial here").click()
        expect(page).to_have_url(re.compile("/jobs/"))
        expect(page.get_by_text("upheld").first).to_be_visible(timeout=60_000)
        page.goto("/verdict/one-epoch/bounds")
        expect(page.locator(".judgement")).to_contain_text("upheld")
        expect(page.locator("svg.plot").first).to_be_visible()


def test_feedback_is_sent(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server, "/paper/one-epoch") as page:
        page.get_by_label("What is wrong, missing or good?").fill("<b>bold</b> words")
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.get_by_text("Thank you")).to_be_visible()
        page.goto("/feedback")
        expect(page.get_by_text("<b>bold</b> words")).to_be_visible()


def test_the_keyboard_is_enough(browser, server):
    from playwright.sync_api import expect

    with opened(browser, server) as page:
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(page.locator("#content")).to_be_focused()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('article h2') !== null"):
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("/paper/"))


@pytest.mark.parametrize(("device", "scheme"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light"), ("phone", "dark")])
def test_pages_are_accessible(browser, server, scheme, device):
    import axe_playwright_python

    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    viewport = DESKTOP if device == "desktop" else PHONE
    with opened(browser, server, color_scheme=scheme, viewport=viewport, bypass_csp=True, has_touch=device == "phone") as page:
        for number, address in enumerate(PAGES):
            page.goto(address)
            page.wait_for_load_state("networkidle")
            picture(page, f"{device}-{scheme}-{number}")
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            page.evaluate(axe)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            assert len(found["passes"]) > 10, address
            assert [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found["violations"]] == [], address
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], f"{address} is wider than the screen"
