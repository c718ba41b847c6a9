"""Which certificate authority a Mesh uses now, from the resource and what it refers to.

A Mesh names backends of type ``builtin`` (its pair is in two Secrets of the mesh) or ``provided`` (its pair comes from
data sources: a Secret, a file, or the Mesh itself), and enables one of them. Reading what a backend refers to is the
caller's: ``references`` says what, ``Materials`` carries it.

Source: reference/dataplane.md 5.1 to 5.4; Kuma ``pkg/plugins/ca`` (behaviour).
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from meshd.ca import x509
from meshd.ca.identity import TrustBundle
from meshd.kinds.mesh import CertificateAuthorityBackend, Mesh, Mode
from meshd.model.errors import InvalidError, Violation
from meshd.model.resource import Resource

BUILTIN = "builtin"
PROVIDED = "provided"
SOURCES = ("secret", "file", "inline", "inlineString")
MAX_SECRET_NAME = 255

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_PERIOD = re.compile(r"(\d{1,12})(y|w|d|h|m|s|ms)")
_SECRET_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class References:
    """What a backend refers to: names of Secrets of its mesh, and paths of files on this host."""

    secrets: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Materials:
    """What was found: the data of Secrets by name, the content of files by path (a text says why it is missing)."""

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes | str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA that signs for a mesh now. ``life`` is that of its workload certificates."""

    mesh: str
    backend: str
    mode: Mode
    pair: x509.KeyPair
    life: timedelta

    @property
    def signer(self) -> x509.Signer:
        """The CA ready to sign; checked when the authority was made, so this does not fail."""
        return x509.load_signer(self.pair)


def builtin_cert_secret(mesh: str, backend: str) -> str:
    """The name of the Secret with a builtin CA's certificate."""
    return f"{mesh}.ca-builtin-cert-{backend}"


def builtin_key_secret(mesh: str, backend: str) -> str:
    """The name of the Secret with a builtin CA's private key."""
    return f"{mesh}.ca-builtin-key-{backend}"


def references(mesh: Resource) -> References:
    """Everything that the backends of a Mesh refer to, sorted."""
    spec = spec_of(mesh)
    secrets: set[str] = set()
    files: set[str] = set()
    for backend in spec.mtls.backends:
        if backend.type == BUILTIN:
            secrets |= {
                builtin_cert_secret(mesh.key.name, backend.name),
                builtin_key_secret(mesh.key.name, backend.name),
            }
        for part in ("cert", "key") if backend.type == PROVIDED else ():
            match (backend.conf or {}).get(part):
                case {"secret": str(name)}:
                    secrets.add(name)
                case {"file": str(path)}:
                    files.add(path)
    return References(tuple(sorted(secrets)), tuple(sorted(files)))


def authority_of(mesh: Resource, materials: Materials) -> Authority | None:
    """The CA that a Mesh enables, None if it has no mTLS.

    Raises:
        InvalidError: the CA cannot be used; carries every reason.
    """
    backend = spec_of(mesh).enabled_backend()
    if backend is None:
        return None
    violations: list[Violation] = []
    pair = pair_of(mesh.key.name, backend, materials, violations)
    life = workload_life(backend, violations)
    if pair is not None and not violations:
        violations += x509.check_pair(pair)
    if pair is None or violations:
        raise InvalidError(f"mesh '{mesh.key.name}': backend '{backend.name}'", violations)
    return Authority(mesh.key.name, backend.name, backend.mode, pair, life)


def trust_of(mesh: Resource, materials: Materials) -> TrustBundle:
    """The roots of every backend that can be read, the enabled one first; empty if the Mesh has no mTLS.

    A backend beside the enabled one is trusted too, so that a mesh can move from one to the other without a gap.
    """
    spec = spec_of(mesh)
    enabled = spec.enabled_backend()
    pems: list[bytes] = []
    if enabled is not None:
        for backend in (enabled, *(b for b in spec.mtls.backends if b.name != enabled.name)):
            pair = pair_of(mesh.key.name, backend, materials, [])
            if pair is not None and not x509.check_pair(pair):
                pems.append(pair.cert_pem)
    return TrustBundle(mesh.key.name, joined(pems))


def joined(pems: list[bytes]) -> bytes:
    """PEM texts as one, each once, in order."""
    return b"".join(pem.strip() + b"\n" for pem in dict.fromkeys(pems))


def check_backends(mesh: Resource, materials: Materials) -> tuple[Violation, ...]:
    """What is wrong with the backends of a Mesh that is about to be written; none if it says ``skipValidation``.

    The pair of a builtin backend is not asked for: it is made after the Mesh is.
    """
    spec = spec_of(mesh)
    if spec.mtls.skip_validation:
        return ()
    found: list[Violation] = []
    for i, backend in enumerate(spec.mtls.backends):
        at = f"mtls.backends[{i}]"
        workload_life(backend, found, f"{at}.dpCert.rotation.expiration")
        if backend.type == BUILTIN:
            found += check_builtin(mesh.key.name, backend, at)
        elif backend.type == PROVIDED:
            problems: list[Violation] = []
            pair = pair_of(mesh.key.name, backend, materials, problems)
            if pair is not None:
                problems += x509.check_pair(pair)
            found += [Violation(f"{at}.conf.{p.field}", p.message) for p in problems]
        else:
            message = f"'{backend.type}' is no type of certificate authority; write '{BUILTIN}' or '{PROVIDED}'"
            found.append(Violation(f"{at}.type", message))
    return tuple(found)


