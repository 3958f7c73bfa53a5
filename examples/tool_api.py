"""Look something up at a tool API. In this folder: `fleet up -d`, `python tool_api.py`.

`fleet.toml` names the function, `function = "tool_api:look_up"`, and the API, `[tools.stock]`. All workers keep to its
limits together. This file stands in for the API as well: it serves one on port 8199 while it waits for its result.
"""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer


async def look_up(task, bot):
    """Answer with what the API says."""
    async with bot.tool_client("stock") as stock:
        found = await stock.get("/items", params={"name": task.prompt})
        found.raise_for_status()
    return found.text


class Stock(BaseHTTPRequestHandler):
    """An API of one item."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"7 lamps")

    def log_message(self, *_):
        """Say nothing."""


if __name__ == "__main__":
    from fleet import submit_task

    server = HTTPServer(("127.0.0.1", 8199), Stock)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    result = submit_task.delay("lamp", pool="lookup").get(timeout=60)
    print(result.answer, result.status)
    server.shutdown()
