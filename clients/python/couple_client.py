"""A complete client of a couple's log in one file, with the standard library of Python 3.9 only. It is documentation: read it beside
docs/http.md before you write a client in another language. It passes clients/conformance.

    client = CoupleClient("store", "https://api.example.org", token, on_event)
    client.append("text", {"text": "hello"})     # stored first, then sent, also after a crash; sent once, in order
    client.entries(), client.pending()           # what the app shows
    # on_event("signed_out"): call sign_in with a new token; on_event("rejected", client_id=…, code=…): tell the user

One thread follows the log by long polls from a cursor, one sends the queue. Log, cursor and queue are one SQLite file, and every step
commits once: a process that is killed at any moment continues where it was."""

import http.client
import json
import os
import random
import socket
import sqlite3
import threading
import uuid
from urllib.parse import urlsplit

SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (seq INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY AUTOINCREMENT, client_id TEXT, method TEXT, path TEXT, body TEXT, couple TEXT,
    seq INTEGER);
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT)"""


class SignedOut(Exception):
    """The token is not valid any more."""


class TryLater(Exception):
    """Temporarily refused, for at least so many seconds."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds


class Refused(Exception):
    """Refused for good: the same request would be refused again."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class CoupleClient:
    def __init__(self, folder, url, token, on_event=lambda name, **fields: None, max_backoff=30.0, poll_wait=25):
        self.url, self.token, self.on_event, self.max_backoff, self.poll_wait = urlsplit(url), token, on_event, max_backoff, poll_wait
        self.db = sqlite3.connect(os.path.join(folder, "couple.db"), check_same_thread=False, isolation_level=None)
        self.db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)
        self.change = threading.Condition(threading.RLock())  # guards the database and these three
        self.online, self.poll, self.wakes = True, None, 0
        for loop in (self.follow, self.send):
            threading.Thread(target=self.run, args=(loop,), daemon=True).start()

    # -- What an app calls -------------------------------------------------------------------------------------------------------------

    def append(self, kind, body, client_id=None):
        client_id = client_id or str(uuid.uuid4())
        self.enqueue("POST", "/v1/couple/entries", {"client_id": client_id, "kind": kind, "body": body}, client_id)

    def edit(self, seq, body):
        self.enqueue("PATCH", "/v1/couple/entries/%d" % seq, {"body": body})

    def delete(self, seq):
        self.enqueue("DELETE", "/v1/couple/entries/%d" % seq)

    def react(self, seq, emoji):
        self.enqueue("PUT" if emoji else "DELETE", "/v1/couple/entries/%d/reaction" % seq, {"emoji": emoji} if emoji else None)

    def entries(self):
        with self.change:
            return [json.loads(text) for (text,) in self.db.execute("SELECT json FROM entry ORDER BY seq")]

    def pending(self):
        """Entries that are not in the log yet, in order: an app shows them below the log."""
        with self.change:
            return [json.loads(text) for (text,) in self.db.execute("SELECT body FROM queue WHERE client_id IS NOT NULL ORDER BY id")]

    def set_online(self, online):
        with self.change:
            self.online = online
            self.wake()

    def sign_in(self, token):
        with self.change:
            self.token = token
            self.wake()

    # -- Store -------------------------------------------------------------------------------------------------------------------------

    def get(self, name, default=None):
        row = self.db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return row[0] if row else default

    def put(self, name, value):
        self.db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def last_seq(self):
        return self.db.execute("SELECT coalesce(max(seq), 0) FROM entry").fetchone()[0]

    def enqueue(self, method, path, body=None, client_id=None):
        """Stores a write. It is for the couple of now: the server refuses it if the account is in another one when it arrives."""
        with self.change:
            self.db.execute("INSERT INTO queue (client_id, method, path, body, couple) VALUES (?, ?, ?, ?, ?)",
                            (client_id, method, path, json.dumps(body) if body else None, self.get("couple")))
            self.change.notify_all()

    # -- Following the log -------------------------------------------------------------------------------------------------------------

    def follow(self):
        with self.change:
            couple, cursor = self.get("couple"), self.get("cursor", "0")
        if couple is None:
            couple = self.request("GET", "/v1/couple")["id"]
            with self.change:
                self.put("couple", couple)
                self.change.notify_all()
        answer = self.request("GET", "/v1/couple/live?after=%s&wait=%d" % (cursor, self.poll_wait), live=True)
        with self.change, self.db:  # one transaction
            self.db.execute("BEGIN")
            for frame in answer["frames"]:
                if frame["type"] == "reset":
                    # The log is another one: read all of it again. An entry that the lost part had is sent again.
                    self.db.execute("DELETE FROM entry")
                    self.db.execute("DELETE FROM setting")
                    self.db.execute("UPDATE queue SET seq = NULL")
                    return
            entries = [frame["entry"] for frame in answer["frames"] if frame["type"] == "entry"]
            complete = all([self.apply(entry) for entry in sorted(entries, key=lambda entry: entry["seq"])])
            # The log has no gaps. If one appears here, frames were lost: continue from the last entry before it.
            self.put("cursor", answer["cursor"] if complete else str(self.last_seq()))
        for frame in answer["frames"]:
            if frame["type"] == "bye":
                if frame["reason"] == "signed_out":
                    raise SignedOut()
                raise TryLater(float("inf") if frame["reason"] == "not_paired" else frame["retry_after_ms"] / 1000)

    def apply(self, entry):
        """Stores an entry; returns false if entries before it are missing."""
        last, target = self.last_seq(), entry.pop("target", None)
        if entry["seq"] > last + 1:
            return False
        if entry["seq"] == last + 1:  # otherwise it is repeated
            self.db.execute("INSERT INTO entry VALUES (?, ?)", (entry["seq"], json.dumps(entry)))
            if target:  # the entry reports a change of an earlier one, and has its new state
                self.db.execute("UPDATE entry SET json = ? WHERE seq = ?", (json.dumps(target), target["seq"]))
            self.db.execute("DELETE FROM queue WHERE client_id = ?", (entry.get("client_id"),))
        return True

    # -- Sending the queue -------------------------------------------------------------------------------------------------------------

    def send(self):
        with self.change:
            columns, current = "id, client_id, method, path, body, couple", self.get("couple")
            row = self.db.execute("SELECT %s FROM queue WHERE seq IS NULL ORDER BY id LIMIT 1" % columns).fetchone()
            if row is None or current is None:
                self.change.wait(1)
                return
        number, client_id, method, path, body, couple = row
        # A change names only the `seq` of an entry, which another couple has, too: the server refuses a write for another couple.
        headers, answer = {"Couple-Id": couple or current}, None
        if client_id:
            headers["Idempotency-Key"] = client_id
        try:
            answer = self.request(method, path, body, headers)
        except Refused as refused:
            if not (method == "DELETE" and refused.code == "entry_deleted"):  # otherwise the first attempt had succeeded
                self.on_event("rejected", client_id=client_id, code=refused.code)
        with self.change:
            if client_id and answer and answer["seq"] > self.last_seq():
                # Stays in the queue until its frame arrives, so that the app always shows it once.
                self.db.execute("UPDATE queue SET seq = ? WHERE id = ?", (answer["seq"], number))
            else:
                self.db.execute("DELETE FROM queue WHERE id = ?", (number,))

    # -- Requests and attempts ---------------------------------------------------------------------------------------------------------

    def request(self, method, path, body=None, headers=None, live=False):
        token, kind = self.token, http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.netloc, timeout=self.poll_wait + 5 if live else 30)
        try:
            connection.connect()
            if live:
                self.poll = connection.sock
            fields = dict(headers or {}, Authorization="Bearer %s" % token)
            if body:
                fields["Content-Type"] = "application/json"
            connection.request(method, self.url.path.rstrip("/") + path, body, fields)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status < 300:
            # An answer that was cut, even in its head, is not JSON: it is asked for again.
            return None if response.status == 204 else json.loads(text)
        if response.status == 401:
            raise SignedOut()
        if response.status in (408, 423, 429) or response.status >= 500:
            raise TryLater(float(response.headers.get("Retry-After", 0)))
        raise Refused(json.loads(text)["code"])

    def run(self, step):
        """Repeats a step for ever. After a failure it waits, longer each time, and with jitter so that clients do not come together."""
        failures = 0
        while True:
            with self.change:
                token = self.token
                if not self.online or token is None:
                    self.change.wait()
                    continue
            try:
                step()
                failures = 0
            except SignedOut:
                with self.change:
                    if self.token == token:  # otherwise the app has signed in again meanwhile
                        self.token = None
                        self.on_event("signed_out")
            except (TryLater, Refused, OSError, http.client.HTTPException, ValueError) as failure:
                failures = min(failures + 1, 10)
                backoff = min(self.max_backoff, 0.05 * 2 ** failures) * random.uniform(0.5, 1)
                self.sleep(max(backoff, failure.seconds if isinstance(failure, TryLater) else 0))

    def sleep(self, seconds):
        """Waits, but no longer than until the app goes online or signs in."""
        with self.change:
            wakes = self.wakes
            self.change.wait_for(lambda: self.wakes != wakes, min(seconds, threading.TIMEOUT_MAX))

    def wake(self):
        self.wakes += 1
        self.change.notify_all()
        if self.poll:
            try:
                self.poll.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended
