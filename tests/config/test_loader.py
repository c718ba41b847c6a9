from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.config import ConfigErrors, Engine, Mode, load_files
from meshd.config.document import parse
from meshd.config.tree import Config, Multizone
from meshd.model import labels as label
from tests.config.support import HOME, decode, load, problems

ZONE = """\
mode: zone
multizone:
  zone:
    name: zone-a
    globalAddress: grpcs://global.example:5685
    kds: {rootCaFile: ca.pem, tokenFile: ../zone.token}
store: {type: sqlite, sqlite: {path: var/zone.db}}
dnsServer: {domain: Mesh., CIDR: 127.1.0.0/16, listen: "127.0.0.1:5653", upstreams: [10.0.0.2, "10.0.0.3:54"]}
general: {drainTime: 1m30s}
"""


def test_a_zone_has_what_its_file_says(tmp_path):
    (loaded,) = load(tmp_path, ZONE)
    config = loaded.config
    assert config.mode is Mode.ZONE
    assert config.is_federated
    assert config.zone_name == "zone-a"
    assert config.dns_server.domain == "mesh"
    assert config.dns_server.upstreams == ("10.0.0.2:53", "10.0.0.3:54")
    assert config.general.drain_time.total_seconds() == 90
    assert loaded.warnings == ()


def test_relative_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (loaded,) = load(tmp_path, ZONE)
    assert loaded.config.sqlite_path == tmp_path / "var/zone.db"
    assert loaded.config.multizone.zone.kds.token_file == tmp_path.parent / "zone.token"


def test_an_empty_file_is_a_standalone_zone_with_defaults(tmp_path):
    (loaded,) = load(tmp_path, "")
    assert not loaded.config.is_global
    assert not loaded.config.is_federated
    assert loaded.config.state_dir == Path("/home/somebody/.meshd/default")
    assert loaded.config.sqlite_path == Path("/home/somebody/.meshd/default/meshd.db")


@pytest.mark.parametrize(
    ("text", "env", "assumed"),
    [
        ("", {}, ["0.yaml: mode: is not set: zone", "0.yaml: multizone.zone.name: is not set: default"]),
        ("mode: zone", {}, ["0.yaml:1: multizone.zone.name: is not set: default"]),
        ("multizone: {zone: {name: a}}", {}, ["0.yaml:1: mode: is not set: zone"]),
        ("mode: zone", {"MESHD_MULTIZONE_ZONE_NAME": "a"}, []),
        ("", {"MESHD_MODE": "zone", "MESHD_MULTIZONE_ZONE_NAME": "a"}, []),
        ("mode: global\nmultizone: {global: {kds: {tlsEnabled: false}}}", {}, []),
    ],
)
def test_who_this_is_if_nobody_said_it(tmp_path, text, env, assumed):
    (loaded,) = load(tmp_path, text, env=env)
    assert [str(p).removeprefix(f"{tmp_path}/") for p in loaded.assumed()] == assumed


def role(mode, name):
    zone = Multizone.model_validate({"zone": {"name": name}})
    return Config(mode=mode, multizone=zone).role


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", "a"),
        ("zone-a", "zone-a"),
        ("zone-zone-a", "zone-zone-a"),
        ("global", "zone-global"),
        ("zone-global", "zone-zone-global"),
        ("globe", "globe"),
        ("zone-globa", "zone-globa"),
    ],
)
def test_a_zone_is_called_by_its_name_unless_that_could_be_a_global(name, expected):
    assert role(Mode.ZONE, name) == expected


PART = st.sampled_from(["zone", "global", "a", "z"])


@given(st.lists(st.lists(PART, min_size=1, max_size=4).map("-".join), unique=True))
def test_no_two_roles_have_one_name(names):
    roles = [role(Mode.GLOBAL, "default"), *(role(Mode.ZONE, name) for name in names)]
    assert len(set(roles)) == len(roles)


def test_systemd_names_the_state_directory(tmp_path):
    (loaded,) = load(tmp_path, "mode: zone", env={"STATE_DIRECTORY": "/var/lib/meshd:/var/lib/other"})
    assert loaded.config.general.work_dir == Path("/var/lib/meshd")


