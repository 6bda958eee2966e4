"""The fleet's posture in words and tables, for the artifact and the command line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tasks.model import Finding, Severity
from tasks.plan import as_code
from tasks.rules import rule


class NotScanned(Protocol):
    """An account that a scan did not read, and why."""

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
    }


def _covered(posture: Posture, cloud: str) -> dict[str, int]:
    counts = posture.accounts.get(cloud, {})
    return {
        "scanned": counts.get("covered", 0),
        "failed": counts.get("failed", 0) + counts.get("pending", 0),
        "skipped": counts.get("skipped", 0),
    }


def posture_page(posture: Posture, findings: Sequence[Finding]) -> str:
    """The artifact: coverage, findings by severity, what could not be read, each open finding, and
    the guides of the rules they break.

    What comes from a cloud is shown as inert code. The findings carry their ids, to be copied into
    the run form of the remediation deployment.
    """
    parts = [
        "# Posture",
        _coverage_table(posture),
        _severity_table(posture),
        _not_scanned(posture),
        "## Open findings",
        "To close some: open the deployment **remediate**, choose *Run > Custom run*, and paste "
        "their ids into `finding_ids`. A run waits for an approver, one run for each account.",
        _left_over(posture, findings),
        _findings_table(findings),
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
    if not posture.not_scanned and not posture.failed_sources:
        return ""
    rows = ["## Not scanned", "Their earlier findings stay as they were.", ""]
    rows += ["| account | | reason |", "|---|---|---|"]
    rows += [
        f"| {as_code(one.account)} | {one.status} | {as_code(one.reason)} |"
        for one in posture.not_scanned
    ]
    rows += [
        f"| {as_code(name)} | not discovered | {as_code(reason)} |"
        for name, reason in posture.failed_sources
    ]
    return "\n".join(rows)


def _findings_table(findings: Sequence[Finding]) -> str:
    if not findings:
        return "None."
    rows = ["| severity | rule | account | resource | id |", "|---|---|---|---|---|"]
    rows += [
        f"| {found.severity.value} | {as_code(found.rule)} | {as_code(found.account)} "
        f"| {as_code(found.resource)} | {as_code(found.id)} |"
        for found in findings
    ]
    return "\n".join(rows)


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
