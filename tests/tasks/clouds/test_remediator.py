"""Both sides of the gate, on both emulated clouds: what a code opens, and what it does not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from deployments.local.aws.propagation import Trusts
from deployments.local.azure import entra
from deployments.local.azure.operations import OperationFailure
from tasks.clouds import azure_write
from tasks.clouds.azure_write import Arm
from tasks.clouds.propagation import Propagation
from tasks.clouds.remediator import Session, apply_all
from tasks.clouds.sdk_errors import UnsettledWrite
from tasks.clouds.session_policy import permissions
from tasks.errors import (
    AccessRefused,
    ApplyFailed,
    BadInput,
    CloudError,
    CloudTimeout,
    Conflict,
    Drifted,
    GateRefused,
    Throttled,
)
from tasks.model import Call, Cloud, Resource, Step, Verdict
from tasks.rules import rule

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Gated

pytestmark = pytest.mark.slow

BUCKET = "aws_s3_bucket_public_access_blocked"
AWS_GROUP = "aws_ec2_security_group_ssh_not_open"
AZURE_GROUP = "azure_network_security_group_ssh_not_open"
STORAGE = "azure_storage_account_https_only"
KINDS = pytest.mark.parametrize("kind", ["aws.s3.bucket", "azure.storage.account"])
BOTH = pytest.mark.parametrize("rule_id", [BUCKET, STORAGE])


@pytest.fixture(autouse=True)
def closed_afterwards(gated: Gated) -> Iterator[None]:
    yield
    while gated.opened:
        gated.close(gated.opened.pop())


def first(gated: Gated, rule_id: str) -> tuple[dict[str, str], Resource, tuple[Step, ...]]:
    """A finding, its resource and its fix."""
    finding = gated.findings(rule_id)[0]
    resource = gated.read(finding)
    return finding, resource, gated.fix(finding, resource)


def siblings(gated: Gated, kind: str, *, same_account: bool) -> list[dict[str, str]]:
    """Two findings about two resources of a kind, in one account or in two."""
    findings = [one for one in gated.fleet.truth["findings"] if rule(one["rule"]).kind == kind]
    return next(
        [one, other]
        for one in findings
        for other in findings
        if one["resource"] != other["resource"]
        and (one["account"] == other["account"]) is same_account
    )


# --- Every fix, through the gate and back -------------------------------------------------------


@pytest.mark.parametrize(
    "rule_id",
    [
        "aws_ec2_security_group_rdp_not_open",
        "aws_ec2_ebs_encrypted_by_default",
        "aws_s3_bucket_versioning_enabled",
        "aws_iam_password_policy_length",
        "azure_network_security_group_rdp_not_open",
        "azure_storage_account_public_blob_access_off",
    ],
)
def test_every_fix_works_through_the_gate_and_can_be_taken_back(gated: Gated, rule_id: str) -> None:
    finding, before, steps = first(gated, rule_id)
    its_rule = rule(rule_id)
    assert {name.lower() for name in permissions(steps)} <= {
        name.lower() for name in its_rule.writes
    }
    opened = gated.open(finding)
    with gated.session(finding, before, steps, opened.code) as session:
        apply_all(session, steps)
        assert its_rule.judge(gated.read(finding))[0] is Verdict.PASS
        for step in reversed(steps):
            session.undo(step)
    after = gated.read(finding)
    if before.config.get("Versioning") == {}:  # S3 knows no way back to "never enabled"
        after = replace(after, config=before.config)
    assert after.fingerprint == before.fingerprint
    gated.close(finding)
    assert not gated.status(finding).is_open


# --- Codes --------------------------------------------------------------------------------------


@BOTH
def test_a_closed_gate_refuses(gated: Gated, rule_id: str) -> None:
    finding, resource, steps = first(gated, rule_id)
    opened = gated.open(finding)
    gated.close(finding)
    with pytest.raises(GateRefused) as caught:
        gated.session(finding, resource, steps, opened.code)
    assert opened.code.get_secret_value() not in str(caught.value)


@BOTH
def test_only_the_right_code_opens(gated: Gated, rule_id: str) -> None:
    finding, resource, steps = first(gated, rule_id)
    old = gated.open(finding, seed=gated.SEED).code
    new = gated.open(finding, seed=SecretStr(gated.SEED.get_secret_value()[::-1])).code
    assert old != new
    for code in (old, SecretStr("000000"), SecretStr(new.get_secret_value() + "0")):
        with pytest.raises(GateRefused):
            gated.session(finding, resource, steps, code)
    gated.session(finding, resource, steps, new).close()


@BOTH
@pytest.mark.parametrize(
    "code", ["", "12345", "12 345", "１２３４５６", "123456\n", "a'--b!", "x" * 129]
)
def test_what_is_no_code_never_reaches_a_cloud(
    gated: Gated, rule_id: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding, resource, steps = first(gated, rule_id)
    monkeypatch.setattr("tasks.clouds.remediator.open_aws", None)
    monkeypatch.setattr("tasks.clouds.remediator.open_azure", None)
    with pytest.raises(GateRefused) as caught:
        gated.session(finding, resource, steps, SecretStr(code))
    assert not code or code not in str(caught.value)


def test_an_aws_gate_closes_by_itself(gated: Gated) -> None:
    finding, resource, steps = first(gated, BUCKET)
    opened = gated.open(finding, minutes=1)
    gated.session(finding, resource, steps, opened.code).close()
    gated.aws.advance(timedelta(seconds=61))
    try:
        with pytest.raises(GateRefused):
            gated.session(finding, resource, steps, opened.code)
    finally:
        gated.aws.advance(timedelta(seconds=-61))


@KINDS
def test_a_code_opens_its_own_account_only(gated: Gated, kind: str) -> None:
    finding, other = siblings(gated, kind, same_account=False)
    code = gated.open(finding).code
    resource = gated.read(other)
    steps = gated.fix(other, resource)
    # On Azure one identity serves all subscriptions: the sign-in works, and nothing else does.
    with pytest.raises(GateRefused):
        apply_all(gated.session(other, resource, steps, code), steps)
    assert gated.read(other).fingerprint == resource.fingerprint


@contextmanager
def slow_to_know(gated: Gated, *, code: float = 0.0, access: float = 0.0) -> Iterator[None]:
    """Clouds that take so many seconds to know of a code, and of a role assignment."""
    gate, tenant = gated.aws._gate, gated.azure.tenant
    assert gate is not None
    gate.trusts.delay = timedelta(seconds=code)
    tenant.federation_delay, tenant.rbac_delay = code, access
    try:
        yield
    finally:
        gate.trusts = Trusts()
        tenant.federation_delay = tenant.rbac_delay = 0.0


@BOTH
def test_a_code_is_tried_again_while_a_new_gate_propagates(gated: Gated, rule_id: str) -> None:
    finding, resource, steps = first(gated, rule_id)
    said: list[str] = []
    with slow_to_know(gated, code=1.5, access=5.0):
        opened = gated.open(finding)
        patience = Propagation(say=said.append).until(opened.expires_at)
        session = gated.session(finding, resource, steps, opened.code, patience)
        apply_all(session, steps)
        session.undo(steps[0])
    assert said[0].startswith("The gate does not let us in yet")
    assert "let us through after" in said[1]
    assert ("not let us write yet" in said[-2]) is (rule_id == STORAGE)
    assert opened.code.get_secret_value() not in " ".join(said)
    assert gated.read(finding).fingerprint == resource.fingerprint


@BOTH
def test_an_opening_that_never_gets_known_is_given_up_with_its_window(
    gated: Gated, rule_id: str
) -> None:
    finding, resource, steps = first(gated, rule_id)
    with slow_to_know(gated, code=30.0):
        code = gated.open(finding).code
        began = time.monotonic()
        with pytest.raises(GateRefused, match="did not open"):
            gated.session(finding, resource, steps, code, Propagation(code=2, access=2))
        assert 2 <= time.monotonic() - began < 8


def test_a_role_assignment_that_never_gets_known_refuses_at_the_gate(gated: Gated) -> None:
    finding, resource, steps = first(gated, STORAGE)
    with slow_to_know(gated, access=30.0):
        code = gated.open(finding).code
        session = gated.session(finding, resource, steps, code, Propagation(code=2, access=1))
        with pytest.raises(GateRefused, match="role assignment has not come into force"):
            apply_all(session, steps)
    assert gated.read(finding).fingerprint == resource.fingerprint


def test_a_closed_gate_lets_in_until_the_cloud_knows(gated: Gated) -> None:
    """What closing cannot do: that is why an opening has an end of its own."""
    finding, resource, steps = first(gated, BUCKET)
    code = gated.open(finding).code
    with slow_to_know(gated, code=2.0):
        gated.close(finding)
        gated.session(finding, resource, steps, code).close()
        time.sleep(2.1)
        with pytest.raises(GateRefused):
            gated.session(finding, resource, steps, code)


@pytest.mark.parametrize("error", [Throttled("busy"), CloudTimeout("no answer")])
def test_an_undo_is_tried_again(error: CloudError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    step = Step("s3:PutBucketPolicy", Call(Cloud.AWS, "s3", "PutBucketPolicy", {}), (), ())
    tries: list[Step] = []

    class Inner:
        def undo(self, step: Step) -> None:
            tries.append(step)
            if len(tries) < 3:
                raise error

        def apply(self, step: Step) -> None: ...

        def close(self) -> None: ...

    Session(Inner()).undo(step)
    assert len(tries) == 3
    tries.clear()
    error = Conflict("somebody was here")
    with pytest.raises(Conflict):
        Session(Inner()).undo(step)
    assert len(tries) == 1


def test_patience_has_an_end(gated: Gated) -> None:
    finding, resource, steps = first(gated, BUCKET)
    began = time.monotonic()
    with pytest.raises(GateRefused):
        gated.session(finding, resource, steps, SecretStr("000000"), Propagation(code=1, access=0))
    assert 1 <= time.monotonic() - began < 5


# --- One fix, one resource ----------------------------------------------------------------------


def test_an_aws_session_cannot_touch_a_sibling(gated: Gated) -> None:
    finding, sibling = siblings(gated, "aws.s3.bucket", same_account=True)
    resource = gated.read(finding)
    steps = gated.fix(finding, resource)
    before = gated.read(sibling)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    name = sibling["resource"].rpartition(":")[2]
    elsewhere = Call(
        Cloud.AWS, "s3", steps[0].call.operation, {**steps[0].call.params, "Bucket": name}
    )
    with pytest.raises(AccessRefused):
        session.apply(replace(steps[0], call=elsewhere))
    assert gated.read(sibling).fingerprint == before.fingerprint


def test_an_aws_session_cannot_make_another_write(gated: Gated) -> None:
    finding, resource, steps = first(gated, BUCKET)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    other = Call(Cloud.AWS, "s3", "DeleteBucketPolicy", {"Bucket": resource.name})
    with pytest.raises(AccessRefused):
        session.apply(replace(steps[0], call=other))
    elsewhere = Call(Cloud.AWS, "ec2", "EnableEbsEncryptionByDefault", {})
    with pytest.raises(AccessRefused):
        session.apply(replace(steps[0], call=elsewhere))


@pytest.mark.parametrize("who", ["our own check", "azure"])
def test_an_azure_session_cannot_touch_a_sibling(
    gated: Gated, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding, sibling = siblings(gated, "azure.network.security_group", same_account=True)
    resource = gated.read(finding)
    steps = gated.fix(finding, resource)
    before = gated.read(sibling)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    if who == "azure":
        monkeypatch.setattr(azure_write.AzureSession, "_check", lambda *_: None)
    target = steps[0].call.target.replace(finding["resource"], sibling["resource"])
    assert target != steps[0].call.target
    elsewhere = replace(steps[0].call, target=target)
    with pytest.raises(AccessRefused) as caught:
        session.apply(replace(steps[0], call=elsewhere))
    assert caught.value.code == ("AuthorizationFailed" if who == "azure" else "")
    assert gated.read(sibling).fingerprint == before.fingerprint


def test_an_azure_session_cannot_make_another_write(gated: Gated) -> None:
    finding, resource, steps = first(gated, AZURE_GROUP)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    gone = Call(Cloud.AZURE, "2024-05-01", "DELETE", {}, resource.id)
    with pytest.raises(AccessRefused):
        session.apply(replace(steps[0], call=gone))


def test_closing_an_azure_gate_ends_the_token_that_was_issued(gated: Gated) -> None:
    finding, resource, steps = first(gated, STORAGE)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    session.apply(steps[0])
    session.undo(steps[0])
    gated.close(finding)
    with pytest.raises(AccessRefused):
        session.apply(steps[0])
    assert gated.read(finding).fingerprint == resource.fingerprint


def test_a_gate_that_closes_mid_fix_is_said(gated: Gated) -> None:
    finding, resource, steps = first(gated, STORAGE)
    session = gated.session(finding, resource, steps, gated.open(finding).code)

    def close(_step: Step) -> None:
        gated.close(finding)

    with pytest.raises(ApplyFailed, match="could not be undone") as caught:
        apply_all(session, [*steps, *steps], close)
    assert not caught.value.undone
    again = gated.session(finding, resource, steps, gated.open(finding).code)
    again.undo(steps[0])
    assert gated.read(finding).fingerprint == resource.fingerprint


def test_nobody_remediates_where_the_inventory_does_not_say_who(gated: Gated) -> None:
    finding, resource, steps = first(gated, STORAGE)
    blind = replace(gated.inventory, issuer=None)
    with pytest.raises(BadInput, match="issuer"):
        replace(gated, inventory=blind).session(finding, resource, steps, SecretStr("123456"))


# --- Failures halfway ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule_id", [AWS_GROUP, AZURE_GROUP])
def test_a_failing_second_step_undoes_the_first(gated: Gated, rule_id: str) -> None:
    finding, resource, steps = first(gated, rule_id)
    if resource.cloud is Cloud.AWS:
        broken = Call(
            Cloud.AWS, "ec2", "DeleteSecurityGroup", {"GroupId": resource.config["GroupId"]}
        )
    else:
        broken = replace(steps[0].call, operation="PUT", params={"properties": {"priority": -1}})
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    with pytest.raises(ApplyFailed) as caught:
        apply_all(session, [steps[0], Step(steps[0].action, broken, steps[0].undo, ())])
    assert caught.value.undone
    assert steps[0].action in str(caught.value)
    assert gated.read(finding).fingerprint == resource.fingerprint


@pytest.mark.parametrize("keeps_change", [False, True])
def test_an_operation_that_fails_later_is_undone(gated: Gated, keeps_change: bool) -> None:
    finding, resource, steps = first(gated, AZURE_GROUP)
    failure = OperationFailure("NetworkingInternalOperationError", "No.", keeps_change)
    gated.azure.tenant.faults.fail_operation(steps[0].call.target, failure)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    with pytest.raises(ApplyFailed, match="NetworkingInternalOperationError") as caught:
        apply_all(session, steps)
    assert isinstance(caught.value.__cause__, UnsettledWrite)
    assert caught.value.undone
    assert gated.read(finding).fingerprint == resource.fingerprint


def test_a_throttled_write_is_repeated(gated: Gated) -> None:
    finding, resource, steps = first(gated, STORAGE)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    gated.azure.tenant.faults.throttle(finding["account"], times=2, retry_after=1)
    apply_all(session, steps)
    session.undo(steps[0])
    assert gated.read(finding).fingerprint == resource.fingerprint


# --- Somebody else was here ---------------------------------------------------------------------


def add_rule(gated: Gated, finding: Mapping[str, str], name: str) -> Call:
    """A rule that the customer's own people add to a group meanwhile. Gives the way back."""
    body = {
        "priority": 4000,
        "direction": "Inbound",
        "access": "Deny",
        "protocol": "*",
        "sourceAddressPrefix": "*",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "9",
    }
    target = f"{finding['resource']}/securityRules/{name}"
    put = Call(Cloud.AZURE, "2024-05-01", "PUT", {"properties": body}, target)
    by_customer(gated, finding).write(put, None)
    return replace(put, operation="DELETE", params={})


