"""Every page by axe's rules, in both themes and both sizes; and how heavy the label page is."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe

from tests.test_label_page import Site, in_view, press, site, until

__all__ = ["site"]

SIZES = ({"width": 1280, "height": 800}, {"width": 390, "height": 844})
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
OPTIONS = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}}
PATHS = ("/?all", "/agents/shapes", "/docs", "/nowhere", "/admin", "/admin/new", "/admin/shapes")
LABEL_PAGE_BYTES = 60_000


def violations(page: Any, what: str) -> list[str]:
    """Return what axe finds on the page as it stands, in both themes and both sizes."""
    found = []
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")
    for size in SIZES:
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            for one in Axe().run(page, options=OPTIONS).response["violations"]:
                places = [(node["target"], node["failureSummary"]) for node in one["nodes"][:3]]
                found.append(f"{what}, {size['width']} {scheme}: {one['id']}: {places}")
    return found


def test_axe_finds_no_violation_on_any_page(site: Site) -> None:
    page = site.browser.new_context(bypass_csp=True).new_page()
    found = []
    for path in PATHS:
        page.goto(site.url + path)
        page.wait_for_timeout(200)
        found += violations(page, path)
    page.goto(site.url + "/label/shapes")
    in_view(page, "labeling")
    found += violations(page, "labeling, locked")
    page.wait_for_selector(".pair.current.seen")
    page.wait_for_timeout(1000)
    found += violations(page, "labeling")
    for key in ("?", "h", "l"):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        found += violations(page, f"dialog {key}")
        page.keyboard.press(key)
    for _ in range(6):
        press(page, "ArrowLeft")
    in_view(page, "grace")
    until(site.scene.close_labeling, "the end of the grace")
    in_view(page, "training")
    page.wait_for_timeout(1000)
    found += violations(page, "training")
    assert found == [], "\n".join(found)


def test_the_label_page_is_light(site: Site) -> None:
    page = site.browser.new_context().new_page()
    session, sizes = page.context.new_cdp_session(page), dict[str, float]()
    addresses: dict[str, str] = {}

    def asked(event: dict[str, Any]) -> None:
        addresses[event["requestId"]] = event["request"]["url"]

    def loaded(event: dict[str, Any]) -> None:
        address = addresses[event["requestId"]]
        if ".mp4" not in address and address.startswith("http"):
            sizes[address] = event["encodedDataLength"]

    session.on("Network.requestWillBeSent", asked)
    session.on("Network.loadingFinished", loaded)
    session.send("Network.enable")
    page.goto(site.url + "/label/shapes")
    page.wait_for_selector(".pair.current.seen")
    assert any(address.endswith("/label.js") for address in sizes)
    assert sum(sizes.values()) < LABEL_PAGE_BYTES, sizes
