"""Cloud Custodian's own handler for CloudTrail events, kept warm: one event a line in, seconds out.

Run in Custodian's environment, with the account's credentials. What Lambda adds around the handler
(its start, its queue) is left out, in Custodian's favour.
"""

from __future__ import annotations

import json
import sys
import time

from c7n import handler

POLICY = {
    "name": "ssh",
    "resource": "aws.security-group",
    "mode": {
        "type": "cloudtrail",
        "role": "arn:aws:iam::{account_id}:role/unused",
        "events": [
            {
                "source": "ec2.amazonaws.com",
                "event": "AuthorizeSecurityGroupIngress",
                "ids": "requestParameters.groupId",
            }
        ],
    },
    "filters": [{"type": "ingress", "Ports": [22], "Cidr": {"value": "0.0.0.0/0"}}],
    "actions": [{"type": "remove-permissions", "ingress": "matched"}],
}


class Context:
    """What Lambda tells a function of itself, as far as Custodian asks."""

    function_name = "custodian-ssh"
    aws_request_id = "benchmark"


def main(account: str, region: str) -> None:
    options = {"account_id": account, "region": region}
    with open("config.json", "w", encoding="utf-8") as file:
        json.dump({"execution-options": options, "policies": [POLICY]}, file)
    for line in sys.stdin:
        began = time.perf_counter()
        handler.dispatch_event(json.loads(line), Context())
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
