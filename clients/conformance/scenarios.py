"""The scenarios. The docstring of each is the statement that it proves; `Trial.converge` ends most of them."""

import asyncio
import time

from driver import require
from scripted_server import StreamFault

SCENARIOS = []
TEXTS = ("grüße 💞", "שלום עולם", "\u202eabc", "a\nb\r\nc", "U+2028 \u2028 and U+2029 \u2029 end lines in JavaScript", "data: x\n\ndata: y",
         "</script>\\u0041\"'", " spaces ", "👩‍❤️‍👨🏽", "\ufeffmark", "controls \u0001\u007f\u0085")
TOLERANCE = 0.1  # seconds by which a client's clock may be early


class Scenario:
    def __init__(self, function, every_transport, transports, needs, scripted):
        self.function, self.every_transport, self.transports, self.needs = function, every_transport, transports, needs
        self.scripted = scripted
        self.name, self.statement = function.__name__, " ".join(function.__doc__.split())


def scenario(every_transport=False, transports=("websocket", "sse", "poll"), needs=(), scripted=False):
    """`every_transport`: runs once for each transport of the client, otherwise only with its first. `scripted`: only the scripted server can
    do it, not a proxy before a real one."""
    def add(function):
        SCENARIOS.append(Scenario(function, every_transport, transports, needs, scripted))
        return function
    return add


# -- Following the log ----------------------------------------------------------------------------------------------------------------


@scenario(every_transport=True)
async def whole_log_is_read(t):
    """A client without a store reads the whole log, more than two pages."""
    for _ in range(450):
        t.partner()
    await t.begin()
    await t.converge()


@scenario(every_transport=True)
async def live_entries_arrive(t):
    """Entries of both members arrive while the client is connected."""
    await t.begin()
    await t.until_live()
    for _ in range(10):
        t.partner()
        await t.append()
    await t.converge()


@scenario(every_transport=True)
async def cut_connection_resumes(t):
    """A live connection that is cut at any byte, also within a frame, resumes from the cursor."""
    for _ in range(20):
        t.server.add_stream_fault(cut_after_bytes=t.random.randrange(1, 1500))
    await t.begin()
    until = time.monotonic() + t.patience
    while t.server.stream_faults:
        t.partner()
        await asyncio.sleep(0.02)
        require(time.monotonic() < until, "the client connected too seldom: %d cuts are left" % len(t.server.stream_faults))
    await t.converge()


@scenario(every_transport=True)
async def cut_without_traffic_resumes(t):
    """An idle connection that is reset is opened again, and what was written meanwhile arrives."""
    await t.begin()
    await t.caught_up()
    for _ in range(5):
        await t.until_live()
        t.server.cut_streams()
        t.partner()
        await t.caught_up()
    await t.converge()


@scenario(every_transport=True, scripted=True)
async def repeated_frames_are_one_entry(t):
    """A frame that arrives twice is one entry."""
    t.server.every_stream = StreamFault(duplicate=True)
    t.partner()
    await t.begin()
    await t.until_live()
    for _ in range(10):
        t.partner()
    await t.converge()


@scenario(every_transport=True, scripted=True)
async def exchanged_frames_end_in_order(t):
    """Frames that arrive in another order end in `seq` order; a cut between two exchanged frames loses neither."""
    for cut in (1, 3, None, None):
        t.server.add_stream_fault(swap=True, cut_after_entries=cut)
    for _ in range(6):
        t.partner()
    await t.begin()
    await t.caught_up()
    for _ in range(6):
        t.partner()
    await t.converge()


@scenario(every_transport=True)
async def bytes_in_any_portion(t):
    """Bytes that arrive one at a time, also within a character, make the same frames."""
    t.server.every_stream = StreamFault(one_byte_at_a_time=True)
    await t.begin()
    await t.until_live()
    for text in TEXTS:
        t.partner(text)
    await t.converge()


@scenario(every_transport=True, transports=("websocket", "sse"), scripted=True)
async def all_forms_of_a_frame_are_understood(t):
    """WebSocket messages in fragments with pings in between, and events with comments, CRLF and several `data` lines, are understood."""
    t.server.every_stream = StreamFault(fragment=True)
    t.partner("grüße")
    await t.begin()
    await t.until_live()
    for _ in range(5):
        t.partner()
    await t.converge()


