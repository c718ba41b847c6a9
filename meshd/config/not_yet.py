"""Kuma's settings that this version does not have, by dotted key: refused by name, with what to do instead if known."""

from collections.abc import Mapping

_INSTEAD: Mapping[str, str] = {
    "dpServer.gracefulShutdownTimeout": "general.drainTime is for all servers",
    "dpServer.hds.refreshInterval": "a change of a Dataplane reaches its proxy at once",
    "bootstrapServer.params.readinessPort": "kuma-dp says which port its readiness is on",
    "runtime.universal.vipRefreshInterval": "a change reaches what it concerns at once",
    "xdsServer.dataplaneConfigurationRefreshInterval": "a change reaches the proxies it concerns at once",
    "xdsServer.nackBackoff": "what a proxy has refused is not sent to it again until it changes",
}

_PLAIN = (
    "access",
    "coreResources",
    "dataplaneRuntime",
    "dpServer.authn.dpProxy.dpToken",
    "dpServer.authn.zoneProxy.zoneToken",
    "dpServer.tlsCipherSuites",
    "dpServer.tlsMaxVersion",
    "eventBus",
    "experimental",
    "guiServer",
    "interCp",
    "ipam",
    "metrics",
    "monitoringAssignmentServer",
    "policies",
    "proxy",
    "runtime.kubernetes",
    "runtime.universal.spire",
    "runtime.universal.workload",
    "tracing",
    "xdsServer.dataplaneStatusFlushInterval",
)

NOT_YET: Mapping[str, str] = {**dict.fromkeys(_PLAIN, ""), **_INSTEAD}
"""Key -> what makes it needless, empty if nothing does."""


def refusal(key: str) -> str:
    """Why a key of ``NOT_YET`` is refused."""
    what = "a setting" if "." in key else "a section"
    return f"is {what} of Kuma's that this version of meshd does not have; remove it" + (
        f" ({NOT_YET[key]})" if NOT_YET[key] else ""
    )
