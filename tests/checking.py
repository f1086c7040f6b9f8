"""Config files as tests write them, and what `bearward check` says of them."""

from pathlib import Path

from click.testing import CliRunner

from bearward.cli import main
from bearward.config import Settings, load
from bearward.tokens.credential import TokenEndpoint

SECRET = "hunter2"  # stands in every field that may hold one, and must never be printed
CREDENTIAL = f"token_url: https://idp.example/token, client_id: id, client_secret: {SECRET}"
ROUTES = "routes: {/x: {upstream: https://x.example, credential: a}}\n"
CREDENTIALS = f"credentials: {{a: {{{CREDENTIAL}}}}}\n"


def of_credential(fields: str) -> str:
    """A file whose one credential has these fields."""
    return f"credentials: {{a: {{{fields}}}}}\n" + ROUTES


def lacking(fields: str) -> str:
    """The same, where the credential itself is to be pointed at."""
    return of_credential(fields).replace("a:", "§a:", 1)


def more(fields: str) -> str:
    """A file whose one credential has the usual fields, and these."""
    return of_credential(f"{CREDENTIAL}, {fields}")


def check(path: Path, text: str | bytes) -> tuple[int, str]:
    """The exit code and all output of `bearward check`."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert SECRET not in result.output
    return result.exit_code, result.output


def assert_fault(path: Path, text: str, said: str) -> None:
    """`bearward check` points at the place after § in the text, and says this of it in plain words."""
    before, mark, after = text.partition("§")
    assert mark
    code, output = check(path, before + after)
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    headlines = [line for line in output.splitlines() if line.startswith(str(path))]
    assert code == 78
    assert any(one.startswith(f"{path}:{line}:{column}: ") and said in one for one in headlines), output
    assert "Input should" not in output
    assert "value_error" not in output


def loaded(file: Path, text: str) -> Settings:
    """The settings of a file without faults."""
    file.write_text(text)
    return load(file)


def endpoint(settings: Settings) -> TokenEndpoint:
    """Where the tokens of the one credential come from."""
    source = settings.credentials["a"].source
    assert isinstance(source, TokenEndpoint)
    return source
