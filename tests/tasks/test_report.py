"""The posture in words: coverage is never rounded up, and outside text stays inert."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.model import Cloud, Finding, Severity
from tasks.report import posture_page, posture_summary


@dataclass(frozen=True)
class Unscanned:
    cloud: str = "aws"
    account: str = "111122223333"
    name: str = ""
    status: str = "failed"
    reason: str = "throttled | `RequestLimitExceeded`"


@dataclass(frozen=True)
class Seen:
    resources: int = 12
    accounts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {
            "aws": {"covered": 3, "failed": 1, "pending": 1, "skipped": 1},
            "azure": {"covered": 2},
        }
    )
    not_scanned: tuple[Unscanned, ...] = (Unscanned(),)
    read_in_part: tuple[Unscanned, ...] = (
        Unscanned(account="444455556666", status="in part", reason="1 of 6 readings failed"),
    )
    failed_sources: tuple[tuple[str, str], ...] = (("acme", "refused"),)
    findings: dict[str, dict[str, int]] = field(
        default_factory=lambda: {"aws": {"high": 2, "low": 1}, "azure": {"high": 1}}
    )
    unknown: dict[str, int] = field(default_factory=lambda: {"aws": 4})


FOUND = Finding(
    id="a" * 64,
    cloud=Cloud.AWS,
    account="111122223333",
    region="eu-central-1",
    rule="aws_s3_bucket_tls_only",
    severity=Severity.HIGH,
    kind="aws.s3.bucket",
    resource="arn:aws:s3:::`name`|x",
)


def test_an_account_that_never_reported_counts_as_failed() -> None:
    summary = posture_summary(Seen())
    assert summary["accounts"] == {"scanned": 3, "failed": 2, "skipped": 1}
    assert summary["subscriptions"] == {"scanned": 2, "failed": 0, "skipped": 0}


def test_findings_are_counted_both_ways() -> None:
    found = posture_summary(Seen())["findings"]
    assert found["open"] == 4
    assert found["by_severity"] == {"critical": 0, "high": 3, "medium": 0, "low": 1}
    assert found["by_cloud"] == {"aws": 3, "azure": 1}


def test_the_page_has_what_a_person_needs_to_start_a_fix() -> None:
    page = posture_page(Seen(), [FOUND], lambda finding: f"/fix/{finding.id}")
    assert f"[`{'a' * 12}`](/fix/{'a' * 64})" in page
    assert "remediate" in page
    assert "`'name'¦x` `eu-central-1`" in page
    assert "throttled ¦ 'RequestLimitExceeded'" in page
    assert "not discovered" in page
    assert "| `444455556666` | in part | `1 of 6 readings failed` |" in page
    assert "| *verdict unknown* | 4 | 0 |" in page


def test_without_a_deployment_ids_lead_nowhere() -> None:
    assert f"| `{'a' * 12}` | high |" in posture_page(Seen(), [FOUND])


def test_an_empty_fleet_says_so() -> None:
    empty = Seen(not_scanned=(), read_in_part=(), failed_sources=(), findings={}, unknown={})
    page = posture_page(empty, [])
    assert "Not scanned" not in page
    assert page.endswith("None.")
