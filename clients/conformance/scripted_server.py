"""An HTTP server with scripted faults.

It parses requests, applies the faults of a scenario, lets `CoupleLog` answer, and follows the log over WebSocket, server-sent events or long
poll. `Fault` says what goes wrong with a request, `StreamFault` what goes wrong with a live connection."""

import asyncio
import base64
import hashlib
import json
import re
import socket
import struct
import time

from couple_log import CoupleLog, Problem, Request

MAX_POLL_FRAMES = 200
DEFAULT_WAIT_SECONDS = 25.0
ALLOW_BROWSERS = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "retry-after")]


class Fault:
    """Applies once to the next request that matches, `times` times in total.

    `kind` is one of:
      answer      answer `status` with `code`, `retry_after` seconds and `body`, without handling the request
      cut_before  cut the connection before the request is handled
      cut_after   handle the request, then cut the connection without an answer
      cut_answer  handle the request, send half of the answer, then cut
      hold        handle the request, and answer when `release` is set
      delay       wait for `seconds`, then handle the request
    """

    def __init__(self, kind, method=None, path=None, times=1, live=False, **options):
        self.kind, self.method, self.path, self.times, self.live = kind, method, path, times, live
        self.status, self.code = options.get("status"), options.get("code")
        self.retry_after, self.body = options.get("retry_after"), options.get("body")
        self.seconds = options.get("seconds", 0)
        self.release, self.reached = asyncio.Event(), asyncio.Event()
        self.applied_at = []

    def matches(self, request):
        if self.times == 0 or request.is_live != self.live:
            return False
        return self.method in (None, request.method) and (self.path is None or re.search(self.path, request.path))


class StreamFault:
    """What goes wrong with one live connection."""

    def __init__(self, inject=(), duplicate=False, swap=False, cut_after_bytes=None, cut_after_entries=None,
                 one_byte_at_a_time=False, silent_after_entries=None, fragment=False):
        self.inject = list(inject)  # frames that are sent first
        self.duplicate = duplicate  # every frame of an entry is sent twice
        self.swap = swap  # two consecutive frames of entries are exchanged
        self.cut_after_bytes, self.cut_after_entries = cut_after_bytes, cut_after_entries
        self.one_byte_at_a_time = one_byte_at_a_time
        self.silent_after_entries = silent_after_entries  # the connection stays open and sends nothing more, not even a heartbeat
        self.fragment = fragment  # WebSocket: messages in fragments with pings in between; SSE: comments, CRLF, several data lines


class Cut(Exception):
    """The connection is cut."""


