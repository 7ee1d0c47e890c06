"""A real server behind a proxy with the faults of the scripted one, for `run --server PATH`.

Requests are forwarded one by one and live connections byte by byte; `down` kills the server with SIGKILL. Each trial has a process of its own,
with a copy of a folder in which two people are paired."""

import asyncio
import glob
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from couple_log import Problem
from scripted_server import Cut, ScriptedServer, reset

PASSWORD = "conformance of many clients"
ME, PARTNER = "me@example.org", "partner@example.org"
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "host")


class Process:
    """A server process. Calls wait for their answer: they are few, and do not go through the proxy."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.process = binary, folder, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self):
        settings = {"COUPLE_LISTEN": "127.0.0.1:%d" % self.port, "COUPLE_LIMITS": "off", "COUPLE_STOP_DELAY": "0", "COUPLE_CORS_ORIGINS": "*",
                    "RUST_LOG": "error"}
        self.process = subprocess.Popen([self.binary], cwd=self.folder, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while True:
            try:
                return self.call("GET", "/readyz")
            except (OSError, Problem):
                if time.monotonic() > until or self.process.poll() is not None:
                    raise RuntimeError("%s does not start" % self.binary)
                time.sleep(0.02)

    def stop(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait()

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def call(self, method, path, token=None, body=None):
        """Sends a request, and repeats it for a minute while the server is too busy for it."""
        until = time.monotonic() + 60
        while True:
            try:
                return self.call_once(method, path, token, body)
            except Problem as problem:
                if problem.status != 503 or time.monotonic() > until:
                    raise
            time.sleep(0.5)

    def call_once(self, method, path, token, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token:
            headers["Authorization"] = "Bearer " + token
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise Problem(response.status, json.loads(text)["code"] if text else "")
        return json.loads(text) if text.startswith(b"{") else None


def pair(binary):
    """A folder with the data of a server on which two people are paired."""
    folder = tempfile.mkdtemp(prefix="couple-conformance-")
    server = Process(binary, folder)
    server.start()
    tokens = []
    for email, name in ((ME, "Me"), (PARTNER, "Partner")):
        server.call("POST", "/v1/accounts", None, {"email": email, "display_name": name})
        code = mailed_code(folder, email)
        signed = server.call("POST", "/v1/accounts/verify", None, {"email": email, "code": code, "password": PASSWORD})
        tokens.append(signed["session"]["token"])
    invite = server.call("POST", "/v1/invites", tokens[0], {})
    server.call("POST", "/v1/invites/accept", tokens[1], {"code": invite["code"]})
    server.stop(signal.SIGTERM)
    return folder


def mailed_code(folder, email):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for path in glob.glob(os.path.join(folder, "couple-data", "mail", "*.eml")):
            with open(path) as file:
                mail = file.read()
            code = re.search(r"^    (\d{3} ?\d{3})\s*$", mail, re.MULTILINE)
            if re.search("^To: .*" + re.escape(email), mail, re.MULTILINE) and code:
                return code.group(1)
        time.sleep(0.05)
    raise RuntimeError("no mail with a code for " + email)


class RemoteLog:
    """The log of the real server, with the methods of `CoupleLog` that scenarios use. Writes made while it is down follow when it is up."""

    violations = ()

    def __init__(self, process):
        self.process, self.delayed, self.sessions = process, [], []
        self.seqs_so_far, self.seen, self.last_known = {}, 0, []

    def prepare(self):
        self.watching, self.writing = self.sign_in(ME), self.sign_in(PARTNER)
        self.account = self.process.call("GET", "/v1/me", self.watching)["id"]

    def sign_in(self, email):
        return self.process.call("POST", "/v1/sessions", None, {"email": email, "password": PASSWORD})["session"]["token"]

    def new_session(self):
        self.sessions.append(self.sign_in(ME))
        return self.sessions[-1]

    def end_sessions(self):
        for token in self.sessions:
            self.write("DELETE", "/v1/sessions/current", token)
        self.sessions = []

    def write(self, *request):
        if self.process.is_running:
            return self.process.call(*request)
        self.delayed.append(request)
        return {"seq": None}

    def write_delayed(self):
        for request in self.delayed:
            self.process.call(*request)
        self.delayed = []

    def token_of(self, author):
        return self.writing if author == "partner" else self.watching

    def append(self, author, client_id, kind, body):
        client_id = client_id or "x-%d" % time.monotonic_ns()
        return self.write("POST", "/v1/couple/entries", self.token_of(author), {"client_id": client_id, "kind": kind, "body": body})

    def edit(self, author, seq, body):
        self.write("PATCH", "/v1/couple/entries/%d" % seq, self.token_of(author), {"body": body})

    def delete(self, author, seq):
        self.write("DELETE", "/v1/couple/entries/%d" % seq, self.token_of(author))

    def react(self, author, seq, emoji):
        method, body = ("PUT", {"emoji": emoji}) if emoji else ("DELETE", None)
        self.write(method, "/v1/couple/entries/%d/reaction" % seq, self.token_of(author), body)

    def other_couple(self):
        """The partner leaves, and the same two people become another couple, with an empty log."""
        self.process.call("DELETE", "/v1/couple", self.writing)
        invite = self.process.call("POST", "/v1/invites", self.writing, {})
        self.process.call("POST", "/v1/invites/accept", self.watching, {"code": invite["code"]})
        self.seqs_so_far, self.seen = {}, 0

    def find(self, seq):
        return self.process.call("GET", "/v1/couple/entries/%d" % seq, self.watching)

    def after(self, seq):
        entries = []
        while seq is not None:
            page = self.process.call("GET", "/v1/couple/entries?limit=200&after=%d" % seq, self.watching)
            entries, seq = entries + page["entries"], page["next"]
        return entries

    @property
    def entries(self):
        if self.process.is_running:
            self.last_known = self.after(0)
        return self.last_known

    @property
    def seqs(self):
        for entry in self.after(self.seen) if self.process.is_running else ():
            self.seen = entry["seq"]
            if entry.get("client_id"):
                self.seqs_so_far[entry["client_id"]] = entry["seq"]
        return self.seqs_so_far


class RealServer(ScriptedServer):
    def __init__(self, binary, paired):
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="couple-conformance-")
        shutil.copytree(os.path.join(paired, "couple-data"), os.path.join(self.folder, "couple-data"))
        self.process = Process(binary, self.folder)
        self.log = RemoteLog(self.process)

    def prepare(self):
        self.process.start()
        self.log.prepare()

    async def up(self):
        if not self.process.is_running:
            self.process.start()
            self.log.write_delayed()
        await super().up()

    async def down(self):
        await super().down()
        self.process.stop()

    def clean(self):
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def open(self, request):
        """Sends a request to the server, and returns the connection with the answer."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.process.port, limit=1 << 24)
        except OSError:
            raise Cut
        headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
        headers["host"] = "127.0.0.1:%d" % self.process.port
        headers["connection"] = "Upgrade" if request.transport == "websocket" else "close"
        if request.body or request.is_write:
            headers["content-length"] = len(request.body)
        lines = ["%s %s HTTP/1.1" % (request.method, request.target)] + ["%s: %s" % header for header in headers.items()]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body)
        return reader, writer

    async def handle(self, request):
        reader, writer = await self.open(request)
        try:
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        except OSError:
            raise Cut
        finally:
            writer.close()
        if not head:
            raise Cut  # the server was killed
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        status = int(line.split(" ")[1])
        if ("transfer-encoding", "chunked") in headers:
            body = unchunked(body)
        return status, None if status == 204 else body, [header for header in headers if header[0] not in HOP_BY_HOP]

    async def _follow(self, request, reader, writer):
        upstream, to_server = await self.open(request)
        fault = self.next_stream_fault()
        self._note(request, 101 if request.transport == "websocket" else 200)
        self.open_streams[writer] = []
        copies = [asyncio.ensure_future(copy(upstream, writer, fault)), asyncio.ensure_future(copy(reader, to_server, None))]
        try:
            done, _ = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in copies:
                task.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            del self.open_streams[writer]
            reset(to_server)


async def copy(reader, writer, fault):
    """Copies bytes until the end, or until the fault cuts the connection."""
    left = fault.cut_after_bytes if fault else None
    while True:
        data = await reader.read(1 if fault and fault.one_byte_at_a_time else 65536)
        if not data:
            return
        if left is not None:
            data, left = data[:left], left - len(data)
        writer.write(data)
        await writer.drain()
        if left is not None and left <= 0:
            writer.close()
            raise Cut


def unchunked(data):
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body
