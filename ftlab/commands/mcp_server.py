"""`ftlab mcp`: the same verbs for agents, by the Model Context Protocol over stdio."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ftlab.errors import FtlabError, InputError
from ftlab.options import Allow, Results, Uri
from ftlab.visible import beneath

INSTRUCTIONS = ("ftlab compares ways of fine-tuning: a study file names backbones, data sets, techniques and seeds. "
                "list shows what may be named; check a study, run it, follow status. Choose by validation: each "
                "finished study whose verdicts or table you read is a question to the test split, and makes the "
                "next verdicts harder to reach.")


def mcp(
    folder: Annotated[
        Path, typer.Option("--folder", file_okay=False, exists=True, help="working folder; nothing is written outside")
    ] = Path(),
    tracking_uri: Uri = None,
    results: Results = Path("results"),
    allow: Allow = None,
) -> None:
    """Serve agents over stdio (Model Context Protocol): list, check, run, status, verdicts, table, costs.

    The test split stays shut until a study is finished; then each question to it is counted.
    """
    try:
        from mcp.server import MCPServer
    except ImportError as error:
        raise InputError("ftlab mcp needs the package mcp", 'pip install "ftlab[mcp]"') from error
    from ftlab.commands.agent_tools import Tools

    tools = Tools(folder, results, tracking_uri, allow or ())
    server = MCPServer("ftlab", instructions=INSTRUCTIONS, log_level="WARNING")
    for name, method in inspect.getmembers(tools, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            server.tool(name.rstrip("_"), description=inspect.getdoc(method))(_told(method))
    sys.stdout = beneath(sys.stdout)  # of which the protocol takes the bytes; all else it sends to stderr
    try:
        server.run("stdio")
    finally:
        tools.close()


def _told(method: Callable[..., Awaitable[dict[str, Any]]]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The tool with its errors as answers."""
    from ftlab.commands.agent_tools import answered

    @functools.wraps(method)
    async def tool(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await method(*args, **kwargs)
        except FtlabError as error:
            return answered(error)

    return tool
