"""The fleet's posture in words and tables, for the artifact and the command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tasks.model import Finding, Severity
from tasks.plan import as_code, short_id
from tasks.rules import rule


class NotScanned(Protocol):
    """An account that a scan did not read, or in part only, and why."""

    @property
    def cloud(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...


class Posture(Protocol):
    """What is known after a scan: see ``tasks.warehouse.scans.Posture``."""

    @property
    def resources(self) -> int: ...
    @property
    def accounts(self) -> Mapping[str, Mapping[str, int]]: ...
    @property
    def not_scanned(self) -> Sequence[NotScanned]: ...
    @property
    def read_in_part(self) -> Sequence[NotScanned]: ...
    @property
    def failed_sources(self) -> Sequence[tuple[str, str]]: ...
    @property
    def findings(self) -> Mapping[str, Mapping[str, int]]: ...
    @property
    def unknown(self) -> Mapping[str, int]: ...


CLOUD_NAMES = {"aws": "AWS accounts", "azure": "Azure subscriptions"}


def posture_summary(posture: Posture) -> dict[str, Any]:
    """The posture as plain values: what `suture scan --format json` prints.

    ``findings.by_severity`` and ``by_cloud`` count what is open now.
    """
    by_cloud = {cloud: sum(counts.values()) for cloud, counts in posture.findings.items()}
    by_severity = {
        severity.value: sum(counts.get(severity.value, 0) for counts in posture.findings.values())
        for severity in Severity
    }
    return {
        "accounts": _covered(posture, "aws"),
        "subscriptions": _covered(posture, "azure"),
        "resources": posture.resources,
        "findings": {
            "open": sum(by_cloud.values()),
            "by_severity": by_severity,
            "by_cloud": by_cloud,
        },
        "unknown": sum(posture.unknown.values()),
        "read_in_part": len(posture.read_in_part),
    }


def _covered(posture: Posture, cloud: str) -> dict[str, int]:
    counts = posture.accounts.get(cloud, {})
    return {
        "scanned": counts.get("covered", 0),
        "failed": counts.get("failed", 0) + counts.get("pending", 0),
        "skipped": counts.get("skipped", 0),
    }


def posture_page(
    posture: Posture, findings: Sequence[Finding], fix: Callable[[Finding], str] | None = None
) -> str:
    """The artifact: coverage, findings by severity, what could not be read, each open finding, and
    the guides of the rules they break.

    What comes from a cloud is shown as inert code. ``fix`` gives the address of a form that starts
    the fix of a finding; each id then leads there.
    """
    parts = [
        "# Posture",
        _coverage_table(posture),
        _severity_table(posture),
        _not_scanned(posture),
        "## Open findings",
        "To close one, follow its id and submit the form there. To close several at once: open the "
        "deployment **remediate**, choose *Run > Custom run*, and put their ids into "
        "`finding_ids`. Nothing is changed before an approval, one for each account. "
        "What breaks each rule, and how to mend it by hand, is said under *Guides*.",
        _left_over(posture, findings),
        _findings_table(findings, fix),
        _guides(findings),
    ]
    return "\n\n".join(part for part in parts if part)


def _coverage_table(posture: Posture) -> str:
    rows = ["| | scanned | failed | skipped |", "|---|---|---|---|"]
    for cloud, name in CLOUD_NAMES.items():
        counts = _covered(posture, cloud)
        rows.append(f"| {name} | {counts['scanned']} | {counts['failed']} | {counts['skipped']} |")
    return "\n".join(rows)


def _severity_table(posture: Posture) -> str:
    clouds = list(CLOUD_NAMES)
    rows = ["| open findings | " + " | ".join(clouds) + " |", "|---" * (len(clouds) + 1) + "|"]
    for severity in Severity:
        counts = (str(posture.findings.get(cloud, {}).get(severity.value, 0)) for cloud in clouds)
        rows.append(f"| {severity.value} | " + " | ".join(counts) + " |")
    unknown = (str(posture.unknown.get(cloud, 0)) for cloud in clouds)
    rows.append("| *verdict unknown* | " + " | ".join(unknown) + " |")
    return "\n".join(rows)


def _not_scanned(posture: Posture) -> str:
    unread = [*posture.not_scanned, *posture.read_in_part]
    if not unread and not posture.failed_sources:
        return ""
    rows = ["## Not scanned", "What was not read keeps its earlier findings as they were.", ""]
    rows += ["| account | | reason |", "|---|---|---|"]
    rows += [f"| {as_code(one.account)} | {one.status} | {as_code(one.reason)} |" for one in unread]
    rows += [
        f"| {as_code(name)} | not discovered | {as_code(reason)} |"
        for name, reason in posture.failed_sources
    ]
    return "\n".join(rows)


def _findings_table(findings: Sequence[Finding], fix: Callable[[Finding], str] | None) -> str:
    """Narrow enough for the UI's column: whole ids would push each other out of sight."""
    if not findings:
        return "None."
    rows = ["| id | severity | broken rule | resource | account |", "|---|---|---|---|---|"]
    for found in findings:
        shown = as_code(short_id(found.id))
        link = f"[{shown}]({fix(found)})" if fix else shown
        rows.append(
            f"| {link} | {found.severity.value} | {rule(found.rule).title} "
            f"| {_place(found)} | {as_code(found.account)} |"
        )
    return "\n".join(rows)


def _place(found: Finding) -> str:
    """The end of the resource's id, which its owners know it by, and its region."""
    name = re.split(r"[/:]", found.resource.rstrip("/:"))[-1]
    return as_code(name) if found.region == "global" else f"{as_code(name)} {as_code(found.region)}"


def _left_over(posture: Posture, findings: Sequence[Finding]) -> str:
    """That the table is not all there is: it is cut at a length a browser can show."""
    total = sum(sum(counts.values()) for counts in posture.findings.values())
    if len(findings) >= total:
        return ""
    return (
        f"{len(findings)} of {total} are shown, the worst first, without accepted ones. "
        "The warehouse has all: `suture findings`."
    )


def _guides(findings: Sequence[Finding]) -> str:
    """The guide of each rule that the findings break, the worst first."""
    broken = {found.rule: rule(found.rule) for found in findings}
    if not broken:
        return ""
    parts = ["## Guides"]
    for one in broken.values():
        parts += [f"### {one.title}", f"Rule {as_code(one.id)}, {one.severity.value}.", one.guide]
    return "\n\n".join(parts)
