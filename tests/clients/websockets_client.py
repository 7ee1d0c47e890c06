"""PyPI `websockets`: reconnects with the cursor of the last frame that it received."""

import json
import sys
import time

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

base, token = sys.argv[1:]
cursor = "0"
while True:
    url = f"{base.replace('http', 'ws')}/v1/couple/live?after={cursor}"
    try:
        with connect(url, additional_headers={"authorization": f"Bearer {token}"}, close_timeout=1) as socket:
            for text in socket:
                frame = json.loads(text)
                if frame["type"] == "entry":
                    print(frame["entry"]["seq"], frame["entry"]["body"]["text"], flush=True)
                cursor = frame.get("cursor", cursor)
    except (ConnectionClosed, InvalidHandshake, OSError, EOFError):
        pass
    time.sleep(0.05)