def test_no_home_is_said(tmp_path):
    path = tmp_path / "zone.yaml"
    path.write_text("mode: zone")
    with pytest.raises(ConfigErrors, match=r"general\.workDir: is required: neither STATE_DIRECTORY nor HOME"):
        load_files([path], {}, decode)


LAUGHS = "a: &a [1]\n" + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in pairwise("abcdefgh"))

BROKEN = """\
mode: zoen
stoer: {}
interCp: {server: {port: 1}}
apiServer:
  http: {prot: 5, port: "80"}
  https: 7
multizone:
  zone:
    nam: x
    globalAddress: foo
    kds: {tlsSkipVerify: "yes"}
dnsServer:
  CIDR: 300.0.0.0/8
  listen: x:1
  upstreams: ["1.1.1.1", five]
  domain: "-"
  serviceVipPort: 0
general: {drainTime: -5s}
logging: {level: loud}
store: {type: postgres}
proxies: [{engine: builtin, fil: x}, 7]
"""


def test_every_error_shows_at_once_with_line_and_suggestion(tmp_path):
    assert problems(tmp_path, BROKEN, "- a list", env={"MESHD_API_SERVER_HTTP_PROT": "1"}) == [
        "0.yaml:1: mode: must be global or zone, not 'zoen'",
        "0.yaml:2: stoer: is no setting; did you mean 'store'?",
        "0.yaml:3: interCp: is a section of Kuma's that this version of meshd does not have; remove it",
        "0.yaml:5: apiServer.http.port: must be a whole number, not '80'",
        "0.yaml:5: apiServer.http.prot: is no setting; did you mean 'port'?",
        "0.yaml:6: apiServer.https: must be a mapping of settings, not 7",
        "0.yaml:9: multizone.zone.nam: is no setting; did you mean 'name'?",
        "0.yaml:10: multizone.zone.globalAddress: must be grpcs://HOST:PORT (or grpc:// without TLS), not 'foo'",
        "0.yaml:11: multizone.zone.kds.tlsSkipVerify: must be true or false, not 'yes'",
        (
            "0.yaml:13: dnsServer.CIDR: must be a CIDR such as 10.1.0.0/16, not '300.0.0.0/8' ('300.0.0.0/8' does not"
            " appear to be an IPv4 or IPv6 network)"
        ),
        "0.yaml:14: dnsServer.listen: must be an IP address to bind, such as 127.0.0.1 or 0.0.0.0, not 'x'",
        (
            "0.yaml:15: dnsServer.upstreams[1]: must be the IP address of a DNS server, such as 10.0.0.2"
            " or 10.0.0.2:53, not 'five'"
        ),
        "0.yaml:16: dnsServer.domain: must be a DNS domain such as mesh, not '-'",
        "0.yaml:17: dnsServer.serviceVipPort: must be a port number up to 65535, not 0",
        "0.yaml:18: general.drainTime: must not be negative: '-5s'",
        "0.yaml:19: logging.level: must be debug, info, warning or error, not 'loud'",
        "0.yaml:20: store.type: postgres is not available in this version of meshd; use sqlite or memory",
        "0.yaml:21: proxies[0].fil: is no setting; did you mean 'file'?",
        "0.yaml:21: proxies[1]: must be a mapping of settings, not 7",
        "1.yaml:1: must be a mapping of settings, not ['a list']",
        "environment: MESHD_API_SERVER_HTTP_PROT: names no setting; did you mean 'MESHD_API_SERVER_HTTP_PORT'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c", "0.yaml:1: cannot be read: mapping values are not allowed in this context; put the value in"),
        ("mode: zone\n multizone: {}", "0.yaml:2: cannot be read: mapping values are not allowed in this context; che"),
        ("mode: zone\n\tstore: {}", "0.yaml:2: cannot be read: found a tab character that violates indentation; use"),
        ("mode: zone\nmode: global", '0.yaml:2: cannot be read: field "mode" is there twice, first on line 1'),
        ("mode: zone\n---\nmode: global", "0.yaml: must hold one configuration, not 2 documents"),
        ("? [a]\n: 1", "0.yaml:1: cannot be read: field names must be text"),
        ("dnsServer: {listen: 5353}",
         "0.yaml:1: dnsServer.listen: must be ADDRESS:PORT, such as 127.0.0.1:5653, not 5353"),
        ("dnsServer: {listen: [a]}", "must be ADDRESS:PORT, such as 127.0.0.1:5653, not ['a']"),
        ("dnsServer: {CIDR: 5353}", "dnsServer.CIDR: must be a CIDR such as 10.1.0.0/16, not 5353 ('5353' does not"),
        ("dnsServer: {upstreams: [5353]}", "such as 10.0.0.2 or 10.0.0.2:53, not 5353"),
        ("apiServer: {http: {interface: 5353}}", "such as 127.0.0.1 or 0.0.0.0, not 5353"),
        ("mode: standalone", "0.yaml:1: mode: standalone is Kuma's old word; use mode: zone"),
        ("environment: kubernetes", "0.yaml:1: environment: must be universal, not 'kubernetes'"),
        (LAUGHS, "has more than 500000 values"),
        ("[" * 100 + "]" * 100, "is nested deeper than 64"),
        ("mode: zone\nmultizone: {global: {kds: {grpcPort: 1}}}",
         "0.yaml:2: multizone.global: is for mode: global only; this role is mode: zone; remove it"),
        ("mode: global\nmultizone: {global: {kds: {tlsEnabled: false}}}\nproxies: []",
         "0.yaml:3: proxies: is for mode: zone only"),
        ("mode: global", "0.yaml:1: multizone.global.kds.tlsEnabled: needs multizone.global.kds.tlsCertFile"),
        ("mode: global\nmultizone: {global: {kds: {tlsEnabled: false, tlsKeyFile: k}}}",
         "tlsKeyFile: does nothing while multizone.global.kds.tlsEnabled is false"),
        ("store: {type: memory, sqlite: {path: x}}", "store.sqlite.path: does nothing with store.type: memory"),
        ("apiServer: {http: {enabled: false}}", "leaves the API without a server"),
        ("apiServer: {https: {enabled: true}}", "apiServer.https.enabled: needs apiServer.https.tlsCertFile"),
        ("general: {tlsCertFile: x, tlsKeyFile: y}\ndpServer: {enabled: false}",
         "general.tlsCertFile: does nothing: no server"),
        ("general: {tlsCertFile: x}", "general.tlsCertFile: needs general.tlsCertFile and general.tlsKeyFile, a pair"),
        ("dpServer: {tlsKeyFile: x}", "dpServer.tlsKeyFile: needs dpServer.tlsCertFile and dpServer.tlsKeyFile, a"),
        ("dpServer: {enabled: false, hds: {enabled: false}}",
         "0.yaml:1: dpServer.hds.enabled: does nothing while dpServer.enabled is false; remove it"),
        ("dpServer: {enabled: false}\nbootstrapServer: {params: {xdsHost: h}}",
         "0.yaml:2: bootstrapServer.params.xdsHost: does nothing while dpServer.enabled is false"),
        ("mode: global\nmultizone: {global: {kds: {tlsEnabled: false}}}\ndpServer: {port: 1}",
         "0.yaml:3: dpServer: is for mode: zone only; this role is mode: global; remove it"),
        ("mode: global\nmultizone: {global: {kds: {tlsEnabled: false}}}\nxdsServer: {}",
         "0.yaml:3: xdsServer: is for mode: zone only"),
        ("dpServer: {authn: {dpProxy: {type: serviceAccountToken}}}",
         "serviceAccountToken is Kubernetes's, which this version of meshd does not have; use dpToken"),
        ("dpServer: {authn: {zoneProxy: {type: dpToken}}}", "must be zoneToken or none, not 'dpToken'"),
        ("dpServer: {authn: {dpProxy: {dpToken: {enableIssuer: true}}}}",
         "dpServer.authn.dpProxy.dpToken: is a setting of Kuma's that this version of meshd does not have; remove it"),
        ("dpServer: {gracefulShutdownTimeout: 1s}", "remove it (general.drainTime is for all servers)"),
        ("dpServer: {tlsMinVersion: TLSv1_1}", "TLSv1_1 is not secure and not spoken here; use TLSv1_2 or TLSv1_3"),
        ("dpServer: {hds: {checkDefaults: {healthyThreshold: 0}}}", "must be a whole number from 1 to 21474836"),
        ("bootstrapServer: {params: {xdsHost: 'h:5678'}}", "must be a host name or an IP address, without a port, not"),
        ("bootstrapServer: {params: {adminAccessLogPath: ''}}", "must be a path on the proxy's host"),
        ("xdsServer: {nackBackoff: 5s}", "is a setting of Kuma's that this version of meshd does not have"),
        ("xdsServer: {nackBackof: 5s}", "xdsServer.nackBackof: is no setting"),
        ("multizone: {zone: {kds: {tokenFile: x}}}", "tokenFile: does nothing without multizone.zone.globalAddress"),
        ("multizone: {zone: {allowZonePolicies: true}}", "does nothing in a standalone zone"),
        ("multizone: {zone: {globalAddress: 'grpc://g:1'}}", "multizone.zone.name: is required with globalAddress"),
        ("multizone: {zone: {name: a, globalAddress: 'grpc://g:1', kds: {rootCaFile: x}}}",
         "rootCaFile: does nothing with grpc://"),
        ("multizone: {zone: {name: a, globalAddress: 'grpcs://g:1', kds: {rootCaFile: x, tlsSkipVerify: true}}}",
         "tlsSkipVerify: contradicts rootCaFile"),
        ("multizone: {zone: {name: a, globalAddress: 'grpcs://me:pw@g:1'}}", "must be grpcs://HOST:PORT"),
        ("multizone: {zone: {name: Zone_A}}", "multizone.zone.name: must be a DNS label"),
        ("dnsServer: {CIDR: 127.0.0.0/16}", "dnsServer.CIDR: must not overlap 127.0.0.0/24"),
        ("dnsServer: {CIDR: 'fd00::/64'}", "dnsServer.CIDR: must be an IPv4 CIDR"),
        ("dnsServer: {workers: 65}", "dnsServer.workers: must be a whole number from 0 to 64, not 65"),
        ("dnsServer: {topNames: true}", "dnsServer.topNames: must be a whole number from 0 to 100, not True"),
        ("dnsServer: {cache: {maxEntries: 5}}", "dnsServer.cache: does nothing without dnsServer.upstreams"),
        ("dnsServer: {maxOutstanding: 5}", "dnsServer.maxOutstanding: does nothing without dnsServer.upstreams"),
        ("dnsServer: {queryLog: {file: x}}", "dnsServer.queryLog.file: does nothing while dnsServer.queryLog.enabled"),
        ("dnsServer: {listen: '0.0.0.0:53', upstreams: [127.0.0.9]}", "127.0.0.9:53 is dnsServer.listen itself"),
        ("dnsServer: {tcp: {idleTimeout: 0s}}", "dnsServer.tcp.idleTimeout: of 0s would close every connection"),
        ("multizone: {zone: {name: a, globalAddress: 'grpc://127.0.0.1:1'}}\ndefaults: {skipMeshCreation: true}",
         "defaults.skipMeshCreation: does nothing in a federated zone"),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path, text, expected):
    assert any(expected in line for line in problems(tmp_path, text)), problems(tmp_path, text)


