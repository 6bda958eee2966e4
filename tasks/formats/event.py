"""A control-plane event, as every format of them is read into: who changed what, where and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tasks.model import Cloud


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneEvent:
    """One call to a cloud's control plane, as the cloud's own log tells of it.

    ``id`` is the log's: two deliveries of one event have the same. ``operation`` is written as the
    rule table writes ``Rule.events``: "ec2:AuthorizeSecurityGroupIngress", or on Azure
    "Microsoft.Network/networkSecurityGroups/write" (letter case as it came). ``region`` is empty
    on Azure. ``actor`` names who did it for people (an ARN, a user principal name, an application
    id), ``identity`` for comparing: on AWS the ARN of the role behind a session, else the actor's;
    on Azure the application's client id, lower case. ``resource`` is the ARM id in lower case;
    empty on AWS, where ``details`` (requestParameters, responseElements, resources) tell.
    ``failure`` is why the call did not succeed; empty where it did. ``original`` is what came,
    whole, in JSON's types.
    """

    cloud: Cloud
    id: str
    account: str
    operation: str
    at: datetime
    region: str = ""
    actor: str = ""
    identity: str = ""
    source_ip: str = ""
    user_agent: str = ""
    read_only: bool = False
    failure: str = ""
    resource: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    original: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What an event is about: a resource of a kind, or where ``resource`` is empty all of it there.

    ``region`` is a resource's as scans have it ("global" for what has none); for all of a kind on
    Azure it is "global", because one list answers for every region.
    """

    cloud: Cloud
    account: str
    region: str
    kind: str
    resource: str = ""
