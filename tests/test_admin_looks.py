"""A failed round on the admin page, its retry, and what axe says of what opens there: in a real browser."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from shared import rounds
from shared.settings import secrets
from shared.supervision import LOG_END
from tests.admin_scene import scene, url
from tests.page_checks import LARGE, OVER, RULES, RUN, SETTLED, SMALL, STILL, TARGETS
from tests.scenes import Scene

__all__ = ["scene", "url"]

ERROR = f"Traceback (most recent call last):\nRuntimeError: CUDA out of memory{LOG_END}step 12\nstep 13"
LOW = """() => [...document.querySelectorAll('button, summary, select, textarea, input')].filter((one) =>
  one.checkVisibility({ visibilityProperty: true }) && one.getBoundingClientRect().height < 43.9
).map((one) => `${one.outerHTML.slice(0, 90)} ${one.getBoundingClientRect().height}`)"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(bypass_csp=True)
    opened, errors = context.new_page(), list[str]()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


def wrong_on(page: Page, what: str) -> list[str]:
    """Return what axe finds in the light on a large screen and in the dark on a phone, and small targets."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(Axe().axe_script)
        page.add_style_tag(content=STILL)
    found: list[Any] = []
    for size, scheme in ((SMALL, "dark"), (LARGE, "light")):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.evaluate(SETTLED)
        for one in page.evaluate(RUN, RULES):
            found.append((scheme, one["id"], [node["failureSummary"] for node in one["nodes"][:3]]))
        found += page.evaluate(TARGETS if size is SMALL else LOW) + page.evaluate(OVER)
    return [f"{what}: {one}" for one in found]


def test_a_failed_round_says_why_and_is_tried_again(scene: Scene, url: str, page: Page) -> None:
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.4)
    with scene.database.write() as session:
        rounds.fail(session, attempt_id, ERROR, 1)
    page.goto(f"{url}/admin/shapes")
    page.wait_for_selector("#chart-seconds .main-svg", timeout=20_000)
    failed = page.locator("#round-2")
    expect(failed.locator(".badge").first).to_have_text("failed")
    expect(failed.locator(".says.problem")).to_have_text(
        "gave up collecting: RuntimeError: CUDA out of memory; mend it, then retry"
    )
    expect(failed.locator(".worker, .one-line").first).to_contain_text("here:1 cpu")  # host, process, device
    error = failed.locator(f"#error-{attempt_id}")
    expect(error.locator("pre")).to_be_hidden()
    error.locator("summary").click()
    expect(error.locator("pre")).to_contain_text("step 13")  # the end of its log, below the error
    found = wrong_on(page, "a failed round, its error open")
    page.get_by_role("button", name="Abandon").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found += wrong_on(page, "the question before something that cannot be undone")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Retry").click()
    expect(failed.locator("> summary .badge")).to_have_text("collecting", timeout=15_000)
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    expect(page.locator("#history")).to_contain_text("retried (round 2)")
    assert scene.claim() != attempt_id  # a new attempt is there for a worker
    page.goto(f"{url}/actions")
    expect(page.locator("tbody tr").first.locator("td")).to_contain_text(
        ["20", "admin", "retried", "shapes", "–"]
    )
    token = secrets(scene.settings).admin_token
    acts = httpx.get(
        f"{url}/api/admin/actions?about=shapes", headers={"Authorization": f"Bearer {token}"}
    ).json()
    assert [(one["action"], one["actor"], one["address"]) for one in acts] == [
        ("retried", "admin", "127.0.0.1")
    ]
    assert found == [], "\n".join(found)


def test_what_opens_on_the_admin_pages_is_for_everyone(url: str, page: Page) -> None:
    page.goto(f"{url}/new?preset=cartpole")
    page.locator("[name=name]").fill("Mine!")
    page.locator("[name='agent.gamma']").fill("2")
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("[aria-invalid]")).to_have_count(2)
    found = wrong_on(page, "a form with its errors")
    page.goto(f"{url}/labelers")
    page.get_by_role("button", name="Make a link").click()
    expect(page.locator("#made")).to_be_visible()
    found += wrong_on(page, "a link that was made")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found += wrong_on(page, "the question before an invitation is revoked")
    page.goto(f"{url}/admin/shapes/rounds/1")
    page.locator(".comparison summary").first.click()
    expect(page.locator(".comparison details table").first).to_be_visible()
    found += wrong_on(page, "the predicted rewards of a comparison")
    assert found == [], "\n".join(found)
