/** The engine against a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { createClient, memoryStore } from "../src/index.js";
import { FakeServer, json, problem, until } from "./support/fake-server.js";
import { Browser } from "./support/tabs.js";

const clients = /** @type {import("../src/index.js").Client[]} */ ([]);
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
});

/** @param {any} options */
function opened(options) {
  const client = createClient(options);
  clients.push(client);
  return client;
}

/** A signed-in client of a server with one entry. */
async function started(options = {}, server = new FakeServer()) {
  if (server.log.length === 0) server.append("system", "paired", null);
  const client = opened({ ...server.options, .../** @type {any} */ (options) });
  const seen = /** @type {any[]} */ ([]);
  const events = /** @type {Record<string, any[]>} */ ({});
  for (const type of /** @type {const} */ (["session", "status", "reset", "refused", "error", "signal", "presence", "read"])) {
    events[type] = [];
    client.on(type, (value) => events[type].push(value));
  }
  client.on("entry", (entry) => seen.push(entry));
  await client.account.signIn({ email: "ana@example.org", password: "a long password" });
  return { client, server, seen, events };
}

/** The same, connected. */
async function live(options = {}, server = new FakeServer()) {
  const one = await started(options, server);
  one.client.connect();
  await until(() => one.client.status.state === "live");
  return one;
}

const texts = (/** @type {any} */ client) => client.timeline.entries.filter((/** @type {any} */ { kind }) => kind === "text").map((/** @type {any} */ { body }) => body?.text);

test("an entry is visible while it waits, and the same entry when it is confirmed", async () => {
  const { client, server } = await live();
  client.setOnline(false);
  const entry = await client.timeline.append("text", { text: "hello" });
  assert.equal(entry.state, "waiting");
  assert.equal(entry.seq, null);
  assert.deepEqual(texts(client), ["hello"]);
  client.setOnline(true);
  await until(() => client.timeline.get(entry.key)?.state === "confirmed");
  assert.deepEqual(texts(client), ["hello"]);
  assert.equal(client.timeline.get(entry.key)?.seq, 2);
  assert.equal(server.log.length, 2);
});

test("entries is the same array until something changes", async () => {
  const { client } = await live();
  const before = client.timeline.entries;
  assert.equal(client.timeline.entries, before);
  await client.timeline.append("text", { text: "hello" });
  assert.notEqual(client.timeline.entries, before);
  assert.equal(client.timeline.entries[0], before[0]);
});

test("edits, deletions and reactions of an entry that waits are sent after it", async () => {
  const { client, server } = await live();
  client.setOnline(false);
  const [one, two] = [await client.timeline.append("text", { text: "one" }), await client.timeline.append("text", { text: "two" })];
  await client.timeline.edit(one.key, { text: "one!" });
  await client.timeline.react(one.key, "❤️");
  await client.timeline.delete(two.key);
  assert.equal(client.timeline.get(one.key)?.changing, true);
  assert.equal(client.timeline.get(one.key)?.body?.text, "one!");
  assert.equal(client.timeline.get(one.key)?.reactions.me, "❤️");
  assert.equal(client.timeline.get(two.key)?.body, null);
  client.setOnline(true);
  await until(() => client.timeline.queue.length === 0 && !client.timeline.get(two.key)?.changing);
  await until(() => server.log.length === 6);
  assert.deepEqual(server.log.map(({ kind }) => kind), ["paired", "text", "text", "entry_edited", "entry_reacted", "entry_deleted"]);
  assert.equal(server.log[1].body.text, "one!");
  assert.equal(server.log[1].reactions.me, "❤️");
  assert.ok(client.timeline.get(two.key)?.deleted_at);
});

