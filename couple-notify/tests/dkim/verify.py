"""Verifies the signatures of messages with dkimpy.

Input: {"records": {name: text of the TXT record}, "messages": [text]}; output: for each message, whether each signature is valid.
"""

import json
import sys

import dkim

case = json.load(sys.stdin)


def dns(name, timeout=5):
    record = case["records"].get(name.decode())
    return record and record.encode()


results = []
for message in case["messages"]:
    message = message.encode()
    head = message.split(b"\r\n\r\n")[0].lower()
    count = head.count(b"dkim-signature:")
    verified = []
    for index in range(count):
        try:
            verified.append(dkim.DKIM(message).verify(idx=index, dnsfunc=dns))
        except dkim.DKIMException:
            verified.append(False)
    results.append(verified)
json.dump(results, sys.stdout)
