"""uvicorn_app.py under hypercorn, whose command starts processes of its own; its API runs in the loop that there is.
Arguments: where to listen, the certificate, and its key."""

import asyncio
import contextlib
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config
from uvicorn_app import app

config = Config()
config.bind = [sys.argv[1]]
config.certfile, config.keyfile = sys.argv[2:]
with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(serve(app, config))
