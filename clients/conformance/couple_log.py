"""The log of one couple, in memory, with the rules of the real server that a client can observe.

The client under test signs in as "me"; the driver writes as "partner". `handle` answers one request of the HTTP API. See docs/http.md and
the OpenAPI document of the server for the contract."""

import json
import re
from urllib.parse import parse_qs, urlsplit

SYSTEM_KINDS = {"edit": "entry_edited", "delete": "entry_deleted", "react": "entry_reacted"}
KIND = re.compile(r"text|photo|hug|kiss|mood|place|doodle|x-[a-z0-9._-]{1,30}")
ACCOUNT = "00000000-0000-7000-8000-00000000000a"
SINCE = "2026-01-01T00:00:00.000000Z"
MAX_BODY_BYTES = 16 * 1024


class Problem(Exception):
    """An answer with an error status and a `code` (RFC 9457)."""

    def __init__(self, status, code, retry_after=None):
        super().__init__(code)
        self.status, self.code, self.retry_after = status, code, retry_after


class CoupleLog:
    account = ACCOUNT

    def __init__(self):
        self.tokens, self.sessions = set(), 0
        self.couple_number, self.paired = 1, True
        self.epoch = 0
        self.ticks = 0
        self.entries = []
        self.seqs = {}  # client_id -> seq
        self.keys = {}  # Idempotency-Key -> body of its first request
        self.violations = []  # what the client did although the contract forbids it
        self.on_change = lambda: None
        self.append("system", None, "paired", None)

    def now(self):
        """A time after every earlier one."""
        self.ticks += 1
        return "2026-01-01T00:%02d:%02d.%06dZ" % (self.ticks // 60_000_000, self.ticks // 1_000_000 % 60, self.ticks % 1_000_000)

    # -- State ------------------------------------------------------------------------------------------------------------------------

    @property
    def head(self):
        return len(self.entries)

    @property
    def couple_id(self):
        return "00000000-0000-7000-8000-%012x" % self.couple_number

    def cursor(self, seq):
        return "%08x.%d.%d.0.0" % (self.couple_number, self.epoch, seq)

    def position(self, cursor):
        """`seq` of a cursor; None if the cursor belongs to another log, which is answered with `reset`."""
        match = re.fullmatch(r"(?:([0-9a-f]{8})\.(\d+)\.)?(\d+)(?:\.\d+\.\d+)?", cursor)
        if not match:
            raise Problem(422, "invalid_field")
        couple, epoch, seq = match.groups()
        known = couple is None or (int(couple, 16), int(epoch)) == (self.couple_number, self.epoch)
        return int(seq) if known and int(seq) <= self.head else None

    def view(self, entry):
        """An entry as an answer or frame contains it, with the current state of its target."""
        if "target_seq" not in entry:
            return entry
        return dict(entry, target=self.entries[entry["target_seq"] - 1])

    def new_session(self):
        """Token of a new session of the account."""
        self.sessions += 1
        self.tokens.add("token-%d" % self.sessions)
        return "token-%d" % self.sessions

    def end_sessions(self):
        self.tokens.clear()
        self.on_change()

    def restored_from_backup(self, kept):
        """The log loses its newest entries, as after a restore; every cursor becomes unknown."""
        self.epoch += 1
        del self.entries[kept:]
        self.seqs = {client_id: seq for client_id, seq in self.seqs.items() if seq <= kept}
        # The records of answers are restored, too.
        self.keys = {}
        self.on_change()

    def other_couple(self):
        """The account is now in another couple, with an empty log."""
        self.couple_number, self.paired = self.couple_number + 1, True
        self.entries, self.seqs = [], {}
        self.append("system", None, "paired", None)

    # -- Writes -----------------------------------------------------------------------------------------------------------------------

    def append(self, author, client_id, kind, body, target=None):
        entry = {"seq": self.head + 1, "author": author, "kind": kind, "body": body, "created_at": self.now(), "reactions": {}}
        if client_id is not None and author == "me":
            entry["client_id"] = client_id
            self.seqs[client_id] = entry["seq"]
        if target is not None:
            entry["target_seq"] = target
        self.entries.append(entry)
        self.on_change()
        return entry

    def find(self, seq):
        if not 1 <= seq <= self.head:
            raise Problem(404, "entry_not_found")
        return self.entries[seq - 1]

    def _change(self, author, seq, change, **fields):
        # An entry is replaced and not modified: frames that were sent before keep their state.
        self.entries[seq - 1] = dict(self.entries[seq - 1], **fields)
        self.append(author, None, SYSTEM_KINDS[change], None, target=seq)
        return self.entries[seq - 1]

    def _own(self, author, seq):
        entry = self.find(seq)
        if entry["author"] != author or not KIND.fullmatch(entry["kind"]):
            raise Problem(403, "not_author")
        if "deleted_at" in entry:
            raise Problem(410, "entry_deleted")
        return entry

    def edit(self, author, seq, body):
        entry = self._own(author, seq)
        self._check(entry["kind"], body)
        return self._change(author, seq, "edit", body=body, edited_at=self.now())

    def delete(self, author, seq):
        self._own(author, seq)
        return self._change(author, seq, "delete", body=None, deleted_at=self.now(), reactions={})

    def react(self, author, seq, emoji):
        entry = self.find(seq)
        if not KIND.fullmatch(entry["kind"]):
            raise Problem(404, "entry_not_found")
        if "deleted_at" in entry:
            raise Problem(410, "entry_deleted")
        reactions = {who: e for who, e in entry["reactions"].items() if who != author}
        if emoji is not None:
            reactions[author] = emoji
        return entry if reactions == entry["reactions"] else self._change(author, seq, "react", reactions=reactions)

    def _check(self, kind, body):
        text = body.get("text") if isinstance(body, dict) else None
        if not KIND.fullmatch(kind) or not isinstance(body, dict):
            raise Problem(422, "invalid_field")
        if kind == "text" and (not isinstance(text, str) or not text.strip()):
            raise Problem(422, "invalid_field")
        if len(json.dumps(body, ensure_ascii=False).encode()) > MAX_BODY_BYTES:
            raise Problem(422, "invalid_field")

    def _append_once(self, request, sent):
        """Appends for the client: a repeated `client_id` or `Idempotency-Key` returns the existing entry."""
        client_id, kind, body = sent["client_id"], sent["kind"], sent["body"]
        key = request.headers.get("idempotency-key")
        if not re.fullmatch(r"[!-~]{1,64}", client_id):
            raise Problem(422, "invalid_field")
        self._check(kind, body)
        if key is not None and self.keys.setdefault(key, request.body) != request.body:
            self.violations.append("Idempotency-Key %s was used for two different requests" % key)
            raise Problem(422, "idempotency_key_reused")
        if client_id in self.seqs:
            entry = self.entries[self.seqs[client_id] - 1]
            touched = "edited_at" in entry or "deleted_at" in entry
            if not touched and (entry["kind"], entry["body"]) != (kind, body):
                self.violations.append("client_id %s was used for two different entries" % client_id)
                raise Problem(422, "idempotency_key_reused")
            return 200, entry
        return 201, self.append("me", client_id, kind, body)

    # -- HTTP -------------------------------------------------------------------------------------------------------------------------

    def authenticate(self, request):
        token = request.token()
        if token not in self.tokens:
            raise Problem(401, "unauthenticated")

    def handle(self, request):
        """Status and JSON of the answer; None instead of JSON for an empty body."""
        self.authenticate(request)
        if not self.paired and request.path.startswith("/v1/couple"):
            raise Problem(404, "not_paired")
        if request.is_write and request.headers.get("couple-id", self.couple_id) != self.couple_id:
            raise Problem(404, "not_paired")
        entry = re.fullmatch(r"/v1/couple/entries/(\d+)(/reaction)?", request.path)
        route = "%s %s" % (request.method, re.sub(r"\d+", "N", request.path[3:]) if entry else request.path[3:])
        seq = int(entry.group(1)) if entry else 0
        if route == "GET /me":
            return 200, {"id": ACCOUNT, "email": "me@example.org", "display_name": "Me", "locale": None,
                         "time_zone": None, "birthday": None, "has_password": False, "created_at": SINCE, "deletion_due": None,
                         "avatar": None}
        if route == "GET /couple":
            me = {"id": ACCOUNT, "display_name": "Me", "avatar": None}
            partner = {"id": "00000000-0000-7000-8000-00000000000b", "display_name": "Partner", "avatar": None, "presence": "away"}
            return 200, {"id": self.couple_id, "since": SINCE, "title": None, "anniversary": None, "me": me, "partner": partner,
                         "head_seq": self.head, "my_read_seq": 0, "partner_read_seq": 0, "unread": 0, "previous": None}
        if route == "GET /couple/entries":
            return 200, self._page(request.query)
        if route == "POST /couple/entries":
            status, stored = self._append_once(request, request.json())
            return status, self.view(stored)
        if route == "GET /couple/entries/N":
            return 200, self.find(seq)
        if route == "PATCH /couple/entries/N":
            return 200, self.edit("me", seq, request.json()["body"])
        if route == "DELETE /couple/entries/N":
            self.delete("me", seq)
            return 204, None
        if route == "PUT /couple/entries/N/reaction":
            return 200, self.react("me", seq, request.json()["emoji"])
        if route == "DELETE /couple/entries/N/reaction":
            self.react("me", seq, None)
            return 204, None
        if route == "PUT /couple/read":
            return 204, None
        if route == "POST /couple/signals":
            return 202, None
        raise Problem(404, "not_found")

    def _page(self, query):
        after, before, limit = query.get("after"), query.get("before"), int(query.get("limit", 50))
        if not 1 <= limit <= 200:
            raise Problem(422, "invalid_field")
        kept = [e for e in self.entries if query.get("kind") in (None, e["kind"])]
        if after is not None:
            page = [e for e in kept if e["seq"] > int(after)][:limit]
            next_seq = page[-1]["seq"] if len(page) == limit else None
        else:
            page = [e for e in kept if before is None or e["seq"] < int(before)][-limit:]
            next_seq = page[0]["seq"] if len(page) == limit and page[0]["seq"] > 1 else None
        return {"entries": [self.view(e) for e in page], "next": next_seq}


class Request:
    """A parsed request."""

    def __init__(self, method, target, headers, body=b""):
        url = urlsplit(target)
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path = url.path.rstrip("/") or "/"
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}

    @property
    def is_live(self):
        return self.path == "/v1/couple/live"

    @property
    def is_write(self):
        return self.method in ("POST", "PATCH", "PUT", "DELETE")

    @property
    def transport(self):
        if self.headers.get("upgrade", "").lower() == "websocket":
            return "websocket"
        return "sse" if "text/event-stream" in self.headers.get("accept", "") else "poll"

    def token(self):
        """Token of the session: a header, a subprotocol of a WebSocket, or a query parameter of the live route."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        offered = [name.strip() for name in self.headers.get("sec-websocket-protocol", "").split(",")]
        others = [name for name in offered if name and name != "couple"]
        return others[0] if others else self.query.get("access_token")

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Problem(400, "malformed_json")
