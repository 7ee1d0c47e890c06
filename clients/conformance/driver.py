"""Runs one client as a child process and compares its log with the server's. README.md describes the protocol."""

import asyncio
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter


# Sent with `start`, so that a scenario takes seconds: a client may otherwise wait for longer between attempts.
HINTS = {"heartbeat_s": 5, "poll_wait_s": 2, "max_backoff_ms": 200}
SYSTEM_KINDS = ("paired", "restored", "profile_changed", "couple_changed", "entry_edited", "entry_deleted", "entry_reacted",
                "media_ready", "media_rejected")


class Failed(Exception):
    """The client did not do what the scenario demands."""


class ShownTwice(Failed):
    """The client showed an entry twice, which is wrong at every moment."""


class ClientProcess:
    def __init__(self, command, stderr):
        self.command, self.stderr = command, stderr
        self.events, self.process, self._answers, self._next = [], None, {}, 0
        self._news = asyncio.Event()

    async def launch(self):
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=self.stderr, limit=1 << 26)
        self._reading = asyncio.ensure_future(self._read())
        return await self.event("ready")

    async def _read(self):
        while True:
            line = await self.process.stdout.readline()
            if not line:
                break
            try:
                message = json.loads(line)
            except ValueError:
                message = {"event": "invalid", "line": line.decode(errors="replace")}
            if "event" in message:
                self.events.append(message)
            elif message.get("id") in self._answers:
                self._answers.pop(message["id"]).set_result(message)
            self._notify()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Failed("the client process ended"))

    def _notify(self):
        self._news.set()
        self._news = asyncio.Event()

    async def call(self, do, **fields):
        """Sends a command and returns its answer."""
        self._next += 1
        number = self._next
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        # A command that is cancelled by a kill has no reader for its exception.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.process.stdin.write(json.dumps(dict(fields, id=number, do=do)).encode() + b"\n")
        try:
            reply = await asyncio.wait_for(asyncio.shield(answer), 30)
        except asyncio.TimeoutError:
            raise Failed("no answer to the command `%s` within 30 s" % do)
        if "error" in reply:
            raise Failed("the command `%s` was answered with the error %s" % (do, reply["error"]))
        return reply

    async def event(self, name, seconds=20, **fields):
        """Waits for an event that has these fields."""
        until = time.monotonic() + seconds
        while True:
            news = self._news
            for event in self.events:
                if event["event"] == name and all(event.get(field) == value for field, value in fields.items()):
                    return event
            left = until - time.monotonic()
            if left <= 0 or self.process.returncode is not None:
                raise Failed("no event `%s` %s within %d s" % (name, fields or "", seconds))
            try:
                await asyncio.wait_for(news.wait(), min(left, 0.5))
            except asyncio.TimeoutError:
                pass

    async def kill(self):
        if self.process and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
            await self._reading


