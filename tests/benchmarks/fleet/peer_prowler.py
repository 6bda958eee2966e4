"""Prowler with the checks that answer Suture's eight rules, a process for each account.

Prowler scans one account in a run; as many runs are on at once as there are cores. It collects all
of a service whatever is checked, so that it makes more calls than its checks need.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contender import Job, Outcome, Prepared, contend
from peer import peer

CHECKS = (
    "ec2_securitygroup_allow_ingress_from_internet_to_tcp_port_22",
    "ec2_securitygroup_allow_ingress_from_internet_to_tcp_port_3389",
    "ec2_securitygroup_allow_ingress_from_internet_to_all_ports",
    "ec2_ebs_default_encryption",
    "s3_bucket_level_public_access_block",
    "s3_bucket_object_versioning",
    "s3_bucket_secure_transport_policy",
    "iam_password_policy_minimum_length_14",
)


@contextmanager
def prepare(job: Job) -> Iterator[Prepared]:
    def commands(programs: Path, folder: Path) -> list[tuple[str, Sequence[str | Path]]]:
        return [
            (account, _command(job, account, programs, folder)) for account in job.account_ids()
        ]

    def outcome(folder: Path) -> Outcome:
        """What its own reports say. An account counts when every check has a verdict in it."""
        covered, findings, errors = 0, 0, []
        for account in job.account_ids():
            verdicts = list(_verdicts(folder / "reports" / f"{account}.csv"))
            if missing := set(CHECKS) - {check for check, _ in verdicts}:
                errors.append(f"{account}: no verdict of {', '.join(sorted(missing))}")
                continue
            covered += 1
            findings += sum(status == "FAIL" for _, status in verdicts)
        return Outcome(covered=covered, errors=errors[:5], findings=findings)

    with peer("prowler", job, commands, outcome) as prepared:
        yield prepared


def _command(job: Job, account: str, programs: Path, folder: Path) -> list[str | Path]:
    return [
        *(programs / "prowler", "aws", "--role", job.role_arn(account)),
        *("--external-id", job.aws["external_id"], "--region", *job.aws["regions"]),
        *("--checks", *CHECKS),
        "--scan-unused-services",  # a security group that nothing uses yet is judged, too
        *("--output-formats", "csv", "--output-directory", folder / "reports"),
        *("--output-filename", account, "--no-banner", "--ignore-exit-code-3"),
    ]


def _verdicts(report: Path) -> Iterator[tuple[str, str]]:
    """(check, status) of each line of a report; nothing where there is none."""
    if report.is_file():
        with report.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter=";"):
                yield row["CHECK_ID"], row["STATUS"]


if __name__ == "__main__":
    contend(prepare)
