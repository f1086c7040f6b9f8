"""The only code that runs a program of the operator's: `source: exec`."""

import asyncio
import contextlib
import json
import os
import signal
from typing import Final

from .credential import Command
from .failure import Reason, TokenRequestError

MAX_OUTPUT_BYTES: Final = 1 << 20

_EXEC_INFO = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "kind": "ExecCredential",
    "spec": {"interactive": False},
}


async def run(command: Command, timeout: float, *, shows_stderr: bool = False) -> bytes:  # noqa: ASYNC109 - of one run
    """What the program prints. It and all that it began are killed after `timeout` seconds, or when nobody waits.

    Its standard error may hold anything: it is not read, and goes nowhere unless a person is there to see it. Raises
    `TokenRequestError`.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if shows_stderr else asyncio.subprocess.DEVNULL,
            cwd=command.folder,
            env=os.environ | {"KUBERNETES_EXEC_INFO": json.dumps(_EXEC_INFO)},
            start_new_session=True,
        )
    except OSError as error:
        raise _failed(f"the command cannot be run: {error.strerror}", sent=False) from None
    try:
        async with asyncio.timeout(timeout):
            output = await _output(process)
            status = await process.wait()
    except TimeoutError:
        raise _failed(f"the command did not end within {timeout:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process._transport.close()  # type: ignore[attr-defined]  # what left the group may hold the pipe open
        await asyncio.shield(process.wait())
    if status != 0:
        raise _failed(f"the command ended with status {status}; run it by hand to see why")
    return output


async def _output(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    output = bytearray()
    while chunk := await process.stdout.read(1 << 16):
        output += chunk
        if len(output) > MAX_OUTPUT_BYTES:
            raise _failed("the command prints more than 1 MiB")
    return bytes(output)


def _failed(detail: str, *, sent: bool = True) -> TokenRequestError:
    return TokenRequestError(Reason.COMMAND_FAILED, detail, sent=sent)
