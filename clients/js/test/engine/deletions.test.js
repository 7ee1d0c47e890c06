/** Deletions of an account beside other calls and tabs, with a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { memoryStore } from "../../src/index.js";
import { held, live, mockedTimers, storedKeys, twoTabs, writes } from "../support/engine.js";
import { json, problem, until } from "../support/fake-server.js";

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
