/** Tabs of one browser: one holds the connection, with a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { memoryStore } from "../../src/index.js";
import { live, opened, texts } from "../support/engine.js";
import { FakeServer, problem, until } from "../support/fake-server.js";
import { Browser } from "../support/tabs.js";

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
