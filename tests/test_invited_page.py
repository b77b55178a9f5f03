"""An invitation from the admin's page to the label page, in a real browser against a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.doors import ADMIN, Gate, open_gate


@pytest.fixture
def gate(tmp_path: Path, sqlite_template: Path) -> Iterator[Gate]:
    path = tmp_path / "lockstep.db"
    path.write_bytes(sqlite_template.read_bytes())
    yield from open_gate(tmp_path, f"sqlite:///{path}", log_level="ERROR")


def visit(context: BrowserContext, address: str, errors: list[str]) -> Page:
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Security Policy" in line.text else None)
    page.goto(address)
    return page


def test_from_the_admins_page_by_a_link_and_a_name_to_the_label_page(gate: Gate, browser: Browser) -> None:
    errors: list[str] = []
    admins, adas, eves = (browser.new_context() for _ in range(3))
    admin = visit(admins, f"{gate.url}/labelers", errors)
    admin.get_by_label("The admin token").fill(ADMIN)
    admin.get_by_role("button", name="Come in").click()
    admin.get_by_label("Days until").fill("3")
    admin.get_by_role("button", name="Make a link").click()
    expect(admin.locator("#invitations tbody tr")).to_contain_text("open")
    link = admin.locator("#link").input_value()
    assert link.startswith(f"{gate.url}/join#")

    ada = visit(adas, link, errors)
    ada.get_by_label("Your name").fill("Ada")
    ada.get_by_role("button", name="Begin").click()
    expect(ada.locator(".pair.current.seen")).to_have_count(1, timeout=15_000)  # to be answered
    assert ada.url == f"{gate.url}/label/shapes"
    expect(ada.locator("#who")).to_have_text("Ada")
    assert ada.evaluate("document.cookie") == ""
    ada.keyboard.press("ArrowLeft")
    expect(ada.locator("#count")).to_contain_text("1")

    eve = visit(eves, link, errors)
    expect(eve.get_by_role("alert")).to_contain_text("used already")
    expect(eve.get_by_role("button", name="Begin")).to_be_hidden()

    admin.reload()
    row = admin.locator("#people tbody tr")
    expect(row).to_contain_text("Ada")
    row.get_by_role("button", name="End the sessions").click()
    admin.get_by_role("dialog").get_by_role("button", name="End sessions").click()
    expect(row.locator("td.number").last).to_have_text("0")  # browsers
    ada.reload()
    expect(ada.get_by_label("The token that the operator gave you")).to_be_visible()

    row.get_by_role("button", name="again").click()
    expect(admin.locator("#made-for")).to_have_text("Ada")
    ada.goto(admin.locator("#link").input_value())
    expect(ada.locator("#ask")).to_have_text("Welcome back")
    ada.get_by_role("button", name="Begin").click()
    expect(ada.locator("#mine")).to_contain_text("1", timeout=15_000)  # the answer is still hers
    ada.get_by_role("button", name="Log out").click()
    expect(ada.get_by_label("The token that the operator gave you")).to_be_visible()
    tab = visit(admins, f"{gate.url}/admin", errors)
    tab.wait_for_timeout(500)  # until it listens to the news
    admin.get_by_role("button", name="Log out").click()
    expect(tab.get_by_label("The admin token")).to_be_visible(timeout=13_000)  # its stream was cut
    expect(admin.get_by_label("The admin token")).to_be_visible()
    for context in (admins, adas, eves):
        context.close()
    assert errors == []
