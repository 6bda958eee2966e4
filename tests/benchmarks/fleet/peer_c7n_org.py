"""Cloud Custodian's c7n-org with policies that say what Suture's eight rules judge.

One run for all accounts, by its own parallelism (four processes a core). Its cache of resources
is on, as it is by default, so that the policies on one kind of resource share what was read; it
starts empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contender import Job, Outcome, Prepared, contend
from peer import PEERS, peer
from ruamel.yaml import YAML

POLICIES = PEERS / "c7n-org-policies.yml"


@contextmanager
def prepare(job: Job) -> Iterator[Prepared]:
    names = [one["name"] for one in YAML(typ="safe").load(POLICIES)["policies"]]

    def commands(programs: Path, folder: Path) -> list[tuple[str, Sequence[str | Path]]]:
        accounts, cache = folder / "accounts.json", folder / "cache"
        accounts.write_text(json.dumps({"accounts": [_account(job, a) for a in job.account_ids()]}))
        cache.mkdir()
        told = ("-c", accounts, "-u", POLICIES, "-s", folder / "out", "--cache-path", cache)
        return [("c7n-org", [programs / "c7n-org", "run", *told])]

    def outcome(folder: Path) -> Outcome:
        """What it wrote. An account counts when every policy wrote its resources down."""
        covered, findings, errors = 0, 0, []
        for account in job.account_ids():
            written = [
                folder / "out" / account / region / name / "resources.json"
                for region in job.aws["regions"]
                for name in names
            ]
            if missing := [file.parent.name for file in written if not file.is_file()]:
                errors.append(f"{account}: nothing from {', '.join(missing)}")
                continue
            covered += 1
            findings += sum(len(json.loads(file.read_text())) for file in written)
        return Outcome(covered=covered, errors=errors[:5], findings=findings)

    with peer("c7n-org", job, commands, outcome) as prepared:
        yield prepared


def _account(job: Job, account: str) -> dict[str, object]:
    return {
        "account_id": account,
        "name": account,
        "regions": job.aws["regions"],
        "role": job.role_arn(account),
        "external_id": job.aws["external_id"],
    }


if __name__ == "__main__":
    contend(prepare)
