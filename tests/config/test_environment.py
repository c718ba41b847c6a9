"""Every setting can be overridden; a new one without a sample here fails."""

from pathlib import Path

import pytest

from meshd.config.environment import BY_KEY, BY_VARIABLE, read_value, upper_snake
from tests.config.support import load

GLOBAL = {"MESHD_MODE": "global", "MESHD_MULTIZONE_GLOBAL_KDS_TLS_ENABLED": "false"}
KDS_TLS = {
    "MESHD_MODE": "global",
    "MESHD_MULTIZONE_GLOBAL_KDS_TLS_CERT_FILE": "/c",
    "MESHD_MULTIZONE_GLOBAL_KDS_TLS_KEY_FILE": "/k",
}
HTTPS = {
    "MESHD_API_SERVER_HTTPS_ENABLED": "true",
    "MESHD_API_SERVER_HTTPS_TLS_CERT_FILE": "/c",
    "MESHD_API_SERVER_HTTPS_TLS_KEY_FILE": "/k",
}
DP_TLS = {"MESHD_DP_SERVER_TLS_CERT_FILE": "/c", "MESHD_DP_SERVER_TLS_KEY_FILE": "/k"}
GENERAL_TLS = {
    "MESHD_API_SERVER_HTTPS_ENABLED": "true",
    "MESHD_GENERAL_TLS_CERT_FILE": "/c",
    "MESHD_GENERAL_TLS_KEY_FILE": "/k",
}
FEDERATED = {"MESHD_MULTIZONE_ZONE_NAME": "zone-a", "MESHD_MULTIZONE_ZONE_GLOBAL_ADDRESS": "grpcs://g:1"}
UPSTREAM = {"MESHD_DNS_SERVER_UPSTREAMS": "10.0.0.1"}
LOGGED = {"MESHD_DNS_SERVER_QUERY_LOG_ENABLED": "true"}

