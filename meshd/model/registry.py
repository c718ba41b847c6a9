"""The set of kinds a process knows: immutable, built once by ``meshd.app``, contradictions refused at start."""

from collections.abc import Iterable, Iterator

from meshd.model.resource_type import Flow, ResourceType, Scope


class Registry:
    """Finds a ``ResourceType`` by kind or by REST path. Iterates in order of kind."""

    def __init__(self, types: Iterable[ResourceType]) -> None:
        self._by_kind: dict[str, ResourceType] = {}
        by_path: dict[str, ResourceType] = {}
        problems: list[str] = []
        shorts: dict[str, str] = {}
        for type_ in sorted(types, key=lambda t: t.kind):
            if type_.kind in self._by_kind:
                problems.append(f"kind {type_.kind} is declared twice")
            self._by_kind[type_.kind] = type_
            for path in (type_.path, *type_.aliases):
                if path and path in by_path:
                    problems.append(f"path {path} is claimed by {by_path[path].kind} and {type_.kind}")
                if path:
                    by_path[path] = type_
            if type_.short and type_.short in shorts:
                problems.append(f"short name {type_.short} is claimed by {shorts[type_.short]} and {type_.kind}")
            shorts[type_.short] = type_.kind
            problems += contradictions(type_)
        if problems:
            raise ValueError("registry: " + "; ".join(problems))

    def __getitem__(self, kind: str) -> ResourceType:
        return self._by_kind[kind]

    def __contains__(self, kind: str) -> bool:
        return kind in self._by_kind

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(self._by_kind.values())

    def get(self, kind: str) -> ResourceType | None:
        """The type of that kind, or None."""
        return self._by_kind.get(kind)

    def flowing(self, flow: Flow) -> tuple[ResourceType, ...]:
        """Every type that has all the bits of ``flow``."""
        return tuple(t for t in self if flow in t.flow)

    def table(self) -> str:
        """The whole registry as one aligned text table; the golden file of it shows a new kind as one new line."""
        rows = [("kind", "path", "short", "scope", "encoding", "flow", "flags")]
        for t in self:
            flags = [
                w
                for w, on in (
                    ("policy", t.is_policy),
                    ("read-only", t.read_only),
                    ("admin", t.admin_only),
                )
                if on
            ]
            bits = ",".join(f.name.lower() for f in Flow if f in t.flow and f.name) or "-"
            encoding = "protobuf" if t.message else "json"
            rows.append(
                (
                    t.kind,
                    t.path or "-",
                    t.short or "-",
                    t.scope.value,
                    encoding,
                    bits,
                    ",".join(flags) or "-",
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return (
            "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows) + "\n"
        )


def contradictions(type_: ResourceType) -> list[str]:
    """What a type declares that cannot be true together."""
    problems = []
    if Flow.ACROSS_ZONES in type_.flow and Flow.ZONE_TO_GLOBAL not in type_.flow:
        problems.append(f"{type_.kind} travels across zones but not from a zone to the global")
    if Flow.ZONE_TO_GLOBAL in type_.flow and Flow.ZONE_LOCAL not in type_.flow:
        problems.append(f"{type_.kind} is sent by zones but zones may not own any")
    if type_.is_policy and type_.scope is not Scope.MESH:
        problems.append(f"policy {type_.kind} must belong to a mesh")
    return problems