@scenario(every_transport=True, scripted=True)
async def unknown_frames_are_ignored(t):
    """Frames, fields and kinds of entries that the client does not know are ignored or kept, and stop nothing."""
    frames = [{"type": "x-new", "cursor_hint": 1}, {"type": "presence", "presence": "here", "x": {}},
              {"type": "signal", "from": "partner", "kind": "x-wave", "body": None}, {"type": "refused", "code": "x"}]
    t.server.every_stream = StreamFault(inject=frames)
    await t.begin()
    await t.until_live()
    t.log.append("partner", None, "x-game.move", {"move": [1, {"a": None}], "text": 7})
    t.log.append("system", None, "new_system_kind", {"any": "thing"})
    await t.append(kind="x-game.move", body={"move": "e4", "nested": {"deep": [[[1.5]]]}})
    await t.converge()


@scenario(every_transport=True, scripted=True)
async def reset_rereads_the_log(t):
    """`reset` means that the log is another one: entries that it does not have disappear, the others are read again."""
    for _ in range(20):
        t.partner()
    await t.begin()
    await t.caught_up()
    t.log.restored_from_backup(kept=10)
    for _ in range(3):
        t.partner("after the restore")
    await t.converge()
    t.partner()
    await t.converge()


@scenario(scripted=True)
async def reset_keeps_the_queue(t):
    """Entries in the queue survive a `reset` of the same couple, and are sent once."""
    t.partner()
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    await t.append_many(3)
    t.log.restored_from_backup(kept=1)
    # The entries are still in the queue when the client reads the reset.
    fault = t.server.add("answer", "POST", "entries$", times=1_000, status=503, code="unavailable", retry_after=1)
    await t.client.call("online")
    await t.until(lambda: t.server.resets, "the client did not reconnect")
    await asyncio.sleep(0.3)
    fault.times = 0
    await t.converge()


@scenario()
async def former_couples_entries_reach_no_other_couple(t):
    """Entries that were written for one couple are rejected, not sent to the couple that follows it."""
    t.partner()
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    first, second = await t.append("only for you"), await t.append("this, too")
    t.log.other_couple()
    await t.client.call("online")
    await t.client.event("rejected", client_id=first)
    await t.client.event("rejected", client_id=second)
    t.rejected |= {first, second}
    t.partner("hello, stranger")
    await t.append("hello")
    await t.converge()


@scenario(needs=("edit", "delete", "react", "offline_changes"))
async def former_couples_changes_reach_no_other_couple(t):
    """Edits, deletions and reactions that were made for one couple are rejected, and change no entry of the couple that follows it."""
    await t.begin()
    seqs = [t.seq_of(one) for one in await t.append_stored(3)]
    await t.client.call("offline")
    await t.client.call("edit", seq=seqs[0], body={"text": "only for you"})
    await t.client.call("delete", seq=seqs[1])
    await t.client.call("react", seq=seqs[2], emoji="💖")
    t.log.other_couple()
    # The new log has entries of the same numbers and author, and the client has not read it when it sends.
    for n in range(max(seqs)):
        t.log.append("me", "other-device-%d" % n, "text", {"text": "from my tablet"})
    fault = t.server.add("answer", live=True, times=-1, status=503, body=b"")
    await t.client.call("online")
    await t.until(lambda: len([event for event in t.client.events if event["event"] == "rejected"]) == 3, "the changes were not rejected")
    fault.times = 0
    require(all(event["code"] == "not_paired" for event in t.client.events if event["event"] == "rejected"), "rejected for another reason")
    t.forget()
    t.partner("hello, stranger")
    await t.caught_up()
    await t.append("hello")
    await t.converge()


@scenario(every_transport=True, scripted=True)
async def bye_is_waited_for(t):
    """After `bye` the client reconnects, and not before `retry_after_ms`."""
    await t.begin()
    await t.caught_up()
    await t.until_live()
    begun = time.monotonic()
    t.server.send_to_streams({"type": "bye", "reason": "draining", "retry_after_ms": 1500})
    t.partner()
    await t.until(lambda: t.requests(live=True, since=begun), "the client did not reconnect")
    waited = t.requests(live=True, since=begun)[0][0] - begun
    require(waited >= 1.5 - TOLERANCE, "reconnected after %.2f s instead of 1.5 s" % waited)
    await t.converge()


@scenario(every_transport=True)
async def bye_signed_out_signs_out(t):
    """After `bye` with `signed_out` the client reports it, and does not use the token again."""
    await t.begin()
    await t.caught_up()
    await t.until_live()
    t.log.end_sessions()
    await t.client.event("signed_out")
    begun = time.monotonic()
    await asyncio.sleep(1)
    require(not t.requests(since=begun + TOLERANCE), "the client used the token of an ended session")