def test_a_missing_file_is_said_beside_the_others(tmp_path):
    with pytest.raises(ConfigErrors) as caught:
        load_files([tmp_path / "none.yaml", tmp_path], HOME, decode)
    assert [p.message for p in caught.value.problems] == [
        "cannot read: Is a directory",
        "cannot read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("apiServer: {http: {interface: 0.0.0.0}}", "apiServer.http.interface"),
        ("mode: global\nmultizone: {global: {kds: {tlsEnabled: false}}}", "multizone.global.kds.tlsEnabled"),
        (("mode: global\nmultizone: {global: {kds: {tlsEnabled: false, interface: 127.0.0.1,"
         " unauthenticatedZones: [{name: legacy, cidr: 10.1.0.0/16}]}}}"),
         "multizone.global.kds.unauthenticatedZones[0]"),
        ("multizone: {zone: {name: a, globalAddress: 'grpc://g:1', kds: {tokenFile: t}}}",
         "multizone.zone.globalAddress"),
        ("multizone: {zone: {name: a, globalAddress: 'grpcs://g:1', kds: {tokenFile: t, tlsSkipVerify: true}}}",
         "multizone.zone.kds.tlsSkipVerify"),
        ("multizone: {zone: {name: a, globalAddress: 'grpcs://g:1'}}", "multizone.zone.kds.tokenFile"),
        ("proxies: [{vips: true, resource: {type: Dataplane, mesh: default, name: vm}}]", "dnsServer.CIDR"),
        ("dnsServer: {listen: '0.0.0.0:53'}", "dnsServer.listen"),
        ("dnsServer: {listen: '10.0.0.7:53', allow: [0.0.0.0/0]}", "dnsServer.allow[0]"),
        ("dnsServer: {allow: [10.0.0.0/8]}", "dnsServer.allow"),
        ("dpServer: {authn: {dpProxy: {type: none}}}", "dpServer.authn.dpProxy.type"),
        ("dpServer: {authn: {zoneProxy: {type: none}}}", "dpServer.authn.zoneProxy.type"),
    ],
)  # fmt: skip
def test_what_is_allowed_but_dangerous_is_a_warning(tmp_path, text, key):
    (loaded,) = load(tmp_path, text)
    assert [p.key for p in loaded.warnings] == [key]


