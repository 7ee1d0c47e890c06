/** Transports and what they carry: order, replacement, signals and presence, with a server in memory that misbehaves. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { memoryStore } from "../../src/index.js";
import { live, opened } from "../support/engine.js";
import { FakeServer, until } from "../support/fake-server.js";
import { Browser } from "../support/tabs.js";

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
