/** Two users of the server example, from sign-up to the deletion of an account. */

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { WebSocket } from "ws";

import { createClient, memoryStore } from "../src/index.js";
import { until } from "./support/fake-server.js";
import { Server, pair, signUp } from "./support/server.js";
import { Browser } from "./support/tabs.js";

/** @type {Server} */
let server;
before(async () => {
  server = await Server.start();
});
after(() => server.stop());

const clients = /** @type {import("../src/index.js").Client[]} */ ([]);
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
});

/** @param {any} [options] */
function client(options) {
  const client = createClient({ baseUrl: server.url, WebSocket, backoff: { first: 20, most: 200 }, ...options });
  clients.push(client);
  return client;
}

test("accounts: code, password, link, sessions, profile, export, deletion", async () => {
  const [ana, phone] = [client(), client()];
  const email = await signUp(server, ana, "Ana");
  await assert.rejects(ana.account.setPassword({ new_password: "short" }), { code: "invalid_field", status: 422 });
  const reasons = /** @type {string[]} */ ([]);
  ana.on("session", ({ reason }) => reasons.push(reason));
  const before = ana.session?.token;
  await ana.account.setPassword({ new_password: "correct horse battery" });
  assert.notEqual(ana.session?.token, before);
  await assert.rejects(phone.account.signIn({ email, password: "wrong horse battery" }), { code: "invalid_credentials", status: 401, temporary: false });
  await phone.account.signIn({ email, password: "correct horse battery" });
  assert.equal(phone.session?.account_id, ana.session?.account_id);
  const sessions = await ana.account.sessions();
  assert.equal(sessions.length, 2);
  phone.connect();
  await until(() => phone.status.state === "not_paired");
  await ana.account.endOtherSessions();
  await until(() => phone.session === null && phone.status.state === "signed_out");
  assert.equal((await ana.account.update({ display_name: "Ana María", birthday: "1990-01-02" })).display_name, "Ana María");
  assert.equal((await ana.account.export()).account.email, email);
  assert.equal((await ana.account.remove()).status, "deletion_scheduled");
  assert.equal(ana.session, null);
  assert.deepEqual(reasons, ["rotated", "deleted"]);
});

test("pairing: invite, preview, decline, crossing invites, leave, block, pair again", async () => {
  const [ana, ben] = [client(), client()];
  const [anaEmail, benEmail] = [await signUp(server, ana, "Ana"), await signUp(server, ben, "Ben")];
  const declined = await ana.pairing.invite({ email: benEmail, message: "Hey you" });
  assert.equal((await ben.pairing.invites()).received.length, 1);
  assert.equal((await ben.pairing.preview({ id: /** @type {any} */ (declined).id })).from.display_name, "Ana");
  await ben.pairing.decline({ id: /** @type {any} */ (declined).id });
  await ana.pairing.invite({ email: benEmail });
  ana.connect();
  ben.connect();
  const crossed = await ben.pairing.invite({ email: anaEmail });
  assert.ok("couple" in crossed);
  await until(() => ben.status.state === "live" && ana.status.state === "live");
  await ana.pairing.describe({ title: "Us", anniversary: "2020-02-29" });
  await until(() => ben.couple?.title === "Us");
  await ben.account.update({ display_name: "Benjamin" });
  await until(() => ana.couple?.partner.display_name === "Benjamin");
  await ana.timeline.append("text", { text: "before" });
  await until(() => ben.timeline.entries.at(-1)?.body?.text === "before");
  await ben.pairing.leave();
  await until(() => ana.couple === null && ben.couple === null && ana.timeline.entries.length === 0);
  const again = /** @type {any} */ (await ana.pairing.invite());
  await ben.pairing.accept({ token: again.link });
  await until(() => ana.status.state === "live" && ben.status.state === "live");
  await ana.pairing.restore(true);
  await ben.pairing.restore(true);
  await until(() => ana.couple?.previous?.restored);
  assert.ok((await ana.pairing.previous({ limit: 10 })).entries.some(({ body }) => body?.text === "before"));
  await ana.pairing.leave({ block: true });
  const blocks = await ana.pairing.blocks();
  assert.deepEqual(blocks.map(({ display_name }) => display_name), ["Benjamin"]);
  await ana.pairing.unblock(blocks[0].id);
});

for (const transport of /** @type {const} */ (["websocket", "sse", "poll"])) {
  test(`live over ${transport}: entries, changes, signals, presence, read positions`, async () => {
    const [ana, ben] = [client({ transports: [transport] }), client({ transports: [transport] })];
    await pair(server, ana, ben);
    const signals = /** @type {any[]} */ ([]);
    ben.on("signal", (signal) => signals.push(signal));
    ana.connect();
    ben.connect();
    await until(() => ana.status.state === "live" && ben.status.state === "live");
    await until(() => ana.couple?.partner.presence === "here" && ben.couple?.partner.presence === "here");
    const { key } = await ana.timeline.append("text", { text: "hello" });
    await until(() => ben.timeline.entries.at(-1)?.body?.text === "hello");
    const theirs = /** @type {any} */ (ben.timeline.entries.at(-1));
    await ana.timeline.edit(key, { text: "hello!" });
    await ben.timeline.react(theirs.key, "❤️");
    await ben.timeline.markRead();
    await until(() => ben.timeline.get(theirs.key)?.body?.text === "hello!");
    await until(() => ana.timeline.get(key)?.reactions.partner === "❤️" && ana.timeline.partnerRead >= theirs.seq);
    await ben.timeline.react(theirs.key, null);
    await until(() => ana.timeline.get(key)?.reactions.partner === undefined);
    await ana.timeline.delete(key);
    await until(() => ben.timeline.get(theirs.key)?.deleted_at);
    await until(async () => {
      await ana.signal("thumb", { x: 0.5, y: 0.5 });
      return signals.length > 0;
    });
    assert.deepEqual(signals[0], { from: "partner", kind: "thumb", body: { x: 0.5, y: 0.5 } });
    });
}

test("two tabs of one browser have one connection, and the second takes over", async () => {
  const [browser, storage] = [new Browser(), memoryStore()];
  const tab = { storage, locks: browser.locks, channel: browser.channel };
  const [one, ben] = [client(tab), client()];
  await pair(server, one, ben);
  const two = client(tab);
  one.connect();
  await until(() => one.status.state === "live" && two.status.state === "live");
  for (let n = 0; n < 20; n++) {
    await (n % 2 ? one : two).timeline.append("text", { text: String(n) });
    await until(() => one.timeline.entries.length === n + 2 && two.timeline.entries.length === n + 2);
    if (n === 10) await one.close().then(() => until(() => two.status.leader));
    if (n === 10) break;
  }
  for (let n = 11; n < 20; n++) await two.timeline.append("text", { text: String(n) });
  ben.connect();
  await until(() => two.timeline.queue.length === 0 && ben.timeline.entries.length === 21);
  const texts = ben.timeline.entries.slice(1).map(({ body }) => body?.text);
  assert.deepEqual(texts, Array.from({ length: 20 }, (_, n) => String(n)));
  assert.deepEqual(two.timeline.entries.slice(1).map(({ body }) => body?.text), texts);
});
