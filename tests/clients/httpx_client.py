"""PyPI `httpx-sse`: reconnects with the last event's id."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

base, token = sys.argv[1:]
last = ""
while True:
    headers = {"authorization": f"Bearer {token}", "last-event-id": last}
    try:
        with httpx.Client(timeout=httpx.Timeout(5, read=60)) as client:
            with connect_sse(client, "GET", f"{base}/v1/couple/live?after=0", headers=headers) as source:
                for event in source.iter_sse():
                    frame = json.loads(event.data)
                    if frame["type"] == "entry":
                        print(frame["entry"]["seq"], frame["entry"]["body"]["text"], flush=True)
                    last = event.id or last
    except httpx.TransportError:
        pass
    time.sleep(0.05)
