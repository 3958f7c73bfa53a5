"""The two tools of `library.py` as a server of the Model Context Protocol, which `mcp_bot.py` starts."""

import library
from mcp.server import MCPServer

server = MCPServer("library")
server.add_tool(library.search)
server.add_tool(library.read)

if __name__ == "__main__":
    server.run("stdio")