@scenario(every_transport=True, scripted=True)
async def bye_not_paired_waits_for_a_couple(t):
    """After `bye` with `not_paired` the client stops following, and follows the next couple."""
    await t.begin()
    await t.caught_up()
    await t.until_live()
    t.log.paired = False
    t.server.send_to_streams({"type": "bye", "reason": "not_paired", "retry_after_ms": 0})
    begun = time.monotonic()
    await asyncio.sleep(1)
    count = len(t.requests(since=begun))
    require(count <= 5, "%d requests in 1 s without a couple" % count)
    t.log.other_couple()
    t.partner()
    await t.client.call("online")
    await t.converge()


# The WebSocket of a browser does not show the status of a refused upgrade.
@scenario(every_transport=True, transports=("sse", "poll"))
async def refused_connection_is_waited_for(t):
    """A live connection refused with 503 and Retry-After, as an event stream with 200 and `bye`, is tried again after that time."""
    fault = t.server.add("answer", live=True, status=503, code="overloaded", retry_after=2)
    await t.begin()
    await t.until(lambda: fault.applied_at, "there was no attempt to connect")
    await t.until(lambda: len(t.requests(live=True)) > 1, "the client did not try again")
    waited = t.requests(live=True)[1][0] - fault.applied_at[0]
    require(waited >= 2 - TOLERANCE, "tried again after %.2f s instead of 2 s" % waited)
    t.partner()
    await t.converge()


@scenario(every_transport=True)
async def load_balancers_error_page_is_retried(t):
    """502 and 503 with a page of HTML, on the way to the live connection, are temporary."""
    for status in (502, 503, 504):
        t.server.add("answer", live=True, status=status, body=b"<html>Bad gateway</html>")
    await t.begin()
    t.partner()
    await t.converge()


@scenario(every_transport=True, needs=("heartbeat",), scripted=True)
async def silent_connection_is_noticed(t):
    """A connection that stays open and carries nothing more is given up by its missing heartbeat."""
    t.server.add_stream_fault(silent_after_entries=0 if t.transport == "poll" else 2)
    await t.begin()
    t.partner()
    await asyncio.sleep(0.5)
    t.partner()
    t.partner()
    await t.converge(t.patience + 20)


@scenario(every_transport=True)
async def changes_by_the_partner_arrive(t):
    """Edits, deletions and reactions by the partner change the entry that they name, however old it is."""
    seqs = [t.partner() for _ in range(8)]
    await t.begin()
    own = await t.append()
    await t.until_stored(own)
    t.log.edit("partner", seqs[0], {"text": "edited"})
    t.log.delete("partner", seqs[1])
    t.log.react("partner", t.seq_of(own), "💖")
    t.log.react("partner", seqs[2], "🙂")
    await t.converge()
    t.log.react("partner", seqs[2], None)
    t.log.edit("partner", seqs[0], {"text": "edited again"})
    t.log.delete("partner", seqs[0])
    await t.converge()


@scenario()
async def changes_while_offline_arrive(t):
    """Edits and deletions that happen while the client is offline change entries that it has stored."""
    seqs = [t.partner() for _ in range(4)]
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    t.log.edit("partner", seqs[0], {"text": "edited"})
    t.log.delete("partner", seqs[1])
    for _ in range(220):
        t.partner()
    t.log.react("partner", seqs[2], "🙂")
    await t.client.call("online")
    await t.converge()


@scenario()
async def other_devices_entries_arrive(t):
    """Entries of the same account from another device are shown, and do not disturb the queue."""
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    await t.append()
    t.log.append("me", "other-device-1", "text", {"text": "from my tablet"})
    await t.client.call("online")
    await t.append()
    t.log.append("me", "other-device-2", "text", {"text": "from my tablet"})
    await t.converge()


@scenario()
async def transports_can_be_switched(t):
    """Twenty switches of the transport while both members write lose, double and reorder nothing."""
    await t.begin()
    kinds = t.ready["transports"]
    for n in range(20):
        await t.client.call("transport", transport=kinds[n % len(kinds)])
        t.partner()
        await t.append()
        await asyncio.sleep(t.random.random() * 0.1)
    await t.converge()


@scenario(every_transport=True)
async def slow_network(t):
    """Answers that are delayed change nothing but the time."""
    for n in range(12):
        t.server.add("delay", live=n % 3 == 0, seconds=t.random.random() * 0.4)
    await t.begin()
    for _ in range(5):
        await t.append()
        t.partner()
    await t.converge()


