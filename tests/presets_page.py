"""Makes docs/presets.md from the presets' files: `make presets` writes it, and a test demands that it is so."""

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

FILES = Path(__file__).resolve().parent.parent / "src" / "bearward" / "config" / "presets"
PAGE = FILES.parents[3] / "docs" / "presets.md"
FIRST = ("acronis-connector", "acronis-account", "acceleration-cloud", "ocp", "atlas")
"""The others follow in alphabetical order."""

WIDTH = 120
_HEAD = """\
# Presets

A preset is a set of defaults for the fields of a [credential](configure.md#credential). The examples below go into one
file, merged under one `data_centers`, `credentials` and `routes`; each has the fields that cannot be left out. Where
the vendor's document leaves something open, the preset's choice is named here together with the field that changes it;
any field that is given beside `preset` wins, and `null` removes what the preset brings.

| preset | what it is for |
|---|---|
{rows}

To see one token with its lifetime and claims before anything else runs (its credential needs a route):

```console
$ bearward token atlas -c bearward.yaml
credential     atlas
token URL      https://auth.is2.app/auth/realms/acme/protocol/openid-connect/token
request        POST to the token URL
headers        Authorization: Basic *** (basic_encoding: form)
               Accept: application/json
               Content-Type: application/x-www-form-urlencoded
form           grant_type: client_credentials
answer         status 200 after 0.12 s
               Content-Type: application/json; charset=utf-8
fields         access_token: *** (180 characters)
               token_type: Bearer
               expires_in: 3600
token          1f2e3d4c (the start of its SHA-256), 180 characters
lifetime       3600 s, from expires_in
refresh        2700 to 2880 s after it was asked for
injected       Authorization: Bearer ***
header         {"alg": "HS256", "typ": "JWT"}
claims         {
  "sub": "acme",
  "iat": 1763755200,
  "exp": 1763758800,
  "jti": "0011223344556677"
}
```

The token itself is printed only with `--show`. A credential with a token for each data center is named with its
`HOST:PORT`, one with principals needs `--principal`:

```sh
bearward token acronis@eu8-cloud.acronis.com:443 -c bearward.yaml
bearward token acceleration --principal alice -c bearward.yaml
```
"""
_TAIL = """\
## Another system

Without a preset, write the [fields of a credential](configure.md#credential) yourself. For example a vendor that takes
JSON and answers with a nested token and a time in ISO 8601:

```yaml
credentials:
  other:
    token_url: https://login.example.com/v2/session
    grant_type: none
    client_auth: none
    send: json
    params:
      apiKey: {env: OTHER_API_KEY}
      scopes: [read, write]
    response:
      token: data.token
      expires: {field: data.validUntil, as: iso8601}
    inject: {header: X-Session, format: "{token}"}
routes:
  /other: {upstream: https://api.example.com, credential: other}
```
"""


def files() -> dict[str, Any]:
    """The content of each preset's file, by name, in the page's order."""
    others = sorted({file.stem for file in FILES.glob("*.yaml")} - set(FIRST))
    return {name: yaml.safe_load((FILES / f"{name}.yaml").read_text()) for name in (*FIRST, *others)}


def page() -> str:
    """The whole page."""
    all_files = files().items()
    rows = "\n".join(
        f"| [`{name}`](#{_anchor(_heading(name, file))}) | {file['description']} |" for name, file in all_files
    )
    return "\n".join([_HEAD.replace("{rows}", rows), *(_section(name, file) for name, file in all_files), _TAIL])


def _section(name: str, file: Any) -> str:
    about = file["page"]
    blocks = [f"```yaml\n{about['example']}```"]
    if "commands" in about:
        blocks.append(f"```sh\n{about['commands']}```")
    blocks += _prose("On the wire", about["wire"]) + _prose("Special", about["special"])
    if parameters := file.get("parameters"):
        blocks += _prose("Parameters", f"{'; '.join(map(_parameter, parameters.items()))}.")
    links = [f"[{document['title']}]({document['url']})" for document in about.get("documents", ())]
    if links:
        blocks.append("Documents: " + ",\n".join(links) + ".")
    return "\n\n".join([f"## {_heading(name, file)}", *blocks]) + "\n"


def _heading(name: str, file: Any) -> str:
    return f"{file['page']['title']}: `{name}`"


def _anchor(heading: str) -> str:
    """The heading as a link names it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _parameter(item: tuple[str, str | None]) -> str:
    name, default = item
    return f"`{name}`, required" if default is None else f"`{name}`, `{default}` unless given"


def _prose(label: str, text: str) -> list[str]:
    """Paragraphs at the page's width; fenced blocks as they are."""
    return [
        each if each.startswith("```") else textwrap.fill(each, WIDTH, break_long_words=False, break_on_hyphens=False)
        for each in f"{label}: {text}".strip().split("\n\n")
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