def by_customer(gated: Gated, finding: Mapping[str, str]) -> Arm:
    credential = gated.customer(finding).azure
    assert credential is not None
    return Arm(gated.inventory.azure[0], finding["account"], credential)


def test_a_change_since_the_last_look_stops_the_fix(gated: Gated) -> None:
    finding, resource, steps = first(gated, AZURE_GROUP)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    back = add_rule(gated, finding, "meanwhile")
    changed = gated.read(finding)
    with pytest.raises(Drifted):
        apply_all(session, steps)
    assert gated.read(finding).fingerprint == changed.fingerprint
    by_customer(gated, finding).write(back, None)
    assert gated.read(finding).fingerprint == resource.fingerprint


def test_a_stale_etag_is_a_conflict(gated: Gated) -> None:
    finding, resource, steps = first(gated, AZURE_GROUP)
    arm = by_customer(gated, finding)
    call = steps[0].call
    etag = arm.etag(call.target, call.service)
    assert etag
    back = add_rule(gated, finding, "meanwhile")
    with pytest.raises(Conflict):
        arm.write(call, etag)
    arm.write(back, None)
    assert gated.read(finding).fingerprint == resource.fingerprint


def test_an_aws_rule_that_is_gone_already_stops_the_fix(gated: Gated) -> None:
    finding, resource, steps = first(gated, AWS_GROUP)
    session = gated.session(finding, resource, steps, gated.open(finding).code)
    session.apply(steps[-1])
    closed = gated.read(finding)
    with pytest.raises(Drifted):
        apply_all(session, steps[-1:])
    assert gated.read(finding).fingerprint == closed.fingerprint
    session.undo(steps[-1])
    session.undo(steps[-1])  # what is there already needs no putting back
    assert gated.read(finding).fingerprint == resource.fingerprint


