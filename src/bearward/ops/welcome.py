"""What `run` prints when it has started: each route with its upstream, credential and token, and a line to try."""

from ..address import Address
from .admin import describe
from .state import State


def welcome(state: State, listen: Address) -> str:
    """The text, for people."""
    rows = [("ROUTE", "UPSTREAM", "CREDENTIAL", "TOKEN")]
    for prefix, (path, source) in state.routes.items():
        statuses = source.statuses()
        token = describe(statuses[0]) if statuses else f"one for each {path.principal_header}"
        rows.append((prefix, str(path.route.upstream), path.route.credential, token))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = ["  ".join([*map(str.ljust, row, widths), row[3]]) for row in rows]
    return "\n".join(["", *table, "", f"Try:  {_curl(state, listen)}"])


def _curl(state: State, listen: Address) -> str:
    prefix, (path, _) = next(iter(state.routes.items()))
    header = f" -H '{path.principal_header}: USER'" if path.principal_header else ""
    target = prefix if prefix == "/" else f"{prefix}/"
    if listen.path is not None:
        return f"curl --unix-socket {listen.path}{header} http://localhost{target}"
    return f"curl{header} http://{listen}{target}"
