"""boto3 with shared clients: one client of each service for a process, threads, an account each.

A boto3 client is bound to one credentials object. Nothing binds that object to one account: here it
answers with the keys of the account that its thread is scanning. So clients, their loaders and
their connections are shared by all accounts, and STS is asked once for each account. That is the
fastest way known to use boto3 from outside; clients made for each account cost some ten times more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError
from contender import Job, Outcome, contend, worker_processes

NOT_SET = {
    "NoSuchBucketPolicy",
    "NoSuchEntity",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
}


class CredentialsOfThread(Credentials):
    """The keys of the account that the calling thread scans."""

    def __init__(self) -> None:
        super().__init__("none", "none")
        self._of = threading.local()

    def use(self, keys: dict[str, str]) -> None:
        self._of.keys = ReadOnlyCredentials(
            keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]
        )

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        keys: ReadOnlyCredentials = self._of.keys
        return keys


class Scan:
    """The clients of one process, and what is read with them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        config = Config(
            max_pool_connections=job.accounts_at_once,
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 5},
        )
        given: Any = {
            "endpoint_url": job.endpoint,
            "verify": job.ca_file,
            "config": config,
            "region_name": job.region,
        }
        hub = job.aws["hub"]
        self._sts = boto3.Session(
            hub["access_key_id"], hub["secret_access_key"], region_name=job.region
        ).client("sts", **given)
        self._credentials = CredentialsOfThread()
        core = botocore.session.Session()
        core._credentials = self._credentials  # there is no public way to hand it an object
        session = boto3.Session(botocore_session=core)
        self._ec2 = session.client("ec2", **given)
        self._s3 = session.client("s3", **given)
        self._iam = session.client("iam", **given)

    def account(self, account: str) -> str:
        """Read one account; returns what went wrong, if anything."""
        try:
            self._read(account)
        except (BotoCoreError, ClientError) as error:
            return f"{account}: {error}"
        return ""

    def _read(self, account: str) -> None:
        answer = self._sts.assume_role(
            RoleArn=self._job.role_arn(account),
            RoleSessionName="boto3",
            ExternalId=self._job.aws["external_id"],
            DurationSeconds=3600,
        )
        self._credentials.use(answer["Credentials"])
        self._ec2.describe_security_groups(MaxResults=1000)
        self._ec2.get_ebs_encryption_by_default()
        for bucket in self._s3.list_buckets(MaxBuckets=1000)["Buckets"]:
            name = bucket["Name"]
            if not bucket.get("BucketRegion"):
                self._s3.get_bucket_location(Bucket=name)
            _or_unset(self._s3.get_public_access_block, Bucket=name)
            self._s3.get_bucket_versioning(Bucket=name)
            _or_unset(self._s3.get_bucket_policy, Bucket=name)
            _or_unset(self._s3.get_bucket_tagging, Bucket=name)
        _or_unset(self._iam.get_account_password_policy)


def _or_unset(call: Callable[..., Any], **parameters: str) -> None:
    try:
        call(**parameters)
    except ClientError as error:
        if error.response["Error"]["Code"] not in NOT_SET:
            raise


def scan(job: Job, accounts: list[str]) -> Outcome:
    process = Scan(job)
    with ThreadPoolExecutor(job.accounts_at_once) as threads:
        problems = [problem for problem in threads.map(process.account, accounts) if problem]
    return Outcome(covered=len(accounts) - len(problems), errors=problems[:5])


if __name__ == "__main__":
    contend(lambda job: worker_processes(job, scan))
