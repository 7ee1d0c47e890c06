/** Sessions that expire or are replaced, with a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { memoryStore } from "../../src/index.js";
import { held, live, opened, storedKeys, texts, twoTabs } from "../support/engine.js";
import { FakeServer, json, problem, until } from "../support/fake-server.js";
import { Browser } from "../support/tabs.js";

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
