/** The local copy of the log: resets, gaps, restarts and the end of a couple, with a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { memoryStore } from "../../src/index.js";
import { live, opened, texts } from "../support/engine.js";
import { FakeServer, problem, until } from "../support/fake-server.js";

test("a bye for an ended couple clears the local copy, and a new couple is followed", async () => {
  const { client, server, events } = await live();
  server.append("partner", "text", { text: "old" });
  await until(() => texts(client).length === 1);
  server.paired = false;
  server.broadcast({ type: "bye", reason: "not_paired", retry_after_ms: 0 });
  await until(() => client.status.state === "not_paired");
  assert.equal(client.couple?.id, undefined);
  assert.deepEqual(client.timeline.entries, []);
  await assert.rejects(client.timeline.append("text", { text: "to nobody" }), { code: "not_paired" });
  Object.assign(server, { paired: true, coupleNumber: 2, log: [] });
  server.append("system", "paired", null);
  await client.refresh();
  await until(() => client.status.state === "live");
  assert.equal(client.couple?.id, "couple-2");
  assert.equal(client.timeline.entries.length, 1);
  assert.deepEqual(events.reset, []);
});

test("no write for an ended couple takes effect in the next one", async () => {
  const { client, server, events } = await live();
  server.append("partner", "text", { text: "old" });
  const own = await client.timeline.append("text", { text: "own" });
  await until(() => texts(client).length === 2 && client.timeline.queue.length === 0);
  client.setOnline(false);
  await client.timeline.append("text", { text: "for the old couple" });
  await client.timeline.edit(own.key, { text: "edited" });
  await client.timeline.react("2", "❤️");
  await client.timeline.markRead(2);
  await client.timeline.delete(own.key);
  Object.assign(server, { coupleNumber: 2, log: [] });
  // Entries of the same numbers, which the user of this device could change.
  for (const kind of ["paired", "text", "text", "text"]) server.append("me", kind, { text: "new" });
  const requests = server.requests.length;
  // The client sends before it learns of the other couple.
  let blocked = true;
  server.intercept = ({ path }) => (blocked && (path === "/v1/couple" || path.startsWith("/v1/couple/live")) ? problem(503, "unavailable") : undefined);
  server.transports.delete("websocket");
  client.setOnline(true);
  await until(() => events.refused.length === 5);
  assert.ok(events.refused.every(({ error }) => error.code === "not_paired"));
  const writes = server.requests.slice(requests).filter((request) => !/^(GET|WEBSOCKET)/.test(request));
  assert.deepEqual(writes.map((request) => request.split(" ")[0]), ["POST", "PATCH", "PUT", "PUT", "DELETE"]);
  assert.ok(server.log.length === 4 && server.log.every(({ reactions, edited_at, deleted_at }) => !reactions.me && !edited_at && !deleted_at));
  blocked = false;
  await until(() => client.couple?.id === "couple-2" && client.status.state === "live");
});

test("a reset replaces the local copy, without doubles", async () => {
  const { client, server, events, seen } = await live();
  for (let n = 0; n < 5; n++) server.append("partner", "text", { text: String(n) });
  await until(() => texts(client).length === 5);
  client.setOnline(false);
  server.log.length = 3;
  client.setOnline(true);
  await until(() => client.status.state === "live" && events.reset.length === 1);
  assert.deepEqual(events.reset, [{ reason: "cursor_unknown" }]);
  assert.deepEqual(texts(client), ["0", "1"]);
  server.append("partner", "text", { text: "after" });
  await until(() => texts(client).length === 3);
  assert.deepEqual(texts(client), ["0", "1", "after"]);
  assert.equal(seen.at(-1).body.text, "after");
});

test("a gap in the log is never shown: the client reads again", async () => {
  const { client, server, seen } = await live();
  server.connections.forEach((connection) => (connection.after += 1));
  server.log.push({ seq: 2, author: "partner", kind: "text", body: { text: "two" }, created_at: "", reactions: {} });
  server.append("partner", "text", { text: "three" });
  await until(() => seen.length === 2);
  assert.deepEqual(seen.map(({ seq }) => seq), [2, 3]);
  assert.deepEqual(texts(client), ["two", "three"]);
});

for (const seq of [null, "2", 1.5]) {
  test(`a change of an entry whose position is ${JSON.stringify(seq)} is not applied: the client reads the log again`, async () => {
    const { client, server, events } = await live();
    server.append("partner", "text", { text: "one" });
    await until(() => texts(client).length === 1);
    server.log[1].body = { text: "edited" };
    server.append("partner", "entry_edited", null, { target: { ...server.log[1], seq } });
    await until(() => events.reset.length === 1 && client.status.state === "live");
    assert.deepEqual(events.reset, [{ reason: "gap" }]);
    assert.deepEqual(client.timeline.entries.map((entry) => [entry.seq, entry.body?.text]), [[1, undefined], [2, "edited"]]);
  });
}

test("entries that arrive twice are reported once", async () => {
  const { server, seen } = await live();
  const entry = server.append("partner", "text", { text: "once" });
  server.broadcast({ type: "entry", entry, cursor: server.cursor(entry.seq) });
  server.append("partner", "text", { text: "twice" });
  await until(() => seen.length === 2);
  assert.deepEqual(seen.map(({ seq }) => seq), [2, 3]);
});

test("the client continues from the stored cursor after a restart", async () => {
  const storage = memoryStore();
  const { client, server } = await live({ storage });
  server.append("partner", "text", { text: "before" });
  await until(() => texts(client).length === 1);
  await client.close();
  server.append("partner", "text", { text: "meanwhile" });
  server.requests.length = 0;
  const next = opened({ ...server.options, storage });
  const seen = /** @type {any[]} */ ([]);
  next.on("entry", ({ seq }) => seen.push(seq));
  await next.ready;
  assert.deepEqual(texts(next), ["before"]);
  next.connect();
  await until(() => next.status.state === "live");
  assert.deepEqual(texts(next), ["before", "meanwhile"]);
  assert.deepEqual(seen, [3]);
  assert.ok(!server.requests.some((request) => request.startsWith("GET /v1/couple/entries")), "no snapshot was needed");
});

