"""What `run` prints when it has started: each route with its upstream, credential and token, and a line to try."""

from ..address import Address
from .admin import describe
from .state import State


def welcome(state: State, listen: Address, required: str | None) -> str:
    """The text, for people; `required` is the header that every request must have."""
    rows = [("ROUTE", "UPSTREAM", "CREDENTIAL", "TOKEN")]
    for prefix, (path, source) in state.routes.items():
        statuses = source.statuses()
        token = describe(statuses[0]) if statuses else f"one for each {path.principal_header}"
        rows.append((prefix, str(path.route.upstream), path.route.credential, token))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = ["  ".join([*map(str.ljust, row, widths), row[3]]) for row in rows]
    return "\n".join(["", *table, "", f"Try:  {_curl(state, listen, required)}"])


def _curl(state: State, listen: Address, required: str | None) -> str:
    prefix, (path, _) = next(iter(state.routes.items()))
    header = f" -H '{path.principal_header}: USER'" if path.principal_header else ""
    header += f" -H '{required}: 1'" if required else ""
    target = prefix if prefix == "/" else f"{prefix}/"
    if listen.path is not None:
        return f"curl --unix-socket {listen.path}{header} http://localhost{target}"
    if listen.host in {"0.0.0.0", "::"}:  # noqa: S104 - these name no host to call
        listen = Address("127.0.0.1" if listen.host == "0.0.0.0" else "::1", listen.port)  # noqa: S104
    return f"curl{header} http://{listen}{target}"