SAMPLES = {
    "mode": ("global", "global", GLOBAL),
    "environment": ("universal", "universal", {}),
    "general.workDir": ("/w", "/w", {}),
    "general.tlsCertFile": ("/a", "/a", GENERAL_TLS),
    "general.tlsKeyFile": ("/a", "/a", GENERAL_TLS),
    "general.drainTime": ("7s", "7s", {}),
    "general.dataSourceDir": ("/d", "/d", {}),
    "store.type": ("memory", "memory", {}),
    "store.sqlite.path": ("/x.db", "/x.db", {}),
    "apiServer.http.enabled": ("false", False, HTTPS),
    "apiServer.http.interface": ("0.0.0.0", "0.0.0.0", {}),
    "apiServer.http.port": ("1", 1, {}),
    "apiServer.https.enabled": ("true", True, HTTPS),
    "apiServer.https.interface": ("127.0.0.1", "127.0.0.1", {}),
    "apiServer.https.port": ("2", 2, {}),
    "apiServer.https.tlsCertFile": ("/a", "/a", HTTPS),
    "apiServer.https.tlsKeyFile": ("/a", "/a", HTTPS),
    "apiServer.authn.localhostIsAdmin": ("false", False, {}),
    "apiServer.readOnly": ("true", True, {}),
    "diagnostics.serverPort": ("3", 3, {}),
    "diagnostics.serverInterface": ("0.0.0.0", "0.0.0.0", {}),
    "multizone.global.kds.grpcPort": ("4", 4, GLOBAL),
    "multizone.global.kds.interface": ("127.0.0.1", "127.0.0.1", GLOBAL),
    "multizone.global.kds.tlsEnabled": ("true", True, KDS_TLS),
    "multizone.global.kds.tlsCertFile": ("/a", "/a", KDS_TLS),
    "multizone.global.kds.tlsKeyFile": ("/a", "/a", KDS_TLS),
    "multizone.global.kds.unauthenticatedZones": (
        "[{name: a, cidr: 10.0.0.0/8}]",
        [{"name": "a", "cidr": "10.0.0.0/8"}],
        GLOBAL,
    ),
    "multizone.zone.name": ("zone-b", "zone-b", {}),
    "multizone.zone.globalAddress": ("grpc://h:5", "grpc://h:5", FEDERATED),
    "multizone.zone.kds.rootCaFile": ("/a", "/a", FEDERATED),
    "multizone.zone.kds.tlsSkipVerify": ("true", True, FEDERATED),
    "multizone.zone.kds.tokenFile": ("/a", "/a", FEDERATED),
    "multizone.zone.allowZonePolicies": ("true", True, FEDERATED),
    "dnsServer.domain": ("corp", "corp", {}),
    "dnsServer.CIDR": ("127.8.0.0/16", "127.8.0.0/16", {}),
    "dnsServer.serviceVipPort": ("8080", 8080, {}),
    "dnsServer.listen": ("", "", {}),
    "dnsServer.upstreams": ("10.0.0.1,10.0.0.2:54", ["10.0.0.1:53", "10.0.0.2:54"], {}),
    "dnsServer.allow": ("10.0.0.0/8,2001:db8::/32", ["10.0.0.0/8", "2001:db8::/32"], {}),
    "dnsServer.rateLimit": ("0", 0, {}),
    "dnsServer.workers": ("2", 2, {}),
    "dnsServer.resolvConf": ("/etc/upstreams.conf", "/etc/upstreams.conf", {}),
    "dnsServer.maxOutstanding": ("9", 9, UPSTREAM),
    "dnsServer.cache.maxEntries": ("0", 0, UPSTREAM),
    "dnsServer.cache.maxBytes": ("1048576", 1048576, UPSTREAM),
    "dnsServer.cache.maxTtl": ("1h", "3600s", UPSTREAM),
    "dnsServer.cache.maxNegativeTtl": ("0s", "0s", UPSTREAM),
    "dnsServer.cache.maxStale": ("7d", "604800s", UPSTREAM),
    "dnsServer.cache.prefetch": ("false", False, UPSTREAM),
    "dnsServer.tcp.maxConnections": ("9", 9, {}),
    "dnsServer.tcp.idleTimeout": ("1s", "1s", {}),
    "dnsServer.queryLog.enabled": ("true", True, {}),
    "dnsServer.queryLog.file": ("/q", "/q", LOGGED),
    "dnsServer.queryLog.oneIn": ("100", 100, LOGGED),
    "dnsServer.topNames": ("20", 20, {}),
    "dnsServer.mesh": ("blue", "blue", {}),
    "dpServer.enabled": ("false", False, {}),
    "dpServer.port": ("6", 6, {}),
    "dpServer.interface": ("127.0.0.1", "127.0.0.1", {}),
    "dpServer.tlsCertFile": ("/a", "/a", DP_TLS),
    "dpServer.tlsKeyFile": ("/a", "/a", DP_TLS),
    "dpServer.tlsMinVersion": ("TLSv1_3", "TLSv1_3", {}),
    "dpServer.readHeaderTimeout": ("2s", "2s", {}),
    "dpServer.authn.dpProxy.type": ("none", "none", {}),
    "dpServer.authn.zoneProxy.type": ("none", "none", {}),
    "dpServer.authn.enableReloadableTokens": ("true", True, {}),
    "dpServer.hds.enabled": ("false", False, {}),
    "dpServer.hds.interval": ("7s", "7s", {}),
    "dpServer.hds.checkDefaults.timeout": ("3s", "3s", {}),
    "dpServer.hds.checkDefaults.interval": ("4s", "4s", {}),
    "dpServer.hds.checkDefaults.noTrafficInterval": ("5s", "5s", {}),
    "dpServer.hds.checkDefaults.healthyThreshold": ("2", 2, {}),
    "dpServer.hds.checkDefaults.unhealthyThreshold": ("3", 3, {}),
    "bootstrapServer.params.adminAddress": ("127.0.0.2", "127.0.0.2", {}),
    "bootstrapServer.params.adminPort": ("9", 9, {}),
    "bootstrapServer.params.envoyAdminUnixSocket": ("false", False, {}),
    "bootstrapServer.params.adminAccessLogPath": ("/log", "/log", {}),
    "bootstrapServer.params.xdsHost": ("cp.example", "cp.example", {}),
    "bootstrapServer.params.xdsPort": ("7", 7, {}),
    "bootstrapServer.params.xdsConnectTimeout": ("2s", "2s", {}),
    "bootstrapServer.params.xdsGrpcMaxReceiveMessageBytes": ("8", 8, {}),
    "bootstrapServer.params.corefileTemplatePath": ("/a", "/a", {}),
    "xdsServer.dataplaneDeregistrationDelay": ("1s", "1s", {}),
    "runtime.universal.dataplaneCleanupAge": ("9s", "9s", {}),
    "runtime.universal.zoneResourceCleanupAge": ("9s", "9s", {}),
    "defaults.skipMeshCreation": ("true", True, {}),
    "logging.level": ("debug", "debug", {}),
    "logging.format": ("json", "json", {}),
    "envoy.onStop": ("keep", "keep", {"MESHD_PROXIES": "[{engine: envoy, dataplanes: {}}]"}),
    "proxies": (
        "[{resource: {type: ZoneIngress, name: i}}]",
        [
            {
                "engine": "builtin",
                "file": "",
                "resource": {"type": "ZoneIngress", "name": "i"},
                "dataplanes": None,
                "vips": False,
                "binary": "",
                "concurrency": None,
                "logLevel": None,
            }
        ],
        {},
    ),
}


def test_the_samples_are_all_settings():
    assert set(SAMPLES) == set(BY_KEY)
    assert len(BY_VARIABLE) == len(BY_KEY)


@pytest.mark.parametrize("key", sorted(SAMPLES))
def test_the_environment_overrides(tmp_path, key):
    text, expected, needs = SAMPLES[key]
    (loaded,) = load(tmp_path, "", env={**needs, BY_KEY[key].variable: text})
    value = loaded.config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    assert value == expected


def test_every_setting_is_described():
    assert [k for k, s in BY_KEY.items() if not s.description] == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [("globalAddress", "GLOBAL_ADDRESS"), ("CIDR", "CIDR"), ("serviceVipPort", "SERVICE_VIP_PORT"), ("kds", "KDS")],
)
def test_names_are_mechanical(word, expected):
    assert upper_snake(word) == expected


def test_a_relative_path_in_the_environment_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir("/usr")
    (loaded,) = load(tmp_path, "", env={"MESHD_STORE_SQLITE_PATH": "x.db"})
    assert loaded.config.sqlite_path == Path("/usr/x.db")


def test_a_broken_list_is_refused():
    with pytest.raises(ValueError, match="must be a YAML list"):
        read_value(BY_KEY["dnsServer.upstreams"], "[a, ")


def test_the_client_variables_are_no_settings(tmp_path):
    assert load(tmp_path, "", env={"MESHD_CP": "http://x", "MESHD_TOKEN": "t"})