def test_every_mistake_about_the_resolver_is_told_at_once(tmp_path):
    text = """\
dnsServer:
  upstreams: [10.0.0.2]
  cache: {maxEntries: -1, maxBytes: lots, maxTtl: 2d, maxNegativeTtl: 500ms, maxStale: -1s, maxentries: 3}
  tcp: {maxConnections: 0}
  queryLog: {oneIn: 0}
  maxOutstanding: 65536
"""
    assert problems(tmp_path, text) == [
        "0.yaml:3: dnsServer.cache.maxBytes: must be a whole number from 0 to 1099511627776, not 'lots'",
        "0.yaml:3: dnsServer.cache.maxEntries: must be a whole number from 0 to 10000000, not -1",
        "0.yaml:3: dnsServer.cache.maxNegativeTtl: must be whole seconds up to 86400s, such as 30s or 15m, not '500ms'",
        "0.yaml:3: dnsServer.cache.maxStale: must not be negative: '-1s'",
        "0.yaml:3: dnsServer.cache.maxTtl: must be whole seconds up to 86400s, such as 30s or 15m, not '2d'",
        "0.yaml:3: dnsServer.cache.maxentries: is no setting; did you mean 'maxEntries'?",
        "0.yaml:4: dnsServer.tcp.maxConnections: must be a whole number from 1 to 65535, not 0",
        "0.yaml:5: dnsServer.queryLog.oneIn: must be a whole number from 1 to 1000000000, not 0",
        "0.yaml:6: dnsServer.maxOutstanding: must be a whole number from 1 to 65535, not 65536",
    ]


