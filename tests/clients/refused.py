"""Large bodies that the server refuses before it has read them: http.client, which sends the whole body first, receives the response."""

import http.client
import json
import sys
from urllib.parse import urlsplit

base, token = sys.argv[1:]
requests = [
    ("/v1/media?purpose=photo", {}),
    ("/v1/accounts", {"content-type": "application/json"}),
    ("/v1/media?purpose=cake", {"authorization": f"Bearer {token}"}),
]
for _ in range(5):
    for path, headers in requests:
        connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=20)
        connection.request("POST", path, body=bytes(14 << 20), headers=headers)
        answer = connection.getresponse()
        print(answer.status, json.loads(answer.read())["code"])
        connection.close()
