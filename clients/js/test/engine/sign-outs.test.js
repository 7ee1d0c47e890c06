/** Sign-outs beside other calls and tabs, with a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { memoryStore } from "../../src/index.js";
import { held, live, opened, storedKeys, texts, twoTabs } from "../support/engine.js";
import { json, problem, until } from "../support/fake-server.js";

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

test("a tab that becomes the leader after a sign-out stores nothing", async () => {
  const { storage, one, two } = await twoTabs();
  await two.account.signOut();
  await until(() => one.session === null);
  await one.close();
  await until(() => two.status.leader);
  await two.close();
  assert.deepEqual(await storage.entries(""), []);
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