def test_proxies_come_from_a_file_and_inline_and_carry_the_label(tmp_path):
    (tmp_path / "ingress.yaml").write_text("type: ZoneIngress\nname: in\nnetworking: {address: 127.0.0.1, port: 7}\n")
    text = """\
proxies:
  - file: ingress.yaml
  - vips: true
    resource:
      type: Dataplane
      mesh: default
      name: vm-7
      networking: {address: 127.0.0.1, gateway: {type: DELEGATED, tags: {kuma.io/service: vm-7}}}
dnsServer: {CIDR: 127.9.0.0/16}
"""
    (loaded,) = load(tmp_path, text)
    ingress, vm = loaded.proxies
    assert ingress.resource.labels[label.MANAGED_BY_FILE] == "true"
    assert list(ingress.listens()) == [("networking.port", "127.0.0.1", 7)]
    assert (ingress.source, ingress.line) == (str(tmp_path / "ingress.yaml"), 1)
    assert vm.vips
    assert vm.line == 4
    assert str(vm.resource.key) == "Dataplane default/vm-7"


def dataplane(inbound, gateway=""):
    return (
        f"proxies: [{{resource: {{type: Dataplane, mesh: default, name: d, networking:"
        f" {{address: 10.0.0.1, inbound: [{inbound}]{gateway}}}}}}}]"
    )


def envoy(text, also=""):
    return text.replace("[{resource:", f"[{{engine: envoy{also}, resource:")