# -- Writing --------------------------------------------------------------------------------------------------------------------------


@scenario()
async def append_cut_before_storing(t):
    """An append whose connection is cut before the server stored it is sent again."""
    await t.begin()
    t.server.add("cut_before", "POST", "entries$", times=3)
    await t.append_many(3)
    await t.converge()


@scenario()
async def append_cut_after_storing(t):
    """An append whose connection is cut after the server stored it is not doubled."""
    await t.begin()
    t.server.add("cut_after", "POST", "entries$", times=3)
    await t.append_many(3)
    await t.converge()


@scenario()
async def append_with_half_an_answer(t):
    """An append whose answer is cut in the middle is not doubled."""
    await t.begin()
    t.server.add("cut_answer", "POST", "entries$", times=3)
    await t.append_many(3)
    await t.converge()


@scenario(every_transport=True)
async def frame_before_the_answer(t):
    """An entry whose frame arrives before the answer to its append is shown once, at every moment."""
    await t.begin()
    await t.until_live()
    fault = t.server.add("hold", "POST", "entries$")
    client_id = await t.append()
    await t.append()
    await t.until_stored(client_id)
    for _ in range(30):
        await t.shown()
        await asyncio.sleep(0.01)
    fault.release.set()
    for _ in range(30):
        await t.shown()
        await asyncio.sleep(0.01)
    await t.converge()


@scenario(every_transport=True)
async def answer_older_than_the_frames(t):
    """An answer that arrives after frames with a newer state of its entry does not bring the older state back."""
    await t.begin()
    await t.caught_up()
    fault = t.server.add("hold", "POST", "entries$")
    client_id = await t.append()
    await t.until_stored(client_id)
    t.log.react("partner", t.seq_of(client_id), "💖")
    await asyncio.sleep(0.5)
    fault.release.set()
    await t.converge()
    seq, changes = t.seq_of(client_id), []
    if "edit" in t.ready["supports"]:
        elsewhere = {"text": "edited later, on another device"}
        changes.append(("PATCH", "edit", {"body": {"text": "edited here"}}, lambda: t.log.edit("me", seq, elsewhere)))
    if "react" in t.ready["supports"]:
        changes.append(("PUT", "react", {"emoji": "🙂"}, lambda: t.log.react("me", seq, "🙃")))
        changes.append(("DELETE", "react", {"emoji": None}, lambda: t.log.react("me", seq, "💞")))
    for method, do, fields, on_another_device in changes:
        fault = t.server.add("hold", method)
        await t.client.call(do, seq=seq, **fields)
        await fault.reached.wait()
        on_another_device()
        await asyncio.sleep(0.5)
        fault.release.set()
        await t.converge()


@scenario()
async def answer_before_the_frame(t):
    """An entry that is answered while there is no live connection is shown once, and its frame later changes nothing."""
    t.partner()
    await t.begin()
    await t.caught_up()
    # A connection whose handshake is in progress would not be cut.
    await t.until_live()
    fault = t.server.add("answer", live=True, times=5, status=503, code="unavailable", retry_after=1)
    t.server.cut_streams()
    await t.until(lambda: fault.applied_at, "the client did not reconnect")
    client_id = await t.append()
    await t.until_stored(client_id)
    t.partner("between")
    await t.append()
    for _ in range(20):
        await t.shown()
        await asyncio.sleep(0.02)
    fault.times = 0
    await t.converge()


@scenario()
async def offline_entries_keep_their_order(t):
    """Fifty entries written offline arrive in the order in which they were written."""
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    await t.append_many(50)
    _, pending = await t.shown()
    require(pending == [client_id for client_id, _, _ in t.told], "pending entries are shown in another order: %s" % pending)
    t.partner()
    await t.client.call("online")
    await t.converge()


@scenario()
async def failed_append_holds_back_the_later_ones(t):
    """While an append fails, later entries are not sent before it."""
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    await t.append_many(10)
    t.server.add("answer", "POST", "entries$", status=500, code="internal_error")
    for status in (502, 503):
        t.server.add("answer", "POST", "entries$", status=status, body=b"no")
    t.server.add("cut_before", "POST", "entries$", times=2)
    t.server.add("cut_after", "POST", "entries$")
    await t.client.call("online")
    await t.converge()


