"""Lets clients/conformance drive couple_client.py: commands as JSON lines on stdin, answers and events on stdout."""

import json
import sys
import threading

from couple_client import CoupleClient

lock = threading.Lock()


def say(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def show(entry):
    return {"seq": entry["seq"], "author": entry["author"], "client_id": entry.get("client_id"), "kind": entry["kind"],
            "body": entry["body"], "deleted": "deleted_at" in entry, "reactions": entry["reactions"]}


def obey(client, command):
    do = command["do"]
    if do == "append":
        client.append(command["kind"], command["body"], command["client_id"])
    elif do == "edit":
        client.edit(command["seq"], command["body"])
    elif do == "delete":
        client.delete(command["seq"])
    elif do == "react":
        client.react(command["seq"], command["emoji"])
    elif do in ("offline", "online"):
        client.set_online(do == "online")
    elif do == "sign_in":
        client.sign_in(command["token"])
    elif do == "status":
        with client.change:
            return {"queued": client.db.execute("SELECT count(*) FROM queue").fetchone()[0]}
    elif do == "log":
        with client.change:
            entries, pending = client.entries(), client.pending()
        return {"entries": [show(entry) for entry in entries], "pending": [entry["client_id"] for entry in pending]}
    elif do != "transport":  # there is only one
        raise ValueError("unknown command " + do)
    return {}


def main():
    say({"event": "ready", "client": "couple_client.py", "transports": ["poll"],
         "supports": ["edit", "delete", "react", "offline_changes", "heartbeat"]})
    client = None
    for line in sys.stdin:
        command = json.loads(line)
        answer = {}
        if command["do"] == "start":
            client = CoupleClient(command["store"], command["url"], command["token"], lambda name, **fields: say(dict(fields, event=name)),
                                  command["max_backoff_ms"] / 1000, command["poll_wait_s"])
        else:
            answer = obey(client, command)
        say(dict(answer, id=command["id"], ok=True))


main()