@pytest.mark.parametrize(
    "text",
    [
        "proxies: [{engine: envoy, resource: {type: ZoneIngress, name: i}}]",
        "proxies: [{engine: envoy, dataplanes: {}, concurrency: 2, logLevel: debug, binary: bin/envoy}]",
        envoy(dataplane("{port: 80, servicePort: 81, tags: {kuma.io/protocol: http}}")),
        envoy(dataplane("{port: 80, servicePort: 81, protocol: grpc}")),
        envoy(dataplane("{port: 80}", ", transparentProxying: {redirectPortInbound: 15006}")),
        envoy(dataplane(""), ", vips: true") + "\ndnsServer: {CIDR: 127.9.0.0/16}",
        "envoy: {onStop: keep}\nproxies: [{engine: envoy, resource: {type: ZoneIngress, name: i}}]",
    ],
)
def test_what_an_envoy_can_carry(tmp_path, text):
    assert problems(tmp_path, text) == []


def test_the_envoy_of_an_entry_is_beside_the_file(tmp_path):
    (loaded,) = load(tmp_path, "proxies: [{engine: envoy, binary: bin/envoy, resource: {type: ZoneIngress, name: i}}]")
    assert loaded.proxies[0].engine is Engine.ENVOY
    assert loaded.proxies[0].entry.binary == tmp_path / "bin/envoy"
    assert loaded.config.runs_envoys
    assert not load(tmp_path, "")[0].config.runs_envoys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("proxies: [{concurrency: 2, dataplanes: {}}]", "proxies[0].concurrency: does nothing with engine: builtin"),
        ("proxies: [{logLevel: info, dataplanes: {}}]", "proxies[0].logLevel: does nothing with engine: builtin"),
        ("proxies: [{binary: /e, dataplanes: {}}]", "proxies[0].binary: does nothing with engine: builtin; remove it"),
        ("proxies: [{engine: envoy, concurrency: 0, dataplanes: {}}]",
         "proxies[0].concurrency: must be a number of worker threads from 1 to 1024, not 0"),
        ("proxies: [{engine: envoy, concurrency: true, dataplanes: {}}]", "1 to 1024, not True"),
        ("proxies: [{engine: envoy, logLevel: warn, dataplanes: {}}]",
         "must be trace, debug, info, warning, error, critical or off, not 'warn'"),
        ("envoy: {onStop: keep}", "0.yaml:1: envoy: does nothing without a proxy of engine: envoy; remove it"),
        ("dpServer: {enabled: false}\nproxies: [{engine: envoy, dataplanes: {}}]",
         "0.yaml:1: dpServer.enabled: false leaves the Envoys of proxies without a configuration"),
        ("envoy: {onStop: leave}\nproxies: [{engine: envoy, dataplanes: {}}]", "must be drain or keep, not 'leave'"),
        ("proxies: [{engine: envoy, dataplanes: {}, vips: true}]", "proxies[0].vips: needs one Dataplane"),
        ("proxies: [{}]", "proxies[0]: needs exactly one of file, resource and dataplanes"),
        ("proxies: [{file: x, resource: {}}]", "proxies[0]: needs exactly one of file, resource and dataplanes"),
        ("proxies: [{dataplanes: {}, resource: {}}]", "proxies[0]: needs exactly one of file, resource and dataplanes"),
        ("dnsServer: {mesh: shop}\nproxies: [{vips: true, resource: {type: Dataplane, mesh: default, name: vm}}]",
         "vips: true is for mesh 'shop', whose names this host has (dnsServer.mesh), not 'default'"),
        ("proxies: [{dataplanes: {}, vips: true}]", "proxies[0].vips: needs one Dataplane"),
        ("proxies: [{dataplanes: {nams: x}}]", "proxies[0].dataplanes.nams: is no setting; did you mean 'names'?"),
        ("proxies: [{file: none.yaml}]", "proxies[0].file: cannot read"),
        ("proxies: [{resource: {type: Mesh, name: m}}]", "resource.type: must be one of Dataplane"),
        ("proxies: [{resource: {type: ZoneIngress}}]", "proxies[0].resource.name: is required"),
        ("proxies: [{vips: true, resource: {type: ZoneIngress, name: i}}]", "must be Dataplane for a proxy with vips"),
        ("proxies:\n- resource: {type: ZoneIngress, name: i}\n- resource: {type: ZoneIngress, name: i}",
         "0.yaml:3: proxies: ZoneIngress i is also at"),
        (("proxies:\n- {vips: true, resource: {type: Dataplane, name: a, mesh: d}}\n"
         "- {vips: true, resource: {type: Dataplane, name: b, mesh: d}}"), "0.yaml:3: proxies: vips: true is already"),
        (dataplane("{port: 80, servicePort: 81, tags: {kuma.io/protocol: http}}"), "declares protocol http"),
        (dataplane("{port: 80, servicePort: 81, protocol: grpc}"), "declares protocol grpc"),
        (dataplane("{port: 80}"), "inbound[0]: would listen on 10.0.0.1:80, where its own application is"),
        (dataplane("{port: 80, servicePort: 80, serviceAddress: 10.0.0.1}"), "where its own application is"),
        (dataplane("", ", gateway: {type: BUILTIN}"), "BUILTIN is not available in this version of meshd"),
        (envoy(dataplane("", ", gateway: {type: BUILTIN}")), "BUILTIN is not available in this version of meshd"),
        (envoy(dataplane("{port: 80}")), "inbound[0]: would listen on 10.0.0.1:80, where its own application is"),
        (envoy(dataplane("", ", transparentProxying: {redirectPortInbound: 15006}"), ", vips: true"),
         "brings VIPs to Envoy without vips: true"),
    ],
)  # fmt: skip
def test_a_proxy_that_cannot_run_is_refused(tmp_path, text, expected):
    assert any(expected in line for line in problems(tmp_path, text)), problems(tmp_path, text)