async def _waits(t, status, code):
    await t.begin()
    fault = t.server.add("answer", "POST", "entries$", status=status, code=code, retry_after=2)
    await t.append_many(3)
    await t.until(lambda: fault.applied_at, "the client did not send")
    await t.converge()
    later = [at for at, request, _ in t.requests(write=True) if at > fault.applied_at[0] + 0.001]
    require(later and later[0] - fault.applied_at[0] >= 2 - TOLERANCE,
            "the next write came %.2f s after the refusal instead of 2 s" % (later[0] - fault.applied_at[0]))


@scenario()
async def rate_limit_is_waited_for(t):
    """429 with Retry-After is waited for: no write is sent before, and none is lost."""
    await _waits(t, 429, "rate_limited")


@scenario()
async def overload_is_waited_for(t):
    """503 with Retry-After is waited for."""
    await _waits(t, 503, "overloaded")


@scenario()
async def unavailable_server_is_not_hammered(t):
    """A server that refuses everything without Retry-After is tried again with pauses, and everything arrives at last."""
    t.partner()
    await t.begin()
    await t.caught_up()
    await t.until_live()
    faults = [t.server.add("answer", live=live, times=-1, status=503, body=b"") for live in (True, False)]
    t.server.cut_streams()
    await t.append_many(3)
    begun = time.monotonic()
    await asyncio.sleep(2)
    count = len(t.requests(since=begun))
    for fault in faults:
        fault.times = 0
    # With the short pauses of these scenarios, a connection and a queue make about 60; a client without pauses makes hundreds.
    require(count <= 150, "%d requests in 2 s" % count)
    await t.converge()


@scenario()
async def refused_entry_is_rejected(t):
    """An entry that the server refuses for good leaves the queue, is reported, and holds back nothing."""
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    await t.append()
    blank = await t.append(body={"text": "   "})
    await t.append()
    large = await t.append("x" * 17000)
    await t.append()
    await t.client.call("online")
    for client_id in (blank, large):
        await t.client.event("rejected", client_id=client_id, code="invalid_field")
        t.rejected.add(client_id)
    await t.converge()


@scenario()
async def expired_token_keeps_the_queue(t):
    """401 signs out and keeps the queue; after the next sign-in it is sent, in order."""
    await t.begin()
    await t.append()
    await t.caught_up()
    await t.client.call("offline")
    await t.append_many(3)
    t.log.end_sessions()
    await t.client.call("online")
    await t.client.event("signed_out")
    begun = time.monotonic()
    await asyncio.sleep(0.5)
    require(not t.requests(since=begun + TOLERANCE), "the client used the token of an ended session")
    await t.sign_in()
    t.partner()
    await t.converge()


@scenario(every_transport=True)
async def expired_token_at_reconnecting_signs_out(t):
    """401 on the live connection signs out, and the next sign-in continues from the cursor."""
    await t.begin()
    await t.caught_up()
    await t.server.down()
    t.log.end_sessions()
    t.partner()
    await t.server.up()
    await t.client.event("signed_out")
    await t.sign_in()
    await t.converge()


@scenario()
async def killed_client_sends_its_queue(t):
    """A client killed with entries in its queue sends them after it is started again."""
    await t.begin()
    await t.caught_up()
    await t.client.call("offline")
    await t.append_many(5)
    await t.restart_client()
    await t.append()
    await t.converge()


@scenario()
async def killed_between_storing_and_answer(t):
    """A client killed after the server stored its entry, and before the answer, does not double it."""
    await t.begin()
    fault = t.server.add("hold", "POST", "entries$")
    client_id = await t.append()
    await t.append()
    await t.until_stored(client_id)
    await t.client.kill()
    fault.release.set()
    await t.launch()
    await t.converge()


@scenario()
async def killed_client_has_its_log(t):
    """A client killed while entries arrive has a complete log after it is started again."""
    for _ in range(5):
        t.partner()
    await t.begin()
    for _ in range(5):
        for _ in range(30):
            t.partner()
        await asyncio.sleep(t.random.random() * 0.1)
        await t.restart_client()
    await t.converge()


@scenario()
async def log_is_shown_without_a_server(t):
    """A client that starts while the server is down shows its stored log and takes entries."""
    for _ in range(5):
        t.partner()
    await t.begin()
    await t.append()
    await t.converge()
    await asyncio.sleep(0.5)  # what is shown may be stored a moment later
    await t.server.down()
    await t.restart_client()
    last = await t.append()
    entries, pending = await t.shown()
    t.require_same(entries)
    require(pending == [last], "pending is %s" % pending)
    await t.server.up()
    await t.converge()


