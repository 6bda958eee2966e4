"""What people do in Prefect's own UI, in headless Chromium: read, start a fix, approve, deny."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    TimeoutError,
    expect,
    sync_playwright,
)

from tasks.model import Verdict
from tasks.rules import rule

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SSH = "aws_ec2_security_group_ssh_not_open"
NETWORK = "198.51.100.0"  # no planted rule allows it yet
MINIMUM_TLS = "azure_storage_account_minimum_tls"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
NO_BROWSER = f"no browser: none of {', '.join(NAMES)} is installed"
if CHROMIUM is None and os.environ.get("SUTURE_NO_SKIPS") != "1":
    pytest.skip(NO_BROWSER, allow_module_level=True)

SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 30_000  # milliseconds that a page may take on a busy machine


class Ui:
    """Prefect's UI in one browser page, and everything that page asked for or was refused."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.hosts: set[str] = set()
        self.blocked: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("request", self._asked)
        page.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).netloc))
        page.on("console", self._logged)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def blocked_hosts(self) -> set[str]:
        """The hosts that the page's policy kept it from; our own if it was kept from itself."""
        first = (re.search(r"\w+://([^/\s'\"]+)", text) for text in self.blocked)
        return {match[1] if match else self.host for match in first}

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def follow(self, address: str, text: str | re.Pattern[str] = "") -> None:
        """Go by the first link whose address contains ``address`` and whose words are ``text``."""
        link = self.page.locator(f"a[href*='{address}']").filter(has_text=text).first
        arrived = re.compile(re.escape(address))
        link.click()
        try:
            self.page.wait_for_url(arrived, timeout=PATIENCE / 3)
        except TimeoutError:  # a page still settling may set its own address over the click's
            link.click()
            self.page.wait_for_url(arrived)

    def resume_form(self, run_id: str) -> Form:
        """Open a suspended run's page and, in its menu, the form to resume it."""
        self.open(f"/v2/runs/flow-run/{run_id}")
        return self.resume_form_here()

    def resume_form_here(self) -> Form:
        expect(self.page.get_by_text("Suspended", exact=True).first).to_be_visible()
        self.page.get_by_role("button", name="Open menu").click()
        self.page.get_by_role("menuitem", name="Resume").click()
        return Form(self.page)

    def _asked(self, request: Request) -> None:
        if request.url.startswith(("http:", "https:", "ws:", "wss:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def _logged(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            self.blocked.append(message.text)


class Form:
    """The approval form in its dialog."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.dialog = page.get_by_role("dialog")
        expect(self.dialog.get_by_text("Decision", exact=True)).to_be_visible()

    def labels(self) -> list[str]:
        return self.dialog.locator("label").all_inner_texts()

    def decide(self, decision: str) -> None:
        self.dialog.get_by_label("Select Decision").click()
        self.page.get_by_role("option", name=decision, exact=True).click()

    def fill(self, label: str, text: str) -> None:
        self.dialog.get_by_label(label).fill(text)

    def press_resume(self) -> None:
        self.dialog.get_by_role("button", name="Resume", exact=True).click()

    def refusal(self, words: str) -> Locator:
        """The message that says what is wrong, once it is there."""
        said = self.page.locator("[data-sonner-toast]").filter(has_text=words)
        expect(said.first).to_be_visible()
        return said.first

    def accepted(self) -> None:
        expect(self.dialog).to_be_hidden()


@pytest.fixture(scope="module")
def chromium(scanned: str) -> Iterator[Browser]:
    """Headless Chromium, started once the fleet is scanned and ended with this file's tests."""
    if CHROMIUM is None:
        pytest.fail(NO_BROWSER)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser
        browser.close()


@pytest.fixture
def ui(chromium: Browser, stack: Any) -> Iterator[Ui]:
    """A fresh browser session. Whatever a test does in it, no request leaves for another host."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    ui = Ui(context.new_page(), stack.env["SUTURE_UI_URL"])
    yield ui
    context.close()
    assert ui.hosts == {ui.host}
    assert ui.host not in ui.blocked_hosts, ui.blocked


def aside(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a thread of its own: what runs an event loop cannot run beside Playwright's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *arguments).result()


def test_a_bad_answer_is_said_in_words_and_the_corrected_form_closes_the_finding(
    fleet: Any, ui: Ui
) -> None:
    (finding,) = fleet.take(SSH)
    run_id = fleet.start_and_wait([finding])
    gate = fleet.open_gate(run_id)
    short = gate.code[:5]

    form = ui.resume_form(run_id)
    expect(form.dialog.get_by_role("table").first).to_contain_text("Security group")
    expect(form.dialog).to_contain_text(finding.resource)
    form.decide("approve")
    form.fill("Your name", "Grace Hopper")
    form.fill("6-digit code", short)
    form.press_resume()
    said = form.refusal("must be exactly 6 digits").inner_text()
    assert said.startswith("6-digit code:")
    assert short not in ui.page.locator("body").inner_text(), "what was typed is not repeated"
    assert fleet.api.state(run_id)["name"] == "Suspended"

    form.fill("6-digit code", gate.code)
    form.fill("Networks that may still connect", f"{NETWORK}/99")
    form.press_resume()
    said = form.refusal("is not a network").inner_text()
    assert said.startswith("Networks that may still connect:")
    assert NETWORK not in said
    assert fleet.api.state(run_id)["name"] == "Suspended"

    form.fill("Networks that may still connect", f"{NETWORK}/24")
    form.press_resume()
    form.accepted()
    state = fleet.end(run_id)
    assert (state["type"], state["name"]) == ("COMPLETED", "Remediated"), state
    ui.page.reload()
    expect(ui.page.get_by_text("Remediated", exact=True).first).to_be_visible()
    assert gate.code not in ui.page.locator("body").inner_text()
    gate.close()

    now = aside(fleet.now, finding)
    assert rule(SSH).judge(now)[0] is Verdict.PASS
    assert f"{NETWORK}/24" in str(now.config.as_dict()["IpPermissions"])
    assert fleet.finding(finding.id).status == "resolved"
    (row,) = fleet.rows(run_id)
    assert row.approver == "Grace Hopper"


def test_deny_leaves_the_resource_untouched(fleet: Any, ui: Ui) -> None:
    (finding,) = fleet.take(MINIMUM_TLS)
    before = aside(fleet.now, finding)
    run_id = fleet.start_and_wait([finding])

    form = ui.resume_form(run_id)
    form.decide("deny")
    form.fill("Your name", "Grace Hopper")
    form.press_resume()
    form.accepted()

    assert fleet.end(run_id)["name"] == "Denied"
    assert aside(fleet.now, finding).fingerprint == before.fingerprint
    assert fleet.finding(finding.id).status == "open"
    (row,) = fleet.rows(run_id)
    assert (row.state, row.approver) == ("denied", "Grace Hopper")


def test_from_the_posture_artifact_to_a_waiting_approval(fleet: Any, scanned: str, ui: Ui) -> None:
    (finding,) = fleet.take(MINIMUM_TLS)
    page = ui.page
    ui.open("/")
    page.get_by_role("link", name="Runs", exact=True).click()
    ui.follow(f"/runs/flow-run/{scanned}")
    page.get_by_role("tab", name="Artifacts").click()
    ui.follow("/artifacts/key/posture")
    ui.follow("/artifacts/artifact/")

    row = page.get_by_role("row").filter(has_text=finding.id[:12])
    expect(row).to_contain_text(finding.account)
    expect(row).to_contain_text(rule(MINIMUM_TLS).title)
    expect(page.get_by_role("heading", name=rule(MINIMUM_TLS).title)).to_be_visible()
    shown_id = row.get_by_role("cell").first.inner_text()
    row.get_by_role("link").click()
    expect(page.locator("textarea").first).to_have_value(finding.id)

    page.get_by_role("link", name="Deployments", exact=True).first.click()
    ui.follow("/deployments/deployment/", re.compile(r"^remediate$"))
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_role("button", name="Add item").click()
    page.locator("textarea").first.fill(shown_id)
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("button", name="View run").click()
    page.wait_for_url(re.compile(r"/runs/flow-run/"))
    run_id = re.split(r"[/?]", page.url.partition("/flow-run/")[2])[0]
    fleet.wait_until_suspended(run_id)
    page.reload()  # it looks for news every few seconds only

    form = ui.resume_form_here()
    expect(form.dialog).to_contain_text(finding.resource)
    assert [label.removesuffix(" (Optional)") for label in form.labels()] == [
        "Decision",
        "Leave out",
        "Your name",
        "6-digit code",
    ]
    form.decide("deny")
    form.fill("Your name", "Grace Hopper")
    form.press_resume()
    form.accepted()
    assert fleet.end(run_id)["name"] == "Denied"


def test_no_page_calls_out_and_none_is_kept_from_its_own(ui: Ui, scanned: str) -> None:
    for path, words in (
        ("/v2/dashboard", "Dashboard"),
        ("/v2/deployments", "remediate"),
        (f"/v2/runs/flow-run/{scanned}", "Completed"),
        ("/dashboard", "Dashboard"),
        ("/artifacts", "posture"),
        (f"/runs/flow-run/{scanned}", "Completed"),
    ):
        ui.open(path)
        expect(ui.page.get_by_text(words, exact=True).first).to_be_visible()
        ui.page.wait_for_load_state("networkidle")
    assert ui.blocked_hosts, "the bundled analytics client tries; seeing none would prove nothing"
