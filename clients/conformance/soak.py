"""Random faults while both members write."""

import asyncio
from collections import Counter


def soak(writes, cuts):
    """A scenario of so many writes, with so many faults at random moments between them."""

    async def run(t):
        await t.begin()
        faults = Faults(t)
        moments = sorted(t.random.randrange(writes) for _ in range(cuts))
        for n in range(writes):
            while moments and moments[0] <= n:
                moments.pop(0)
                await faults.next()
            if t.random.random() < 0.3:
                t.partner()
            else:
                await t.append()
            if n % 8 == 0:
                await asyncio.sleep(t.random.random() * 0.01)
            if n % 100 == 99:
                # The queue must not only grow: faults meet a short one, too.
                await t.sent()
        await faults.end()
        await t.converge(120)
        return ", ".join("%s %d" % fault for fault in sorted(faults.counts.items()))

    return run


class Faults:
    def __init__(self, trial):
        self.t, self.counts = trial, Counter()
        self.kinds = [(self.cut_all, 20), (self.cut_streams, 10), (self.fail_a_write, 25), (self.fail_a_stream, 15), (self.offline, 5),
                      (self.transport, 5), (self.server_killed, 12), (self.token_expires, 4), (self.client_killed, 3), (self.rate_limit, 1)]

    async def next(self):
        kind, = self.t.random.choices([kind for kind, _ in self.kinds], [weight for _, weight in self.kinds])
        self.counts[kind.__name__] += 1
        await kind()

    async def cut_all(self):
        self.t.server.cut_all()

    async def cut_streams(self):
        self.t.server.cut_streams()

    async def fail_a_write(self):
        kind = self.t.random.choice(("cut_before", "cut_after", "cut_answer"))
        self.t.server.add(kind, "POST", "entries$")

    async def fail_a_stream(self):
        choices = ({"cut_after_bytes": self.t.random.randrange(1, 3000)}, {"duplicate": True}, {"swap": True, "cut_after_entries": 1})
        self.t.server.add_stream_fault(**self.t.random.choice(choices))
        self.t.server.cut_streams()

    async def offline(self):
        await self.t.client.call("offline")
        for _ in range(3):
            await self.t.append()
            self.t.partner()
        await self.t.client.call("online")

    async def transport(self):
        await self.t.client.call("transport", transport=self.t.random.choice(self.t.ready["transports"]))

    async def server_killed(self):
        await self.t.server.down()
        await self.t.append()
        self.t.partner()
        await asyncio.sleep(self.t.random.random() * 0.1)
        await self.t.server.up()

    async def token_expires(self):
        """The session ends; as soon as the client reports it, the app signs in again."""
        t = self.t
        before = len([event for event in t.client.events if event["event"] == "signed_out"])
        t.log.end_sessions()
        await t.until(lambda: len([event for event in t.client.events if event["event"] == "signed_out"]) > before,
                      "the client did not report the end of its session")
        await t.sign_in()

    async def client_killed(self):
        await self.t.restart_client()

    async def rate_limit(self):
        self.t.server.add("answer", "POST", "entries$", status=429, code="rate_limited", retry_after=1)

    async def end(self):
        self.t.server.stream_faults.clear()