test("only the newest entries are stored, and older ones are read from the server", async () => {
  const storage = memoryStore();
  const { client, server } = await live({ storage, cacheSize: 20 });
  for (let n = 0; n < 100; n++) server.append("partner", "text", { text: String(n) });
  await until(() => texts(client).length === 100);
  await client.close();
  assert.ok((await storage.entries("account-1/e:")).length <= 34);
  const next = opened({ ...server.options, storage });
  await next.ready;
  const loaded = texts(next).length;
  assert.ok(loaded >= 20 && next.timeline.hasOlder);
  assert.equal(await next.timeline.loadOlder(200), false);
  assert.equal(texts(next).length, 100);
  assert.deepEqual(texts(next), Array.from({ length: 100 }, (_, n) => String(n)));
});

test("an edit that arrives while an older page is read is not lost", async () => {
  const server = new FakeServer();
  for (let n = 0; n < 250; n++) server.append("partner", "text", { text: String(n) });
  const { client } = await live({}, server);
  assert.ok(client.timeline.hasOlder);
  server.intercept = async ({ path }) => {
    if (!path.includes("before=")) return undefined;
    server.intercept = () => undefined;
    const page = await server.fetch(`http://fake${path}`, { headers: { authorization: `Bearer ${server.token}` } });
    // The page was read before the edit, and arrives after it.
    Object.assign(server.log[4], { body: { text: "edited" }, edited_at: new Date().toISOString() });
    server.append("partner", "entry_edited", null, { target_seq: 5 });
    await sleep(20);
    return page;
  };
  await client.timeline.loadOlder(200);
  assert.equal(client.timeline.get("5")?.body?.text, "edited");
});