test("a lost answer does not double an entry, and later entries keep their order", async () => {
  const { client, server } = await live();
  let lost = 0;
  server.loseAnswer = ({ method }) => method === "POST" && ++lost % 2 === 1;
  for (let n = 0; n < 10; n++) await client.timeline.append("text", { text: String(n) });
  await until(() => client.timeline.queue.length === 0);
  assert.deepEqual(server.log.slice(1).map(({ body }) => body.text), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
  assert.ok(lost >= 10);
});

test("a repeated deletion whose answer was lost counts as done", async () => {
  const { client, server, events } = await live();
  const { key } = await client.timeline.append("text", { text: "hello" });
  await until(() => client.timeline.queue.length === 0);
  let lost = false;
  server.loseAnswer = ({ method }) => method === "DELETE" && !lost && (lost = true);
  await client.timeline.delete(key);
  await until(() => client.timeline.queue.length === 0);
  assert.deepEqual(events.refused, []);
  assert.ok(client.timeline.get(key)?.deleted_at);
});

test("a refused entry is removed with its changes, and the others are sent", async () => {
  const { client, server, events } = await live();
  client.setOnline(false);
  const bad = await client.timeline.append("nonsense", { text: "bad" });
  await client.timeline.edit(bad.key, { text: "worse" });
  await client.timeline.append("text", { text: "good" });
  server.intercept = ({ body }) => (body?.kind === "nonsense" ? problem(422, "invalid_field") : undefined);
  client.setOnline(true);
  await until(() => client.timeline.queue.length === 0);
  assert.deepEqual(events.refused.map(({ item, error }) => [item.type, error.code, error.status]), [["append", "invalid_field", 422], ["edit", "invalid_field", 422]]);
  assert.equal(client.timeline.get(bad.key), undefined);
  assert.deepEqual(texts(client), ["good"]);
});

test("an answer that is not from the server keeps the queue", async () => {
  const { client, server, events } = await live();
  const portal = (/** @type {number} */ status) => new Response("<h1>Welcome to the hotel</h1>", { status, headers: { "content-type": "text/html" } });
  const answers = [portal(200), portal(403), portal(404), json(200, { hello: "there" }), problem(500, "internal_error")];
  server.intercept = ({ method }) => (method === "POST" ? answers.shift() : undefined);
  await client.timeline.append("text", { text: "hello" });
  await until(() => client.timeline.queue.length === 0);
  assert.equal(answers.length, 0);
  assert.deepEqual(events.refused, []);
  assert.equal(server.log.length, 2);
});

test("Retry-After is honoured, also when the connection comes back meanwhile", async () => {
  const { client, server } = await live();
  const times = /** @type {number[]} */ ([]);
  server.intercept = ({ method }) => {
    if (method !== "POST") return undefined;
    times.push(Date.now());
    return times.length === 1 ? problem(429, "rate_limited", { "retry-after": "1" }) : undefined;
  };
  await client.timeline.append("text", { text: "hello" });
  await until(() => times.length === 1 && client.timeline.queue[0]?.error !== null);
  assert.equal(client.timeline.queue[0].error?.code, "rate_limited");
  client.kill();
  await until(() => client.timeline.queue.length === 0);
  assert.ok(times[1] - times[0] >= 990, `${times[1] - times[0]}`);
});

test("an expired session keeps everything for the same account", async () => {
  const { client, server, events } = await live();
  server.token = "token-2";
  await client.timeline.append("text", { text: "one" });
  await until(() => client.session === null);
  assert.deepEqual(events.session.map(({ reason }) => reason), ["signed_in", "expired"]);
  await until(() => client.status.state === "signed_out");
  await assert.rejects(client.timeline.append("text", { text: "two" }), { code: "signed_out" });
  assert.deepEqual(texts(client), ["one"]);
  await client.account.signIn({ email: "ana@example.org", password: "a long password" });
  await until(() => client.timeline.queue.length === 0 && client.status.state === "live");
  assert.deepEqual(server.log.map(({ body }) => body?.text), [undefined, "one"]);
});

test("another account does not get the data of the one before", async () => {
  const { client, server } = await live();
  client.setOnline(false);
  await client.timeline.append("text", { text: "secret" });
  server.token = "token-2";
  client.setOnline(true);
  await until(() => client.session === null);
  server.accountId = "account-2";
  await client.account.signIn({ email: "ben@example.org", password: "a long password" });
  assert.deepEqual(texts(client), []);
  assert.deepEqual(client.timeline.queue, []);
  await until(() => client.status.state === "live");
  assert.equal(server.log.length, 1);
});

test("signing out deletes what is stored, also when the server cannot be reached", async () => {
  const storage = memoryStore();
  const { client, server } = await live({ storage });
  server.append("partner", "text", { text: "secret" });
  await until(() => texts(client).length === 1);
  client.setOnline(false);
  await client.timeline.append("text", { text: "mine" });
  await client.account.signOut();
  assert.equal(client.session, null);
  assert.deepEqual(await storage.entries(""), []);
  assert.deepEqual(texts(client), []);
});

test("transports are tried in their order, and the best one that works is used", async () => {
  const server = new FakeServer();
  server.transports = new Set(["sse", "poll"]);
  const { client, seen } = await live({}, server);
  assert.equal(client.status.transport, "sse");
  server.transports = new Set(["poll"]);
  server.cut();
  await until(() => client.status.transport === "poll" && client.status.state === "live");
  server.append("partner", "text", { text: "by poll" });
  await until(() => seen.length === 1);
  server.transports = new Set(["websocket", "sse", "poll"]);
  client.setTransport("websocket");
  await until(() => client.status.transport === "websocket" && client.status.state === "live");
  server.append("partner", "text", { text: "by socket" });
  await until(() => seen.length === 2);
});

test("a transport that failed twice in a row is left out", async () => {
  const server = new FakeServer();
  server.transports = new Set(["sse", "poll"]);
  const { client } = await live({}, server);
  const sockets = () => server.requests.filter((request) => request.startsWith("WEBSOCKET")).length;
  for (let n = 0; n < 3; n++) {
    const opened = server.opened;
    server.cut();
    await until(() => server.opened > opened && client.status.state === "live");
  }
  assert.equal(sockets(), 2);
});

test("a platform without WebSocket and streaming fetch polls", async () => {
  const server = new FakeServer();
  const fetch = async (/** @type {any} */ url, /** @type {any} */ init) => {
    const response = await server.fetch(url, init);
    if (init.headers.accept === "text/event-stream") Object.defineProperty(response, "body", { value: undefined });
    return response;
  };
  const { client } = await live({ WebSocket: class { constructor() { throw new TypeError("no sockets here"); } }, fetch }, server);
  assert.equal(client.status.transport, "poll");
});

test("bye is honoured: the client reconnects after the time that the server asked for", async () => {
  const { client, server, events } = await live();
  server.broadcast({ type: "bye", reason: "draining", retry_after_ms: 150 });
  await until(() => client.status.state === "waiting");
  const { opened } = server;
  assert.equal(client.status.reason, "draining");
  await sleep(100);
  assert.equal(server.opened, opened);
  await until(() => client.status.state === "live");
  server.broadcast({ type: "bye", reason: "signed_out", retry_after_ms: 0 });
  await until(() => client.status.state === "signed_out");
  assert.equal(events.session.at(-1).reason, "expired");
});

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

test("a write that cannot be stored is rejected and not shown, and the log survives a failure of the storage", async () => {
  const storage = memoryStore();
  const { client, server, events } = await live({ storage });
  const { write } = storage;
  storage.write = async () => {
    throw new Error("the disk is full");
  };
  await assert.rejects(client.timeline.append("text", { text: "mine" }), { code: "storage_failed" });
  assert.deepEqual(texts(client), []);
  server.append("partner", "text", { text: "one" });
  await until(() => events.error.length > 0);
  storage.write = write;
  server.append("partner", "text", { text: "two" });
  await until(() => texts(client).length === 2);
  await client.close();
  const stored = await storage.entries("");
  assert.deepEqual(stored.filter(([key]) => key.startsWith("account-1/e:")).map(([, { seq }]) => seq), [1, 2, 3]);
  assert.equal(stored.filter(([key]) => key.startsWith("account-1/q:")).length, 0);
});

test("an answer that arrives after close changes nothing that is stored, and the write is sent again", async () => {
  const storage = memoryStore();
  const { client, server, events } = await live({ storage });
  let answer = () => {};
  server.intercept = ({ method }) => (method === "POST" ? new Promise((resolve) => (answer = () => resolve(undefined))) : undefined);
  await client.timeline.append("text", { text: "hello" });
  await until(() => server.requests.some((request) => request.startsWith("POST /v1/couple/entries")));
  await client.close();
  const stored = await storage.entries("");
  answer();
  await until(() => server.log.length === 2);
  await sleep(20);
  assert.deepEqual(await storage.entries(""), stored);
  assert.deepEqual(events.error, []);
  server.intercept = () => undefined;
  const next = opened({ ...server.options, storage });
  await until(() => next.timeline.queue.length === 0 && next.status.leader);
  assert.equal(server.log.length, 2);
});

test("a listener that throws does not disturb the others", async (t) => {
  const { client, server } = await live();
  const reported = t.mock.method(console, "error", () => {});
  client.on("entry", () => {
    throw new Error("a bug of the app");
  });
  let heard = 0;
  client.on("entry", () => (heard += 1));
  server.append("partner", "text", { text: "hello" });
  await until(() => heard === 1);
  assert.match(String(reported.mock.calls[0].arguments[0]), /a bug of the app/);
});

test("a connection on which nothing arrives is replaced", async (t) => {
  const { server } = await live({ heartbeat: 5 });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  server.broadcast({ type: "ping" });
  const { opened } = server;
  for (let second = 0; second < 25; second++) {
    t.mock.timers.tick(1_000);
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(server.opened > opened, "the client has not reconnected");
  t.mock.timers.reset();
});

test("signals go over the WebSocket, otherwise by a request", async () => {
  const { client, server, events } = await live();
  const frames = /** @type {any[]} */ ([]);
  client.on("frame", ({ direction, frame }) => direction === "out" && frames.push(frame));
  await client.signal("hug");
  assert.ok(server.requests.includes('FRAME {"type":"signal","kind":"hug"}'));
  assert.deepEqual(frames, [{ type: "signal", kind: "hug", body: undefined }]);
  client.setTransport("sse");
  await until(() => client.status.transport === "sse" && client.status.state === "live");
  await client.signal("thumb", { x: 0.5, y: 0.5 });
  assert.ok(server.requests.includes("POST /v1/couple/signals"));
  server.broadcast({ type: "signal", from: "partner", kind: "kiss" });
  await until(() => events.signal.length === 1);
  assert.deepEqual(events.signal, [{ from: "partner", kind: "kiss", body: null }]);
});

test("each write of the couple names the couple", async () => {
  const { client, server } = await live({ transports: ["sse"] });
  const named = /** @type {[string, string | null][]} */ ([]);
  server.intercept = ({ method, path, headers }) => {
    if (method === "GET") return undefined;
    named.push([`${method} ${path}`, headers.get("couple-id")]);
    return path === "/v1/uploads" ? problem(404, "not_paired") : json(200, server.couple);
  };
  await client.pairing.describe({ title: "Us" });
  await client.pairing.restore(true);
  await client.signal("hug");
  for (const purpose of /** @type {const} */ (["photo", "avatar"])) {
    const { id } = await client.media.upload(new Blob([purpose]), { purpose });
    await assert.rejects(client.media.finished(id), { code: "not_paired" });
  }
  await client.pairing.leave();
  assert.deepEqual(named, [
    ["PATCH /v1/couple", "couple-1"],
    ["PUT /v1/couple/previous", "couple-1"],
    ["POST /v1/couple/signals", "couple-1"],
    ["POST /v1/uploads", "couple-1"],
    ["POST /v1/uploads", null],
    ["DELETE /v1/couple?block=false", "couple-1"],
  ]);
});

test("presence, read positions and the state of a photo are kept current", async () => {
  const { client, server, events } = await live();
  server.broadcast({ type: "presence", presence: "here" });
  server.broadcast({ type: "read", my_read_seq: 0, partner_read_seq: 1, cursor: server.cursor(1) });
  await until(() => client.timeline.partnerRead === 1);
  assert.equal(client.couple?.partner.presence, "here");
  assert.deepEqual(events.presence, ["away", "here"]);
  server.append("partner", "photo", { media_id: "m1", media: { state: "processing", width: null } });
  await until(() => client.timeline.unread === 1);
  server.append("system", "media_ready", { media_id: "m1", width: 320, placeholder: "abc" });
  await until(() => client.timeline.get("2")?.body?.media.state === "ready");
  assert.deepEqual(client.timeline.get("2")?.body, { media_id: "m1", media: { state: "ready", width: 320, placeholder: "abc" } });
  assert.equal(client.timeline.entries.length, 2);
  await client.timeline.markRead();
  assert.equal(client.timeline.unread, 0);
  await until(() => client.timeline.queue.length === 0);
  assert.ok(server.requests.includes("PUT /v1/couple/read"));
  assert.equal(client.timeline.myRead, 3);
});

test("one tab holds the connection, and all tabs see and write", async () => {
  const [browser, server, storage] = [new Browser(), new FakeServer(), memoryStore()];
  const tab = { storage, locks: browser.locks, channel: browser.channel };
  const { client: one } = await live(tab, server);
  const two = opened({ ...server.options, ...tab });
  const seen = /** @type {any[]} */ ([]);
  two.on("entry", ({ seq }) => seen.push(seq));
  await until(() => two.status.state === "live");
  assert.equal(one.status.leader, true);
  assert.equal(two.status.leader, false);
  assert.equal(server.connections.size, 1);
  server.append("partner", "text", { text: "to both" });
  await until(() => texts(one).length === 1 && texts(two).length === 1);
  const { key } = await two.timeline.append("text", { text: "from the second tab" });
  await until(() => one.timeline.get(key)?.state === "confirmed" && two.timeline.get(key)?.state === "confirmed");
  two.kill();
  await until(() => server.opened === 2 && two.status.state === "live");
  two.setTransport("sse");
  await until(() => two.status.transport === "sse" && two.status.state === "live");
  // The leader is closed in the middle of writes of both tabs.
  server.intercept = ({ method }) => (method === "POST" ? problem(503, "unavailable") : undefined);
  await one.timeline.append("text", { text: "a" });
  await until(() => texts(two).length === 3);
  await two.timeline.append("text", { text: "b" });
  await one.close();
  server.intercept = () => undefined;
  await until(() => two.status.leader && two.status.state === "live" && two.timeline.queue.length === 0);
  assert.equal(server.connections.size, 1);
  assert.deepEqual(texts(two), ["to both", "from the second tab", "a", "b"]);
  await until(() => seen.length === 4);
  assert.deepEqual(seen, [2, 3, 4, 5]);
});

test("a transport that is chosen before a tab is the leader is used, also by the tab after it", async () => {
  const { locks, channel } = new Browser();
  const server = new FakeServer();
  server.append("system", "paired", null);
  const tab = { ...server.options, storage: memoryStore(), locks, channel };
  const one = opened(tab);
  one.setTransport("sse");
  await one.account.signIn({ email: "ana@example.org", password: "a long password" });
  one.connect();
  const two = opened(tab);
  await until(() => one.status.state === "live" && two.status.state === "live");
  assert.equal(one.status.transport, "sse");
  two.setTransport("poll");
  await until(() => one.status.transport === "poll" && one.status.state === "live");
  await one.close();
  await until(() => two.status.leader && two.status.state === "live");
  assert.equal(two.status.transport, "poll");
  assert.equal(server.requests.filter((request) => request.startsWith("WEBSOCKET")).length, 0);
});

test("a tab that is opened later has the transport and the offline state of the others", async () => {
  const [browser, server, storage] = [new Browser(), new FakeServer(), memoryStore()];
  const tab = { storage, locks: browser.locks, channel: browser.channel };
  const { client: one } = await live(tab, server);
  one.setTransport("poll");
  await until(() => one.status.transport === "poll" && one.status.state === "live");
  one.setOnline(false);
  const two = opened({ ...server.options, ...tab });
  await until(() => two.status.state === "offline" && !two.status.online);
  await one.close();
  await until(() => two.status.leader);
  const { opened: before } = server;
  await sleep(50);
  assert.equal(server.opened, before, "it is offline too");
  two.setOnline(true);
  await until(() => two.status.state === "live");
  assert.equal(two.status.transport, "poll");
});

test("signing in, out and an expired session reach all tabs", async () => {
  const [browser, server, storage] = [new Browser(), new FakeServer(), memoryStore()];
  const tab = { storage, locks: browser.locks, channel: browser.channel };
  const { client: one } = await live(tab, server);
  const two = opened({ ...server.options, ...tab });
  await until(() => two.status.state === "live");
  server.token = "token-2";
  await two.refresh().catch(() => {});
  await until(() => one.session === null && two.session === null && one.status.state === "signed_out");
  await two.account.signIn({ email: "ana@example.org", password: "a long password" });
  await until(() => one.session !== null && one.status.state === "live");
  await one.account.signOut();
  await until(() => two.session === null && two.timeline.entries.length === 0);
});

for (const [reason, path] of [["signed_out", "/v1/sessions/current"], ["deleted", "/v1/me"]]) {
  test(`a session that is ended by its user is reported once, as ${reason}, also if the stream ends before the response`, async () => {
    const [browser, server, storage] = [new Browser(), new FakeServer(), memoryStore()];
    const tab = { storage, locks: browser.locks, channel: browser.channel };
    const { client: one } = await live(tab, server);
    const two = opened({ ...server.options, ...tab });
    await until(() => two.status.state === "live");
    const reasons = /** @type {Record<string, string[]>} */ ({ one: [], two: [] });
    one.on("session", ({ reason }) => reasons.one.push(reason));
    two.on("session", ({ reason }) => reasons.two.push(reason));
    server.intercept = async (request) => {
      if (request.method !== "DELETE" || request.path !== path) return undefined;
      const { opened: before } = server;
      server.token = "ended";
      server.broadcast({ type: "bye", reason: "signed_out", retry_after_ms: 0 });
      await two.refresh().catch(() => {});
      await until(() => server.opened === before && one.status.state === "waiting");
      return json(200, { status: "scheduled" });
    };
    await (reason === "deleted" ? two.account.remove() : two.account.signOut());
    await until(() => one.session === null && one.status.state === "signed_out");
    assert.deepEqual(reasons, { one: [reason], two: [reason] });
  });
}

test("a refused deletion keeps the session, unless its token is refused", async () => {
  const { client, server, events } = await live();
  server.intercept = ({ method, path }) => (method === "DELETE" && path === "/v1/me" ? problem(403, "recent_sign_in_required") : undefined);
  await assert.rejects(client.account.remove(), { code: "recent_sign_in_required" });
  assert.notEqual(client.session, null);
  server.token = "another";
  server.intercept = () => undefined;
  await assert.rejects(client.account.remove(), { code: "unauthenticated" });
  assert.equal(client.session, null);
  assert.deepEqual(events.session.map(({ reason }) => reason), ["signed_in", "expired"]);
});

/** Two tabs of one browser, both live, and the reasons of their events `session`. @param {any} [options] */
async function twoTabs(options) {
  const [browser, server, storage] = [new Browser(), new FakeServer(), memoryStore()];
  const tab = { storage, locks: browser.locks, channel: browser.channel, ...options };
  const { client: one, events } = await live(tab, server);
  const two = opened({ ...server.options, ...tab });
  await until(() => two.status.state === "live");
  const reasons = /** @type {Record<string, string[]>} */ ({ one: [], two: [] });
  one.on("session", ({ reason }) => reasons.one.push(reason));
  two.on("session", ({ reason }) => reasons.two.push(reason));
  return { server, storage, tab, one, two, events, reasons };
}

/** Holds the answer to a deletion of a session or account until `answer` is called. @param {FakeServer} server */
function held(server) {
  const asked = /** @type {string[]} */ ([]);
  /** @type {(response: any) => void} */
  let answer = () => {};
  const answered = new Promise((resolve) => (answer = resolve));
  server.intercept = ({ method, path, headers }) => {
    if (method !== "DELETE" || (path !== "/v1/me" && path !== "/v1/sessions/current")) return undefined;
    return asked.push(headers.get("authorization") ?? "") === 1 ? answered : json(204);
  };
  return { asked, answer: (/** @type {any} */ response) => answer(response) };
}

/** Timers that `advance` moves, in steps between which requests and messages are handled. @param {any} t */
function mockedTimers(t) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  return async (/** @type {number} */ milliseconds, step = 100) => {
    for (let time = 0; time < milliseconds; time += step) {
      t.mock.timers.tick(step);
      for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
}

const writes = (/** @type {FakeServer} */ server) => server.requests.filter((request) => /^POST \/v1\/(couple|uploads)/.test(request));
/** @type {(storage: any, prefix?: string) => Promise<string[]>} */
const storedKeys = async (storage, prefix = "") => (await storage.entries(prefix)).map((/** @type {[string, any]} */ [key]) => key);

test("nothing is sent while a deletion runs, and a refused token keeps the queue and the uploads", async () => {
  const storage = memoryStore();
  const { client, server, events } = await live({ storage });
  const uploads = /** @type {string[]} */ ([]);
  client.on("upload", ({ state }) => uploads.push(state));
  const { asked, answer } = held(server);
  const removed = assert.rejects(client.account.remove(), { code: "unauthenticated" });
  await until(() => asked.length === 1);
  await client.timeline.append("text", { text: "one" });
  await client.timeline.append("text", { text: "two" });
  await client.media.upload(new Blob(["x"]), { purpose: "photo" });
  server.token = "another";
  server.cut();
  await until(() => client.status.state === "waiting");
  answer(problem(401, "unauthenticated"));
  await removed;
  await until(() => client.status.state === "signed_out");
  assert.deepEqual([events.session.map(({ reason }) => reason), events.refused, uploads], [["signed_in", "expired"], [], ["waiting"]]);
  assert.deepEqual(writes(server), []);
  assert.deepEqual([(await storage.entries("account-1/q:")).length, (await storage.entries("account-1/u:")).length], [2, 1]);
  await client.account.signIn({ email: "ana@example.org", password: "a long password" });
  await until(() => client.timeline.queue.length === 0);
  assert.deepEqual(server.log.map(({ body }) => body?.text), [undefined, "one", "two"]);
});

test("the queue and the uploads are sent when a deletion is refused", async () => {
  const { client, server } = await live();
  const { asked, answer } = held(server);
  const removed = assert.rejects(client.account.remove(), { code: "recent_sign_in_required" });
  await until(() => asked.length === 1);
  await client.timeline.append("text", { text: "one" });
  await client.media.upload(new Blob(["x"]), { purpose: "photo" });
  answer(problem(403, "recent_sign_in_required"));
  await removed;
  await until(() => writes(server).length >= 2);
  assert.deepEqual(writes(server).slice(0, 2).sort(), ["POST /v1/couple/entries", "POST /v1/uploads"]);
});

test("an upload that has begun waits while a deletion runs", async () => {
  const { client, server } = await live({ uploadChunk: 1 });
  const { asked, answer } = held(server);
  const { intercept } = server;
  const patches = () => server.requests.filter((request) => request.startsWith("PATCH")).length;
  /** @type {Promise<void> | undefined} */
  let removed;
  server.intercept = async (request) => {
    if (request.path === "/v1/uploads") return json(201, undefined, { location: "/v1/uploads/1" });
    if (request.path !== "/v1/uploads/1") return intercept(request);
    removed ??= assert.rejects(client.account.remove(), { code: "recent_sign_in_required" });
    await until(() => asked.length === 1);
    const offset = request.method === "HEAD" ? 1 : patches();
    return json(204, undefined, { "upload-offset": String(offset), ...(offset === 3 && { "content-location": "/v1/media/m1" }) });
  };
  const progress = /** @type {number[]} */ ([]);
  client.on("upload", ({ sent }) => progress.push(sent));
  await client.media.upload(new Blob(["abc"]), { purpose: "photo" });
  await until(() => progress.includes(1));
  await client.refresh();
  await client.refresh();
  assert.equal(patches(), 1);
  answer(problem(403, "recent_sign_in_required"));
  await removed;
  await until(() => client.media.uploads.length === 0);
  assert.deepEqual([patches(), progress.at(-1)], [3, 3]);
});

test("a write and an upload whose token was replaced meanwhile are sent again with the new one", async () => {
  const { client, server, events } = await live();
  let sent = 0;
  server.intercept = async ({ method, path, headers }) => {
    if (path === "/v1/password") {
      server.token += "-new";
      return json(200, server.session);
    }
    if (method === "GET" || path === "/v1/sessions") return undefined;
    if (headers.get("authorization") === `Bearer ${server.token}` && sent++ % 2 === 0) {
      await client.account.setPassword({ new_password: "another password" });
      return problem(401, "unauthenticated");
    }
    if (path === "/v1/uploads") return json(201, undefined, { location: "/v1/uploads/1" });
    return path === "/v1/uploads/1" ? json(204, undefined, { "upload-offset": "1", "content-location": "/v1/media/m1" }) : undefined;
  };
  await client.timeline.append("text", { text: "one" });
  await until(() => client.timeline.queue.length === 0);
  const states = /** @type {string[]} */ ([]);
  client.on("upload", ({ state }) => states.push(state));
  await client.media.upload(new Blob(["x"]), { purpose: "photo" });
  await until(() => client.media.uploads.length === 0);
  assert.deepEqual(events.refused, []);
  assert.deepEqual(texts(client), ["one"]);
  assert.equal(states.at(-1), "complete");
});

for (const valid of [true, false]) {
  test(`a tab that is closed while it deletes the account holds the queue for a time only; the token is ${valid ? "valid" : "refused"}`, async (t) => {
    const { server, storage, one, two, events, reasons } = await twoTabs();
    const { asked, answer } = held(server);
    const advance = mockedTimers(t);
    const removed = two.account.remove().catch(() => {});
    await advance(100, 1);
    assert.equal(asked.length, 1);
    await two.close();
    await one.timeline.append("text", { text: "one" });
    if (!valid) {
      server.token = "another";
      server.cut();
    }
    await advance(25_000);
    assert.deepEqual([writes(server), reasons.one], [[], []]);
    await advance(8_000);
    assert.deepEqual(events.refused, []);
    assert.deepEqual(reasons.one, valid ? [] : ["expired"]);
    assert.equal((await storage.entries("account-1/q:")).length, valid ? 0 : 1);
    assert.equal(server.log.length, valid ? 2 : 1);
    answer(problem(503, "unavailable"));
    await advance(1_000);
    await removed;
    t.mock.timers.reset();
  });
}

test("a deletion that takes longer than other tabs wait is renewed", async (t) => {
  const { server, one, two, reasons } = await twoTabs({ requestTimeout: 120_000 });
  const { asked, answer } = held(server);
  const advance = mockedTimers(t);
  const removed = two.account.remove();
  await advance(100, 1);
  assert.equal(asked.length, 1);
  server.token = "ended";
  server.cut();
  await advance(45_000);
  assert.deepEqual(reasons, { one: [], two: [] });
  answer(json(200, { status: "deletion_scheduled", deletion_due: "2026-12-13T09:10:00.000Z" }));
  await advance(100, 1);
  assert.equal((await removed).deletion_due, "2026-12-13T09:10:00.000Z");
  assert.equal(one.session, null);
  assert.deepEqual(reasons, { one: ["deleted"], two: ["deleted"] });
  t.mock.timers.reset();
});

for (const act of /** @type {const} */ (["signOut", "remove"])) {
  test(`a slow ${act} keeps the session and the data of another account that signs in meanwhile`, async () => {
    const { server, storage, one, two, reasons } = await twoTabs();
    const { asked, answer } = held(server);
    const ended = two.account[act]();
    await until(() => asked.length === 1);
    Object.assign(server, { token: "token-2", accountId: "account-2" });
    await one.account.signIn({ email: "ben@example.org", password: "a long password" });
    await until(() => one.status.state === "live");
    one.setOnline(false);
    await one.timeline.append("text", { text: "of the other account" });
    answer(json(200, { status: "deletion_scheduled", deletion_due: "" }));
    await ended;
    assert.deepEqual(asked, ["Bearer token-1"]);
    await until(() => two.session !== null && two.timeline.queue.length === 1);
    assert.equal(one.session?.token, "token-2");
    assert.deepEqual(reasons, { one: ["signed_in"], two: ["signed_in"] });
    assert.equal((await storage.entries("account-2/q:")).length, 1);
    assert.deepEqual(await storedKeys(storage, "account-1"), []);
  });
}

test("a sign-out ends the new session of a password that is changed meanwhile, on the server too", async () => {
  const { server, storage, one, two, reasons } = await twoTabs();
  const { asked, answer } = held(server);
  const { intercept } = server;
  server.intercept = (request) => {
    if (request.path !== "/v1/password") return intercept(request);
    server.token = "token-2";
    return json(200, server.session);
  };
  const ended = two.account.signOut();
  await until(() => asked.length === 1);
  await one.account.setPassword({ new_password: "another password" });
  answer(problem(401, "unauthenticated"));
  await ended;
  assert.deepEqual(asked, ["Bearer token-1", "Bearer token-2"]);
  await until(() => one.session === null);
  assert.equal(reasons.one.at(-1), "signed_out");
  assert.deepEqual(await storage.entries(""), []);
});

test("a new session whose response arrives after the sign-out is ended on the server", async () => {
  const { server, storage, one, two, reasons } = await twoTabs();
  const ended = /** @type {(string | null)[]} */ ([]);
  let changed = () => {};
  server.intercept = ({ method, path, headers }) => {
    if (path === "/v1/password") return new Promise((resolve) => (changed = () => resolve(json(200, server.session))));
    if (method === "DELETE") return ended.push(headers.get("authorization")), problem(401, "unauthenticated");
    return undefined;
  };
  const change = one.account.setPassword({ new_password: "another password" });
  await until(() => server.requests.includes("PUT /v1/password"));
  server.token = "token-2";
  await two.account.signOut();
  await until(() => one.session === null);
  changed();
  await change.catch(() => {});
  assert.deepEqual(ended, ["Bearer token-1", "Bearer token-2"]);
  assert.equal(one.session, null);
  assert.deepEqual(reasons, { one: ["signed_out"], two: ["signed_out"] });
  assert.deepEqual(await storage.entries(""), []);
});

test("a session that is ended by its token, and refused, does not end the session of another account", async () => {
  const { client, server } = await live();
  let changed = () => {};
  server.intercept = ({ method, path, headers }) => {
    if (path === "/v1/password") {
      const { session } = server;
      return new Promise((resolve) => (changed = () => resolve(json(200, session))));
    }
    return method === "DELETE" && headers.get("authorization") !== `Bearer ${server.token}` ? problem(401, "unauthenticated") : undefined;
  };
  const change = client.account.setPassword({ new_password: "another password" });
  await until(() => server.requests.includes("PUT /v1/password"));
  Object.assign(server, { token: "token-2", accountId: "account-2" });
  await client.account.signIn({ email: "ben@example.org", password: "a long password" });
  changed();
  await change.catch(() => {});
  assert.equal(client.session?.account_id, "account-2");
});

test("a tab that becomes the leader after a sign-out stores nothing", async () => {
  const { storage, one, two } = await twoTabs();
  await two.account.signOut();
  await until(() => one.session === null);
  await one.close();
  await until(() => two.status.leader);
  await two.close();
  assert.deepEqual(await storage.entries(""), []);
});

for (const [name, failures] of /** @type {const} */ ([["one attempt", 1], ["all attempts of one call", 3]])) {
  test(`a deletion is done if its token is refused after the response to ${name} was lost`, async () => {
    const storage = memoryStore();
    const { client, server, events } = await live({ storage });
    let requests = 0;
    server.intercept = ({ method, path }) => {
      if (method !== "DELETE" || path !== "/v1/me") return undefined;
      if (++requests > failures) return problem(401, "unauthenticated");
      if (requests === 2) return problem(503, "unavailable");
      throw new TypeError("the connection broke before the answer");
    };
    if (failures === 3) await assert.rejects(client.account.remove(), { code: "network_error" });
    assert.deepEqual(await client.account.remove(), { status: "deletion_scheduled", deletion_due: null });
    assert.deepEqual(events.session.map(({ reason }) => reason), ["signed_in", "deleted"]);
    assert.deepEqual(await storage.entries(""), []);
  });
}

test("a deletion is not done if its token is refused after an answer that did nothing", async () => {
  const storage = memoryStore();
  const { client, server, events } = await live({ storage });
  const answers = [problem(429, "rate_limited"), problem(401, "unauthenticated")];
  server.intercept = ({ method }) => (method === "DELETE" ? answers.shift() : undefined);
  await assert.rejects(client.account.remove(), { code: "unauthenticated" });
  assert.deepEqual(events.session.map(({ reason }) => reason), ["signed_in", "expired"]);
  assert.ok((await storedKeys(storage)).includes("account-1/couple"));
});

test("signing out after the session has expired deletes what is stored, once", async () => {
  const storage = memoryStore();
  const { client, server, events } = await live({ storage });
  server.token = "another";
  await client.timeline.append("text", { text: "secret" });
  await until(() => client.session === null);
  assert.ok((await storedKeys(storage)).some((key) => key.startsWith("account-1/q:")));
  await client.account.signOut();
  await client.account.signOut();
  assert.deepEqual(events.session.map(({ reason }) => reason), ["signed_in", "expired", "signed_out"]);
  assert.deepEqual(await storage.entries(""), []);
  assert.deepEqual(texts(client), []);
  assert.ok(!server.requests.some((request) => request.startsWith("DELETE")));
});

for (const [name, broken, left] of /** @type {[string, (key: string) => boolean, boolean][]} */ ([
  ["all writes", () => true, true],
  ["writes of the data", (/** @type {string} */ key) => key.startsWith("account-1/"), false],
])) {
  test(`a sign-out while the storage refuses ${name} is reported, and the rest is deleted later`, async () => {
    const inner = memoryStore();
    let failing = false;
    const storage = { ...inner, write: async (/** @type {any[]} */ changes) => (failing && changes.some(([key]) => broken(key)) ? Promise.reject(new Error("the disk is full")) : inner.write(changes)) };
    const { client, server, events } = await live({ storage });
    failing = true;
    await assert.rejects(client.account.signOut(), { code: "storage_failed" });
    assert.equal(client.session, null);
    assert.deepEqual(events.session.map(({ reason }) => reason), ["signed_in", "signed_out"]);
    assert.equal((await storedKeys(inner)).includes("session"), left);
    assert.ok((await storedKeys(inner)).includes("account-1/couple"));
    failing = false;
    if (left) await client.account.signOut();
    else {
      await client.close();
      const next = opened({ ...server.options, storage });
      await next.ready;
      assert.equal(next.session, null);
    }
    await until(async () => (await inner.entries("")).length === 0);
  });
}

test("a sign-in as another account whose storage fails is rejected, and the session before it ends", async () => {
  const storage = memoryStore();
  const { client, server, events } = await live({ storage });
  const { write } = storage;
  storage.write = async (changes) => (changes.some(([key]) => key.startsWith("account-1/")) ? Promise.reject(new Error("full")) : write(changes));
  Object.assign(server, { token: "token-2", accountId: "account-2" });
  await assert.rejects(client.account.signIn({ email: "ben@example.org", password: "a long password" }), { code: "storage_failed" });
  assert.equal(client.session, null);
  assert.equal(events.session.at(-1).session, null);
  assert.deepEqual((await storedKeys(storage)).filter((key) => !key.includes("/")), []);
});

test("a session after a sign-out that could not delete everything does not send the former queue", async () => {
  const storage = memoryStore();
  const { client, server } = await live({ storage });
  client.setOnline(false);
  await client.timeline.append("text", { text: "secret" });
  const { write } = storage;
  storage.write = async (changes) => (changes.some(([key]) => key.startsWith("account-1/")) ? Promise.reject(new Error("full")) : write(changes));
  await assert.rejects(client.account.signOut(), { code: "storage_failed" });
  storage.write = write;
  client.setOnline(true);
  await client.account.signIn({ email: "ana@example.org", password: "a long password" });
  assert.deepEqual(await storedKeys(storage, "account-1/q:"), []);
  await until(() => client.status.state === "live");
  await client.close();
  const next = opened({ ...server.options, storage });
  await next.ready;
  assert.deepEqual(next.timeline.queue, []);
});

test("a couple that is read during a sign-out is not kept", async () => {
  const storage = memoryStore();
  const { client, server } = await live({ storage });
  let answer = () => {};
  server.intercept = ({ method, path }) => (method === "GET" && path === "/v1/couple" ? new Promise((resolve) => (answer = () => resolve(json(200, server.couple)))) : undefined);
  const before = server.requests.length;
  const read = client.refresh();
  await until(() => server.requests.length > before);
  await client.account.signOut();
  answer();
  await read;
  assert.equal(client.couple, undefined);
  await client.close();
  assert.deepEqual(await storage.entries(""), []);
});

test("what the storage has refused does not return after a sign-out", async () => {
  const storage = memoryStore();
  const { client, server, events } = await live({ storage });
  const { write } = storage;
  storage.write = () => Promise.reject(new Error("the disk is full"));
  server.append("partner", "text", { text: "secret" });
  await until(() => events.error.length > 0);
  storage.write = write;
  await client.account.signOut();
  Object.assign(server, { token: "token-2", accountId: "account-2", coupleNumber: 2, log: [] });
  server.append("system", "paired", null);
  await client.account.signIn({ email: "ben@example.org", password: "a long password" });
  await until(() => client.status.state === "live");
  await client.timeline.append("text", { text: "mine" });
  assert.deepEqual(await storedKeys(storage, "account-1"), []);
});

test("a tab that is opened during a sign-out does not report the session as expired", async () => {
  const { server, tab, one, two, reasons } = await twoTabs();
  const { asked, answer } = held(server);
  const ended = one.account.signOut();
  await until(() => asked.length === 1);
  server.token = "ended";
  const third = opened({ ...server.options, ...tab });
  const seen = /** @type {string[]} */ ([]);
  third.on("session", ({ reason }) => seen.push(reason));
  await until(() => third.status.state !== "idle");
  await assert.rejects(third.refresh(), { code: "unauthenticated" });
  answer(json(204));
  await ended;
  await until(() => third.session === null && two.session === null);
  assert.deepEqual([seen, reasons], [["signed_out"], { one: ["signed_out"], two: ["signed_out"] }]);
});

test("a deletion that is refused in one tab does not hide that another tab signs out", async () => {
  const { server, storage, one, two, reasons } = await twoTabs();
  const { asked, answer } = held(server);
  const { intercept } = server;
  server.intercept = (request) => (request.path === "/v1/me" ? problem(403, "recent_sign_in_required") : intercept(request));
  const ended = one.account.signOut();
  await until(() => asked.length === 1);
  await assert.rejects(two.account.remove(), { code: "recent_sign_in_required" });
  server.token = "ended";
  await assert.rejects(one.refresh(), { code: "unauthenticated" });
  await assert.rejects(two.refresh(), { code: "unauthenticated" });
  answer(json(204));
  await ended;
  await until(() => two.session === null);
  assert.deepEqual(reasons, { one: ["signed_out"], two: ["signed_out"] });
  assert.deepEqual(await storage.entries(""), []);
});

test("a token that one tab has replaced does not end the session of another", async () => {
  const [browser, server, storage] = [new Browser(), new FakeServer(), memoryStore()];
  const tab = { storage, locks: browser.locks, channel: browser.channel };
  const { client: one } = await live(tab, server);
  const two = opened({ ...server.options, ...tab });
  await until(() => two.status.state === "live");
  const reasons = /** @type {string[]} */ ([]);
  two.on("session", ({ reason }) => reasons.push(reason));
  server.token = "token-2";
  await storage.write([["session", { id: "session", account_id: "account-1", token: "token-2", expires_at: "" }]]);
  await two.refresh().catch(() => {});
  await until(() => two.session?.token === "token-2");
  assert.deepEqual(reasons, ["rotated"]);
  await one.close();
});

test("calls are repeated after a temporary failure, unless that could act twice", async () => {
  const { client, server } = await started();
  const failing = (/** @type {number} */ times) => (server.intercept = ({ path }) => (path.startsWith("/v1/invites") && times-- > 0 ? problem(503, "unavailable") : undefined));
  const calls = () => server.requests.filter((request) => request.includes("/v1/invites")).length;
  server.requests.length = 0;
  failing(5);
  await assert.rejects(client.pairing.invite(), { code: "unavailable", status: 503, temporary: true });
  assert.equal(calls(), 3);
  server.requests.length = 0;
  failing(5);
  await assert.rejects(client.pairing.preview({ code: "x" }), { code: "unavailable" });
  assert.equal(calls(), 1);
});
