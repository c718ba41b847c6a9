"""The spec of a MeshTrafficPermission, field for field as Kuma 2.14 has it."""

import enum

from pydantic import Field

from meshd.model.resource import Spec
from meshd.rules.client_match import ClientMatch
from meshd.rules.target_ref import TargetRef


class Action(enum.StrEnum):
    """What happens to a connection. AllowWithShadowDeny lets it through and counts it as if it were denied."""

    ALLOW = "Allow"
    DENY = "Deny"
    ALLOW_WITH_SHADOW_DENY = "AllowWithShadowDeny"


class FromConf(Spec):
    """The decision about a group of clients."""

    action: Action | None = None


class From(Spec):
    """A group of clients, by their tags, and what is decided about them."""

    target_ref: TargetRef
    default: FromConf = FromConf()


class RuleConf(Spec):
    """Clients by their identity: any ``deny`` beats every ``allow``, of all policies together."""

    deny: tuple[ClientMatch, ...] | None = None
    allow_with_shadow_deny: tuple[ClientMatch, ...] | None = None
    allow: tuple[ClientMatch, ...] | None = None


class Rule(Spec):
    """See ``RuleConf``."""

    default: RuleConf


class MeshTrafficPermission(Spec):
    """``target_ref`` are the proxies whose inbounds it protects; exactly one of ``from`` and ``rules`` is used."""

    target_ref: TargetRef | None = None
    from_: tuple[From, ...] | None = Field(default=None, alias="from")
    rules: tuple[Rule, ...] | None = None
