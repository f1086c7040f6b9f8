"""What every error of bearward's own must look like."""

import json

from harness import Answer
from wire import Message

_FIELDS = {"type", "title", "status", "detail", "code"}


def assert_problem(answer: Answer | Message, status: int, code: str) -> None:
    """`answer` is the RFC 9457 problem with this status and code."""
    if isinstance(answer, Message):
        one = {name.lower().decode(): value.decode("latin-1") for name, value in answer.fields}
    else:
        one = {name.lower(): value for name, value in answer.headers.items()}
    assert (answer.status, one.get("bearward-error")) == (status, code), f"{answer.status} {answer.body[:400]!r}"
    assert one["content-type"] == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem.keys() >= _FIELDS, f"a field is missing: {problem}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert all(problem[text] and isinstance(problem[text], str) for text in ("type", "title", "detail"))
    if status == 503:
        assert int(one["retry-after"]) >= 1, "every 503 says when to come back"
