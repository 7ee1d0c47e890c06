/** Writes of the timeline: the queue, lost answers and refusals, with a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { memoryStore } from "../../src/index.js";
import { live, opened, started, texts } from "../support/engine.js";
import { json, problem, until } from "../support/fake-server.js";

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