# --- Secrets ------------------------------------------------------------------------------------


@BOTH
def test_no_log_and_no_output_holds_a_code(
    gated: Gated,
    rule_id: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    finding, resource, steps = first(gated, rule_id)
    with caplog.at_level(logging.DEBUG):
        code = gated.open(finding).code
        with gated.session(finding, resource, steps, code) as session:
            apply_all(session, steps)
            session.undo(steps[0])
        gated.close(finding)
        with pytest.raises(GateRefused) as caught:
            gated.session(finding, resource, steps, code)
    out, err = capfd.readouterr()
    assert caplog.records, "nothing was logged: the test proves nothing"
    seen = [caplog.text, out, err, repr(session), repr(caught.value), str(caught.value)]
    assert code.get_secret_value() not in "\n".join(seen)


def test_a_refusal_that_repeats_the_code_goes_nowhere(
    gated: Gated, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entra names the subject that it did not find, and azure-identity logs that as a warning."""
    finding, resource, steps = first(gated, STORAGE)
    code = SecretStr("echoed-739211")
    told = f"presented subject '{gated.inventory.azure[0].gate_id}:{code.get_secret_value()}'"
    monkeypatch.setattr(entra, "_no_record", lambda number, _: entra._invalid_client(number, told))
    gated.open(finding)
    with caplog.at_level(logging.DEBUG), pytest.raises(GateRefused) as caught:
        gated.session(finding, resource, steps, code)
    assert "AADSTS" in caplog.text, "the refusal was not logged: the test proves nothing"
    assert code.get_secret_value() not in caplog.text
    assert code.get_secret_value() not in str(caught.value)
    assert caught.value.__cause__ is None


def test_sessions_of_one_code_work_side_by_side(gated: Gated) -> None:
    findings = [
        one
        for one in gated.findings(BUCKET)
        if one["account"] == gated.findings(BUCKET)[0]["account"]
    ]
    code = gated.open(findings[0]).code
    errors: list[Exception] = []
    # Planned before any is applied: what another has fixed already would need no step.
    resources = [gated.read(one) for one in findings]
    steps_of_each = map(gated.fix, findings, resources)
    planned = list(zip(findings, resources, steps_of_each, strict=True))

    def fix(finding: Mapping[str, str], resource: Resource, steps: Sequence[Step]) -> None:
        try:
            with gated.session(finding, resource, steps, code) as session:
                apply_all(session, steps)
                session.undo(steps[0])
        except Exception as error:  # noqa: BLE001 - told by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=fix, args=one) for one in planned * 3][:4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