class Trial:
    """One run of a scenario: a server, a client, and what the client was told to write."""

    def __init__(self, command, transport, seed, patience, server):
        self.command, self.transport, self.patience = command, transport, patience
        self.random = random.Random(seed)
        self.folder = tempfile.mkdtemp(prefix="couple-conformance-")
        self.stderr = open(os.path.join(self.folder, "stderr"), "wb")
        self.server = server
        self.token, self.told, self.rejected, self.ready = None, [], set(), None
        self.client, self.partners = None, 0

    @property
    def log(self):
        return self.server.log

    async def begin(self, start=True):
        self.partner("the first entry")  # so that `caught_up` waits for something
        self.token = self.log.new_session()
        await self.server.up()
        await self.launch(start)

    async def launch(self, start=True):
        self.client = ClientProcess(self.command, self.stderr)
        self.ready = await self.client.launch()
        if start:
            await self.start()

    async def start(self):
        os.makedirs(self.store, exist_ok=True)
        await self.client.call("start", url=self.server.url, token=self.token, account_id=self.log.account, store=self.store,
                               transport=self.transport, **HINTS)

    @property
    def store(self):
        return os.path.join(self.folder, "store")

    async def restart_client(self):
        """Kills the client with SIGKILL and starts it again with the same store."""
        await self.client.kill()
        await self.launch()

    async def end(self):
        if self.client:
            await self.client.kill()
        await self.server.down()
        self.server.clean()
        self.stderr.close()
        with open(self.stderr.name, errors="replace") as file:
            errors = file.read()
        shutil.rmtree(self.folder, ignore_errors=True)
        return errors

    # -- What scenarios do ------------------------------------------------------------------------------------------------------------

    async def append(self, text=None, kind="text", body=None):
        """Tells the client to append an entry; returns its `client_id` once the client has stored it."""
        client_id = "c-%d" % (len(self.told) + 1)
        body = {"text": text or client_id} if body is None else body
        self.told.append((client_id, kind, body))
        await self.client.call("append", client_id=client_id, kind=kind, body=body)
        return client_id

    async def append_many(self, count):
        for _ in range(count):
            await self.append()

    async def append_stored(self, count):
        """Appends entries and waits until the client has nothing in its queue; returns their `client_id`s."""
        ids = [await self.append() for _ in range(count)]
        await self.caught_up()
        return ids

    def forget(self):
        """The entries so far belong to a former couple."""
        self.rejected |= {client_id for client_id, _, _ in self.told}

    def partner(self, text=None):
        self.partners += 1
        return self.log.append("partner", None, "text", {"text": text or "p-%d" % self.partners})["seq"]

    async def sign_in(self):
        self.token = self.log.new_session()
        await self.client.call("sign_in", token=self.token)

    def seq_of(self, client_id):
        return self.log.seqs[client_id]

    async def until(self, condition, what, seconds=20):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise Failed("after %d s: %s" % (seconds, what))
            await asyncio.sleep(0.01)

    async def until_stored(self, client_id):
        await self.until(lambda: client_id in self.log.seqs, "entry %s did not reach the server" % client_id)

    async def until_live(self, count=1):
        await self.until(lambda: len(self.server.open_streams) >= count, "there is no live connection")

    def requests(self, live=None, write=None, since=0):
        return [(at, request, status) for at, request, status in self.server.requests
                if at >= since and live in (None, request.is_live) and write in (None, request.is_write)]

    async def sent(self, seconds=120):
        """Waits until the queue is empty."""
        until = time.monotonic() + seconds
        while True:
            queued = (await self.client.call("status"))["queued"]
            if queued == 0:
                return
            require(time.monotonic() < until, "after %d s: %d entries and changes are in the queue" % (seconds, queued))
            await asyncio.sleep(0.02)

    async def caught_up(self, seconds=None):
        """Waits until the queue is empty and the client shows the server's log: nothing lost, doubled or reordered."""
        seconds = seconds or self.patience
        until, pause = time.monotonic() + seconds, 0.02
        while True:
            try:
                queued = (await self.client.call("status"))["queued"]
                require(queued == 0, "%d entries and changes are in the queue" % queued)
                entries, pending = await self.shown()
                require(not pending, "the queue is empty, but these are shown as pending: %s" % shorten(pending))
                return self.require_same(entries)
            except Failed as failed:
                if time.monotonic() > until or isinstance(failed, ShownTwice):
                    raise Failed("after %d s: %s" % (seconds, failed))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def shown(self):
        """Entries and pending entries that the client shows now; fails if an own entry is shown twice or not at all."""
        answer = await self.client.call("log")
        entries, pending = answer["entries"], answer["pending"]
        counts = Counter([entry["client_id"] for entry in entries if entry.get("client_id")] + pending)
        twice = [client_id for client_id, count in counts.items() if count > 1]
        if twice:
            raise ShownTwice("shown twice: %s" % shorten(twice))
        hidden = [client_id for client_id, _, _ in self.told if client_id not in self.rejected and client_id not in counts]
        require(not hidden, "neither in the log nor pending: %s" % shorten(hidden))
        return entries, pending

    async def converge(self, seconds=None):
        """`caught_up`, and the server has each entry of the client once, in the order of writing."""
        await self.caught_up(seconds)
        if self.log.violations:
            raise Failed("; ".join(self.log.violations))
        self.require_writes()

    def require_same(self, entries):
        seqs = [entry["seq"] for entry in entries]
        if seqs != sorted(set(seqs)):
            raise Failed("the log is not in `seq` order, or has a `seq` twice: %s" % shorten(seqs))
        have = {entry["seq"]: entry for entry in entries}
        for stored in self.log.entries:
            entry = have.pop(stored["seq"], None)
            if entry is None:
                if stored["kind"] in SYSTEM_KINDS:
                    continue  # a client may leave them out
                raise Failed("lost: seq %d, %s" % (stored["seq"], shorten(stored["body"])))
            for field, wanted in comparable(stored).items():
                shown = entry.get(field)
                if field == "reactions":
                    shown = {who: emoji for who, emoji in (shown or {}).items() if emoji is not None}
                if shown != wanted:
                    raise Failed("seq %d has %s %s instead of %s" % (stored["seq"], field, shorten(shown), shorten(wanted)))
        if have:
            raise Failed("not in the server's log: seq %s" % shorten(sorted(have)))

    def require_writes(self):
        wanted = [client_id for client_id, _, _ in self.told if client_id not in self.rejected]
        own = {client_id for client_id, _, _ in self.told}
        stored = [entry["client_id"] for entry in self.log.entries if entry.get("client_id") in own]
        if stored != wanted:
            missing = [one for one in wanted if one not in stored]
            raise Failed("the server stored %s instead of %s%s"
                         % (shorten(stored), shorten(wanted), "; missing %s" % shorten(missing) if missing else ""))


def comparable(stored):
    """Fields of an entry that a client must show."""
    return {"author": stored["author"], "client_id": stored.get("client_id"), "kind": stored["kind"], "body": stored["body"],
            "deleted": "deleted_at" in stored, "reactions": stored["reactions"]}


def shorten(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 200 else text[:200] + "…"


def require(condition, message):
    if not condition:
        raise Failed(message)
