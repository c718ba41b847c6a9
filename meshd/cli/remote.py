"""A control plane's REST API, as the commands need it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import click

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 30.0
PAGE_SIZE = 1000


class RemoteError(click.ClickException):
    """The control plane said no, or did not answer; exit code 1."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where to send requests. ``token`` is a user token, or empty. ``transport`` replaces the network in tests."""

    address: str
    token: str = ""
    transport: "httpx.BaseTransport | None" = None

    def request(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """One request.

        Raises:
            RemoteError: no answer, or an error answer; shows every violation.
        """
        import httpx  # noqa: PLC0415  # slow to import, and `meshd check` sends nothing

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        # trust_env: a proxy variable must not carry a user token to somebody else
        with httpx.Client(transport=self.transport, timeout=TIMEOUT_S, headers=headers, trust_env=False) as client:
            try:
                answer = client.request(method, self.address.rstrip("/") + path, **options)
            except httpx.InvalidURL as error:
                raise click.UsageError(f"control plane address {self.address!r}: {error}") from None
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                hint = "; --cp or MESHD_CP says where it is"
                raise RemoteError(
                    f"cannot reach the control plane at {self.address}: {reason.rstrip('.')}{hint}"
                ) from None
        if answer.is_error:
            raise RemoteError(explain(answer))
        return answer

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON at ``path``."""
        answer = self.request("GET", path, params=dict(params or {}))
        try:
            return answer.json()
        except ValueError:
            raise RemoteError(f"GET {path}: {self.address} answered something that is not JSON") from None

    def items(self, path: str) -> Iterator[Mapping[str, Any]]:
        """Every item of a list, over all its pages."""
        params = {"size": str(PAGE_SIZE)}
        while True:
            page = self.get(path, params)
            yield from page.get("items") or ()
            if not page.get("next"):
                return
            params = dict(parse_qsl(urlsplit(page["next"]).query, keep_blank_values=True))


def explain(answer: "httpx.Response") -> str:
    """An error answer in words: title, detail, and one line for every violation."""
    request = f"{answer.request.method} {answer.request.url.path}"
    try:
        error = answer.json()
        title, detail = error["title"], error.get("detail", "")
    except (ValueError, KeyError, TypeError):
        return f"{request}: {answer.status_code} {answer.reason_phrase}: {answer.text[:500]}".rstrip(": ")
    lines = [f"{request}: {title}: {detail}" if detail else f"{request}: {title}"]
    wrong = error.get("invalid_parameters") or ()
    lines += [f"  {one.get('field', '')}: {one.get('reason', '')}" for one in wrong]
    return "\n".join(lines)