def check_builtin(mesh: str, backend: CertificateAuthorityBackend, at: str) -> list[Violation]:
    """What is wrong with a builtin backend."""
    found: list[Violation] = []
    root_bits(backend, found, at)
    root_life(backend, found, at)
    name = builtin_cert_secret(mesh, backend.name)
    if len(name) > MAX_SECRET_NAME or not _SECRET_NAME.fullmatch(name):
        message = f"'{backend.name}' does not make a valid name of a Secret ('{name}'); use a-z, 0-9 and '-'"
        found.append(Violation(f"{at}.name", message))
    return found


def root_bits(backend: CertificateAuthorityBackend, found: list[Violation], at: str = "") -> int:
    """The key size of a builtin root; what is wrong with it is added to ``found``."""
    bits = ca_cert_conf(backend).get("RSAbits")
    if bits is None or bits == 0:
        return x509.ROOT_BITS
    if isinstance(bits, float) and bits.is_integer():  # a protobuf Struct has only doubles
        bits = int(bits)
    if isinstance(bits, bool) or not isinstance(bits, int) or not x509.MIN_ROOT_BITS <= bits <= x509.MAX_ROOT_BITS:
        message = f"is {bits!r}; write a number from {x509.MIN_ROOT_BITS} to {x509.MAX_ROOT_BITS}"
        found.append(Violation(f"{at}.conf.caCert.RSAbits", message))
        return x509.ROOT_BITS
    return bits


def root_life(backend: CertificateAuthorityBackend, found: list[Violation], at: str = "") -> timedelta:
    """How long a builtin root is valid; what is wrong with it is added to ``found``."""
    text = ca_cert_conf(backend).get("expiration")
    return period(text, x509.ROOT_LIFE, f"{at}.conf.caCert.expiration", found)


def workload_life(backend: CertificateAuthorityBackend, found: list[Violation], at: str = "") -> timedelta:
    """How long the certificates of workloads are valid; what is wrong with it is added to ``found``."""
    text = backend.dp_cert.rotation.expiration
    return period(text, x509.WORKLOAD_LIFE, at or "dpCert.rotation.expiration", found)


def ca_cert_conf(backend: CertificateAuthorityBackend) -> Mapping[str, object]:
    """``conf.caCert`` of a builtin backend, empty if there is none."""
    conf = (backend.conf or {}).get("caCert")
    return conf if isinstance(conf, dict) else {}


MIN_LIFE = timedelta(seconds=1)
MAX_LIFE = timedelta(days=36500)


def period(text: object, default: timedelta, at: str, found: list[Violation]) -> timedelta:
    """A lifetime as the Mesh writes it: one number, one unit of ``y w d h m s ms`` ("10y", "24h"); empty is default."""
    if text is None or text == "":
        return default
    match = _PERIOD.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        found.append(Violation(at, f"{text!r} is no period; write a number and one unit, such as '24h', '7d' or '10y'"))
        return default
    milliseconds = int(match[1]) * _UNIT_MS[match[2]]
    if not MIN_LIFE <= timedelta(milliseconds=min(milliseconds, 10**16)) <= MAX_LIFE:
        found.append(Violation(at, f"'{text}' is out of range; write a period from one second to 100 years"))
        return default
    return timedelta(milliseconds=milliseconds)


def pair_of(
    mesh: str, backend: CertificateAuthorityBackend, materials: Materials, found: list[Violation]
) -> x509.KeyPair | None:
    """The pair of a backend; why it cannot be read is added to ``found`` under ``cert`` and ``key``."""
    if backend.type == BUILTIN:
        parts = {
            "cert": secret(builtin_cert_secret(mesh, backend.name), mesh, materials),
            "key": secret(builtin_key_secret(mesh, backend.name), mesh, materials),
        }
    elif backend.type == PROVIDED:
        conf = backend.conf or {}
        unknown = sorted(set(conf) - {"cert", "key"})
        found += [Violation(part, "is not known; a provided CA has 'cert' and 'key'") for part in unknown]
        parts = {part: data_source(conf.get(part), mesh, materials) for part in ("cert", "key")}
    else:
        found.append(Violation("type", f"'{backend.type}' is no type of certificate authority"))
        return None
    found += [Violation(part, reason) for part, reason in parts.items() if isinstance(reason, str)]
    cert, key = parts["cert"], parts["key"]
    return x509.KeyPair(cert, key) if isinstance(cert, bytes) and isinstance(key, bytes) else None


def data_source(source: object, mesh: str, materials: Materials) -> bytes | str:
    """The data that a data source leads to, or a text that says why not."""
    if source is None:
        return f"is missing; give one of {', '.join(SOURCES)}"
    if not isinstance(source, dict) or len(source) != 1:
        return f"must have exactly one of {', '.join(SOURCES)}"
    match source:
        case {"secret": str(name)} if name:
            return secret(name, mesh, materials)
        case {"file": str(path)} if path:
            content = materials.files.get(path, "it was not read")
            return content if isinstance(content, bytes) else f"file '{path}' cannot be read: {content}"
        case {"inline": str(text)}:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                return "inline is not base64; write plain PEM as inlineString"
        case {"inlineString": str(text)}:
            return text.encode()
    kind = next(iter(source))
    return f"'{kind}' is not a non-empty text of one of {', '.join(SOURCES)}"


def secret(name: str, mesh: str, materials: Materials) -> bytes | str:
    """The data of a Secret of the mesh, or a text that says it is missing."""
    data = materials.secrets.get(name)
    return f"Secret '{name}' of mesh '{mesh}' does not exist" if data is None else data


def spec_of(mesh: Resource) -> Mesh:
    """The spec of a Mesh resource."""
    if not isinstance(mesh.spec, Mesh):
        raise TypeError(f"{mesh.key} is no Mesh")
    return mesh.spec