class ScriptedServer:
    def __init__(self):
        self.log = CoupleLog()
        self.log.on_change = self._notify
        self.faults, self.stream_faults = [], []
        self.every_stream = StreamFault()  # of connections for which `stream_faults` has none
        self.requests = []  # (time, request, status) of every request; status None: cut
        self.open_streams = {}  # connection -> queue of frames to send; None ends it
        self._writers, self._listener, self.port = set(), None, 0
        self._tasks = set()  # asyncio itself does not keep them
        self._changed = asyncio.Event()
        self.resets = 0  # sent, with a new epoch

    # -- Running ----------------------------------------------------------------------------------------------------------------------

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    def prepare(self):
        """Makes `log` usable, before clients can connect."""

    def clean(self):
        """Frees what the server has."""

    async def up(self):
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def down(self):
        """Stops as a killed process does: every connection is reset and no new one is accepted."""
        self._listener.close()
        self.cut_all()
        await asyncio.sleep(0)

    def cut_all(self):
        for writer in list(self._writers):
            reset(writer)

    def cut_streams(self):
        for writer in list(self.open_streams):
            reset(writer)

    def send_to_streams(self, frame):
        """Sends a frame to every open live connection. A `bye` ends them."""
        for queue in self.open_streams.values():
            queue.append(frame)
        self._notify()

    def add(self, kind, method=None, path=None, **options):
        fault = Fault(kind, method, path, **options)
        self.faults.append(fault)
        return fault

    def add_stream_fault(self, **options):
        self.stream_faults.append(StreamFault(**options))

    def _notify(self):
        self._changed.set()
        self._changed = asyncio.Event()

    # -- One connection ---------------------------------------------------------------------------------------------------------------

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        self._tasks.add(asyncio.current_task())
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                request = await read_request(reader)
                if request is None:
                    break
                try:
                    await self._answer(request, reader, writer)
                except Problem as problem:
                    self._note(request, problem.status)
                    await send_answer(writer, problem.status, problem_json(problem), problem_headers(problem))
                if request.is_live and request.transport != "poll":
                    break
        except (Cut, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            reset(writer)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(asyncio.current_task())
            writer.close()

    def _note(self, request, status):
        self.requests.append((time.monotonic(), request, status))

    async def _answer(self, request, reader, writer):
        if request.method == "OPTIONS":
            allow = [("access-control-allow-methods", "*"), ("access-control-allow-headers", "*, authorization")]
            return await send_answer(writer, 204, None, allow)
        fault = next((fault for fault in self.faults if fault.matches(request)), None)
        if fault:
            fault.times -= 1
            fault.reached.set()
            fault.applied_at.append(time.monotonic())
            if fault.kind == "answer":
                if request.is_live and request.transport == "sse" and fault.body is None and fault.status in (429, 503):
                    return await self._refuse_stream(request, reader, writer, fault)
                if fault.body is None:
                    raise Problem(fault.status, fault.code, fault.retry_after)
                self._note(request, fault.status)
                extra = [("content-type", "text/html")]
                if fault.retry_after is not None:
                    extra.append(("retry-after", str(fault.retry_after)))
                return await send_answer(writer, fault.status, fault.body, extra)
            if fault.kind == "cut_before":
                self._note(request, None)
                raise Cut
            if fault.kind == "delay":
                await asyncio.sleep(fault.seconds)
        if request.is_live:
            return await self._follow(request, reader, writer)
        status, body, headers = await self.handle(request)
        self._note(request, status)
        if fault and fault.kind == "cut_after":
            raise Cut
        if fault and fault.kind == "hold":
            await fault.release.wait()
        cut = fault is not None and fault.kind == "cut_answer"
        await send_answer(writer, status, body, headers, cut)
        if cut:
            raise Cut

    async def handle(self, request):
        """Status, body and headers of the answer to a request that is not live."""
        status, answer = self.log.handle(request)
        return status, None if answer is None else json.dumps(answer, ensure_ascii=False).encode(), ()

    def next_stream_fault(self):
        return self.stream_faults.pop(0) if self.stream_faults else self.every_stream

    # -- Live -------------------------------------------------------------------------------------------------------------------------

    async def _follow(self, request, reader, writer):
        self.log.authenticate(request)
        if not self.log.paired:
            raise Problem(404, "not_paired")
        after = request.headers.get("last-event-id") or request.query.get("lastEventId") or request.query.get("after")
        position = self.log.head if after is None else self.log.position(after)
        fault = self.next_stream_fault()
        self._note(request, 101 if request.transport == "websocket" else 200)
        pending = list(fault.inject)
        if position is None:
            position = self.log.head
            self.resets += 1
            pending.append({"type": "reset", "reason": "cursor_unknown", "cursor": self.log.cursor(position)})
        kinds = {"websocket": WebSocketOut, "sse": EventStreamOut, "poll": PollOut}
        out = kinds[request.transport](request, reader, writer, fault)
        await out.begin()
        queue = self.open_streams[writer] = pending
        watch = asyncio.ensure_future(out.until_closed())
        try:
            await self._send_frames(request, out, fault, queue, position, watch)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            del self.open_streams[writer]

    async def _refuse_stream(self, request, reader, writer, fault):
        """An event stream that cannot be served now is answered with 200 and one `bye`."""
        self._note(request, fault.status)
        out = EventStreamOut(request, reader, writer, StreamFault())
        await out.begin()
        await out.end({"type": "bye", "reason": fault.code, "retry_after_ms": 1000 * (fault.retry_after or 1)}, None)

    async def _send_frames(self, request, out, fault, queue, position, watch):
        log, sent_entries, caught_up, last_sent = self.log, 0, False, time.monotonic()
        heartbeat = float(request.query.get("heartbeat", 0)) or None
        deadline = time.monotonic() + float(request.query.get("wait", DEFAULT_WAIT_SECONDS))
        epoch = (log.couple_number, log.epoch)
        while not watch.done():
            if request.token() not in log.tokens:
                return await out.end({"type": "bye", "reason": "signed_out", "retry_after_ms": 0}, log.cursor(position))
            if epoch != (log.couple_number, log.epoch):
                raise Cut
            changed = self._changed  # taken before the log is looked at: a later change sets it
            if fault.silent_after_entries is not None and sent_entries >= fault.silent_after_entries:
                await asyncio.wait([watch])
                break
            if queue:
                frame = queue.pop(0)
                if frame["type"] == "bye":
                    return await out.end(frame, log.cursor(position))
                await out.send(frame, frame.get("cursor"))
                if frame["type"] == "reset" and request.transport == "poll":
                    break
            elif position < log.head:
                seqs = [position + 1]
                if fault.swap and position + 2 <= log.head:
                    seqs = [position + 2, position + 1]
                for seq in seqs:
                    frame = {"type": "entry", "entry": log.view(log.entries[seq - 1]), "cursor": log.cursor(seq)}
                    for _ in range(2 if fault.duplicate else 1):
                        await out.send(frame, frame["cursor"])
                    sent_entries += 1
                    if fault.cut_after_entries == sent_entries:
                        raise Cut
                position = max(seqs)
                if request.transport == "poll" and (caught_up or out.count >= MAX_POLL_FRAMES):
                    break
            elif not caught_up:
                caught_up = True
                if request.transport != "poll":
                    await out.send({"type": "caught_up", "cursor": log.cursor(position)}, log.cursor(position))
                elif out.count:
                    break
            else:
                now, until = time.monotonic(), None
                if request.transport == "poll":
                    until = deadline
                elif heartbeat:
                    until = last_sent + heartbeat
                if until is not None and now >= until:
                    if request.transport == "poll":
                        break
                    await out.send({"type": "ping"}, None)
                    last_sent = time.monotonic()
                    continue
                waiting = asyncio.ensure_future(changed.wait())
                timeout = None if until is None else until - now
                await asyncio.wait([waiting, watch], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                continue
            last_sent = time.monotonic()
        if watch.done():
            raise Cut
        await out.end(None, log.cursor(position))


class Out:
    """Encodes frames for one transport."""

    def __init__(self, request, reader, writer, fault):
        self.request, self.reader, self.writer, self.fault = request, reader, writer, fault
        self.bytes_left, self.count = fault.cut_after_bytes, 0

    async def begin(self):
        pass

    async def until_closed(self):
        """Returns when the connection is closed. Nothing is read here: the next bytes on a poll's connection are another request."""
        while not self.reader.at_eof() and not self.writer.transport.is_closing():
            await asyncio.sleep(0.05)

    async def write(self, data):
        """Sends bytes, and cuts the connection at the byte that the fault says."""
        if self.bytes_left is not None:
            data, cut = data[: self.bytes_left], len(data) >= self.bytes_left
            self.bytes_left -= len(data)
            self.writer.write(data)
            await self.writer.drain()
            if cut:
                # Closed and not reset: the client receives the bytes before the cut.
                self.writer.close()
                raise Cut
            return
        if not self.fault.one_byte_at_a_time:
            self.writer.write(data)
            return await self.writer.drain()
        for n in range(len(data)):
            if self.writer.transport.is_closing():
                raise Cut
            self.writer.write(data[n : n + 1])
            await asyncio.sleep(0)


class PollOut(Out):
    def __init__(self, *args):
        super().__init__(*args)
        self.frames = []

    async def send(self, frame, _cursor):
        self.frames.append(frame)
        self.count += 1

    async def end(self, frame, cursor):
        if frame:
            self.frames.append(frame)
        body = json.dumps({"frames": self.frames, "cursor": cursor}, ensure_ascii=False).encode()
        await self.write(answer_bytes(200, body))


class EventStreamOut(Out):
    async def begin(self):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\nconnection: close\r\n"
        head += b"access-control-allow-origin: *\r\ntransfer-encoding: chunked\r\n\r\n"
        self.writer.write(head)
        await self.chunk(b": open\n\n")

    async def until_closed(self):
        while await self.reader.read(1024):
            pass

    async def chunk(self, data):
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def send(self, frame, cursor):
        data = json.dumps(frame, ensure_ascii=False)
        lines = ["retry: 100"] if self.count == 0 else []
        if cursor:
            lines.append("id: " + cursor)
        self.count += 1
        if self.fault.fragment:
            # All of this means the same (WHATWG HTML, 9.2.6). JSON may be split where a line end is white space.
            first, rest = data[0], data[1:]
            lines = [": comment"] + lines + ["event: message", "data:" + first, "data: " + rest]
            return await self.chunk(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self.chunk(("\n".join(lines + ["data: " + data]) + "\n\n").encode())

    async def end(self, frame, _cursor):
        if frame:
            retry = "retry: %d\n" % max(frame["retry_after_ms"], 100)
            await self.chunk(("%sdata: %s\n\n" % (retry, json.dumps(frame))).encode())
        await self.write(b"0\r\n\r\n")


class WebSocketOut(Out):
    CODES = {"signed_out": 1008, "not_paired": 1008, "draining": 1012, "unavailable": 1013}

    async def begin(self):
        key = self.request.headers.get("sec-websocket-key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        offered = [name.strip() for name in self.request.headers.get("sec-websocket-protocol", "").split(",")]
        protocol = "sec-websocket-protocol: couple\r\n" if "couple" in offered else ""
        head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        self.writer.write((head + "sec-websocket-accept: %s\r\n%s\r\n" % (accept, protocol)).encode())

    async def until_closed(self):
        """Reads messages of the client and answers its pings."""
        while True:
            first, length = await self.reader.readexactly(2)
            length &= 127
            if length == 126:
                length = struct.unpack(">H", await self.reader.readexactly(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", await self.reader.readexactly(8))[0]
            mask = await self.reader.readexactly(4)
            data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(await self.reader.readexactly(length)))
            opcode = first & 15
            if opcode == 8:
                self.writer.write(ws_frame(8, data))
                return
            silent = self.fault.silent_after_entries is not None and self.count >= self.fault.silent_after_entries
            if opcode == 9 and not silent:
                self.writer.write(ws_frame(10, data))
            if opcode == 1 and not silent and json.loads(data).get("type") == "ping":
                self.writer.write(ws_frame(1, b'{"type":"pong"}'))

    async def send(self, frame, _cursor):
        data = json.dumps(frame, ensure_ascii=False).encode()
        if frame["type"] == "entry":
            self.count += 1
        if self.fault.fragment and len(data) > 2:
            half = len(data) // 2
            data = ws_frame(1, data[:half], final=False) + ws_frame(9, b"are you there?") + ws_frame(0, data[half:])
            return await self.write(data)
        await self.write(ws_frame(1, data))

    async def end(self, frame, _cursor):
        if frame:
            await self.send(frame, None)
        code = self.CODES.get(frame["reason"] if frame else "", 1000)
        await self.write(ws_frame(8, struct.pack(">H", code)))
        await asyncio.sleep(0.2)


def ws_frame(opcode, data, final=True):
    """A frame of a server (RFC 6455, 5.2)."""
    head = bytes([(128 if final else 0) | opcode])
    if len(data) < 126:
        head += bytes([len(data)])
    elif len(data) < 1 << 16:
        head += struct.pack(">BH", 126, len(data))
    else:
        head += struct.pack(">BQ", 127, len(data))
    return head + data


def reset(writer):
    """Closes a connection so that the client sees a reset and not an orderly end."""
    try:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    writer.transport.abort()


async def read_request(reader):
    """The next request of a connection; None when the client has closed it."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    line, *fields = head[:-4].split("\r\n")
    method, target, _version = line.split(" ", 2)
    headers = {}
    for field in fields:
        name, _, value = field.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            body += (await reader.readexactly(size + 2))[:-2]
            if size == 0:
                break
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


def problem_json(problem):
    return json.dumps({"type": "urn:couple:problem:" + problem.code, "title": problem.code, "status": problem.status,
                       "code": problem.code}).encode()


def problem_headers(problem):
    headers = [("content-type", "application/problem+json")]
    if problem.retry_after is not None:
        headers.append(("retry-after", str(problem.retry_after)))
    if problem.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    return headers


def answer_bytes(status, body, headers=()):
    lines = ["HTTP/1.1 %d X" % status]
    names = {name for name, _ in headers}
    headers = list(headers) + [header for header in ALLOW_BROWSERS if header[0] not in names]
    if body is not None and "content-type" not in names:
        lines.append("content-type: application/json")
    if status != 204:
        lines.append("content-length: %d" % len(body or b""))
    lines += ["%s: %s" % header for header in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


async def send_answer(writer, status, body, headers=(), cut=False):
    data = answer_bytes(status, body, headers)
    writer.write(data[: len(data) - max(len(body or b"") // 2, 1)] if cut else data)
    await writer.drain()
    if cut:
        # Closed and not reset: the client receives the first half.
        writer.close()
