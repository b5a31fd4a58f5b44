"""A tool server over the demo's report, spoken to by MCP. `make demo` runs this.

    python -m tests.demo.tool_server --port 8400

It has two tools: `list_headings` and `read_page`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal

import pypdfium2
import uvicorn
from mcp.server import MCPServer

REPORT = Path(__file__).with_name("report.pdf")
HEADING = re.compile(r"^\d+(?:\.\d+)? [A-Z].*$", re.MULTILINE)

server = MCPServer("lighthouse")


def pages() -> list[str]:
    """The text of each page."""
    with pypdfium2.PdfDocument(REPORT) as document:
        return [page.get_textpage().get_text_range().replace("\r\n", "\n") for page in document]


@server.tool()
def list_headings() -> str:
    """The headings of the lighthouse's annual report, page by page."""
    return "\n".join(
        f"Page {number}: {'; '.join(HEADING.findall(text))}"
        for number, text in enumerate(pages(), 1)
    )


@server.tool()
def read_page(page: Literal[1, 2, 3, 4]) -> str:
    """One page of the lighthouse's annual report."""
    return pages()[page - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Tools over the demo's report.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