def test_a_mistake_in_one_proxy_hides_nothing_of_it_or_of_the_others(tmp_path):
    text = """\
proxies:
  - {engine: envoy, fille: x}
  - {engine: builtin}
  - {engine: none, file: missing.yaml}
  - 7
  - {resource: {type: Dataplane, name: a}, vips: 1}
  - {resource: {type: Mesh, name: a}}
  - {dataplanes: {mes: x}, vips: true}
"""
    assert problems(tmp_path, text) == [
        "0.yaml:2: proxies[0].fille: is no setting; did you mean 'file'?",
        "0.yaml:3: proxies[1]: needs exactly one of file, resource and dataplanes",
        "0.yaml:4: proxies[2].engine: must be builtin or envoy, not 'none'",
        f"0.yaml:4: proxies[2].file: cannot read {tmp_path}/missing.yaml: No such file or directory",
        "0.yaml:5: proxies[3]: must be a mapping of settings, not 7",
        "0.yaml:6: proxies[4].vips: must be true or false, not 1",
        "0.yaml:7: proxies[5].resource.type: must be one of Dataplane, ZoneIngress, ZoneEgress, not Mesh",
        "0.yaml:8: proxies[6].dataplanes.mes: is no setting; did you mean 'mesh'?",
    ]


def test_a_violation_in_a_proxy_file_has_that_files_line(tmp_path):
    (tmp_path / "in.yaml").write_text("type: ZoneIngress\nname: in\nnetworking:\n  port: many\n")
    assert problems(tmp_path, "proxies: [{file: in.yaml}]") == [
        "in.yaml:4: networking.port: must be a number, not 'many'"
    ]


def test_an_error_from_the_environment_names_the_variable(tmp_path):
    env = {"MESHD_DNS_SERVER_CIDR": "127.0.0.0/8", "MESHD_API_SERVER_HTTP_PORT": "99999"}
    assert problems(tmp_path, "apiServer: {http: {port: 1}}", env=env) == [
        "environment: MESHD_API_SERVER_HTTP_PORT: (apiServer.http.port) must be a port number up to 65535, not 99999"
    ]
    del env["MESHD_API_SERVER_HTTP_PORT"]
    assert problems(tmp_path, "", env=env)[0].startswith("environment: MESHD_DNS_SERVER_CIDR: (dnsServer.CIDR) must")


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text(alphabet="ab:{}[]&*!\n -'\"?|>%#", max_size=80)))
def test_any_text_parses_or_is_a_problem(text):
    documents, problems = parse(text, "x")
    assert problems or all(d.data is not None for d in documents)