@scenario(every_transport=True)
async def killed_server_comes_back(t):
    """A server that is killed and comes back, several times, loses nothing of either member."""
    await t.begin()
    for _ in range(4):
        await t.append()
        await t.server.down()
        await t.append()
        t.partner()
        await asyncio.sleep(0.3)
        await t.server.up()
        await asyncio.sleep(t.random.random() * 0.2)
    await t.converge()


@scenario()
async def unreachable_at_the_start(t):
    """A client whose first attempt meets no server connects later."""
    await t.begin(start=False)
    await t.server.down()
    await t.start()
    await asyncio.sleep(0.5)
    await t.server.up()
    t.partner()
    await t.caught_up()
    await t.append()
    await t.converge()


@scenario()
async def offline_and_online(t):
    """Ten changes between offline and online while both members write lose, double and reorder nothing."""
    await t.begin()
    await t.caught_up()
    for n in range(20):
        await t.client.call("offline" if n % 2 == 0 else "online")
        await t.append()
        t.partner()
        await asyncio.sleep(t.random.random() * 0.05)
    await t.converge()


@scenario(every_transport=True)
async def text_is_kept_exactly(t):
    """Text of any script, control characters, and nested values arrive as they were written."""
    await t.begin()
    for text in TEXTS:
        await t.append(text)
    await t.append(kind="mood", body={"a": [1, 2.5, -3, True, None, {"b": ""}], "Ключ": {}})
    await t.converge()


# -- Changes of entries ---------------------------------------------------------------------------------------------------------------


@scenario(needs=("edit", "delete", "react"))
async def changes_arrive_once(t):
    """Edits, deletions and reactions whose connection is cut before or after the server stored them take effect."""
    await t.begin()
    ids = [await t.append() for _ in range(4)]
    partners = t.partner()
    await t.caught_up()
    for kind in ("cut_before", "cut_after", "cut_answer"):
        t.server.add(kind, "PATCH")
    for kind in ("cut_before", "cut_after"):
        t.server.add(kind, "DELETE")
        t.server.add(kind, "PUT", "reaction$")
    await t.client.call("edit", seq=t.seq_of(ids[0]), body={"text": "edited"})
    await t.client.call("edit", seq=t.seq_of(ids[0]), body={"text": "edited again"})
    await t.client.call("delete", seq=t.seq_of(ids[1]))
    await t.client.call("react", seq=partners, emoji="💖")
    await t.client.call("react", seq=t.seq_of(ids[2]), emoji="🙂")
    await t.client.call("react", seq=t.seq_of(ids[2]), emoji=None)
    await t.append()
    await t.converge()
    require(not [event for event in t.client.events if event["event"] == "rejected"], "a change that took effect was reported as rejected")
    first, second, third = (t.log.find(t.seq_of(one)) for one in ids[:3])
    require(first["body"] == {"text": "edited again"}, "the last edit did not take effect: %s" % first["body"])
    require("deleted_at" in second, "the entry was not deleted")
    require(third["reactions"] == {} and t.log.find(partners)["reactions"] == {"me": "💖"}, "a reaction did not take effect")


@scenario(needs=("edit", "delete", "react", "offline_changes"))
async def changes_made_offline_are_sent(t):
    """Changes made offline survive SIGKILL and take effect after the entries that were written before them."""
    await t.begin()
    own, other = await t.append(), await t.append()
    partners = t.partner()
    await t.caught_up()
    await t.client.call("offline")
    await t.client.call("edit", seq=t.seq_of(own), body={"text": "edited offline"})
    await t.client.call("delete", seq=t.seq_of(other))
    await t.client.call("react", seq=partners, emoji="💖")
    await t.append()
    await t.restart_client()
    await t.converge()
    require(t.log.find(t.seq_of(own))["body"] == {"text": "edited offline"}, "the edit was lost")
    require("deleted_at" in t.log.find(t.seq_of(other)), "the deletion was lost")
    require(t.log.find(partners)["reactions"] == {"me": "💖"}, "the reaction was lost")


@scenario(needs=("edit", "offline_changes"))
async def refused_change_is_rejected(t):
    """A change that the server refuses for good is reported, and holds back nothing."""
    await t.begin()
    own = await t.append()
    await t.caught_up()
    await t.client.call("offline")
    await t.client.call("edit", seq=t.seq_of(own), body={"text": "too late"})
    await t.append()
    t.log.delete("me", t.seq_of(own))
    await t.client.call("online")
    await t.client.event("rejected", code="entry_deleted")
    await t.converge()
