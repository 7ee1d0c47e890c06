/** Against the server example, over connections that break: nothing is lost, nothing doubled, and the order is kept. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { createClient } from "../src/index.js";
import { fileStore } from "../src/node.js";
import { until } from "./support/fake-server.js";
import { Proxy } from "./support/proxy.js";
import { Server, pair, signUp } from "./support/server.js";

/** Cuts of the connections, kills of the server, and writes between two of them. */
const CUTS = Number(process.env.COUPLE_TEST_CUTS ?? 200);
const KILLS = Number(process.env.COUPLE_TEST_KILLS ?? 5);
const WRITES_PER_CUT = 10;
const FAST = { backoff: { first: 20, most: 200 } };

/**
 * All entries of the log as the server has them.
 * @param {Server} server
 * @param {string} token
 */
async function wholeLog(server, token) {
  const log = [];
  for (let after = 0; ; ) {
    const { entries, next } = await server.call("GET", `/v1/couple/entries?after=${after}&limit=200`, token);
    log.push(...entries);
    if (next === null) return log;
    after = next;
  }
}

test(`${CUTS} cuts, ${KILLS} kills and expired sessions lose, double and reorder nothing`, async (t) => {
  const server = await Server.start();
  const proxy = await Proxy.start(server.port);
  const options = { ...FAST, baseUrl: proxy.url, WebSocket: /** @type {any} */ (WebSocket) };
  const [ana, ben] = [createClient(options), createClient(options)];
  const seen = /** @type {any[]} */ ([]);
  const problems = /** @type {any[]} */ ([]);
  const used = new Set();
  ben.on("entry", (entry) => seen.push(entry));
  for (const client of [ana, ben]) {
    client.on("refused", (refused) => problems.push(refused));
    client.on("error", (error) => problems.push(error));
    client.on("reset", (reset) => problems.push(reset));
    client.on("status", ({ state, transport }) => state === "live" && used.add(transport));
  }
  await pair(server, ana, ben);
  const email = (await ben.account.me()).email;
  ana.connect();
  ben.connect();
  await until(() => ana.status.state === "live" && ben.status.state === "live");

  const begun = Date.now();
  let written = 0;
  const transports = /** @type {const} */ ([null, "websocket", "sse", "poll"]);
  for (let cut = 0; cut < CUTS; cut++) {
    if (cut % 20 === 0) for (const client of [ana, ben]) client.setTransport(transports[(cut / 20) % 4]);
    for (let n = 0; n < WRITES_PER_CUT; n++) {
      await ana.timeline.append("text", { text: String(written++) });
      if (n === cut % WRITES_PER_CUT) proxy.cut();
      if (n % 4 === 0) await sleep(Math.random() * 10);
    }
    if (KILLS > 0 && cut % Math.ceil(CUTS / KILLS) === 7) {
      await server.kill();
      await server.start();
    }
    if (cut % 50 === 25) {
      // Ben's session ends on the server while he follows; he signs in again.
      const token = ben.session?.token;
      await until(async () => server.call("DELETE", "/v1/sessions/current", token).then(() => true, () => false));
      await until(() => ben.session === null, "the session has expired", 30_000);
      await ben.account.requestCode(email).catch(() => {});
      await sleep(300);
      for (let tries = 0; !ben.session; tries++) {
        await ben.account.signIn({ email, code: await server.code(email) }).catch((error) => {
          if (tries > 50) throw error;
        });
        await sleep(50);
      }
    }
    // The queue must not only grow: a cut in the middle of many entries differs from one before them all.
    if (cut % 10 === 9) await until(() => ana.timeline.queue.length === 0, "the queue is sent", 60_000);
  }
  await until(() => ana.timeline.queue.length === 0, "the queue is sent", 60_000);
  const log = await wholeLog(server, /** @type {any} */ (ana.session).token);
  const last = log.at(-1).seq;
  await until(() => (seen.at(-1)?.seq ?? 0) >= last, "all entries have arrived", 60_000);
  await sleep(100);

  const wanted = Array.from({ length: written }, (_, n) => String(n));
  const texts = (/** @type {any[]} */ entries) => entries.filter(({ kind }) => kind === "text").map(({ body }) => body.text);
  t.diagnostic(`${written} writes over ${proxy.cuts} cuts, ${KILLS} kills, ${proxy.accepted} connections, ${[...used].join(", ")}, in ${(Date.now() - begun) / 1000} s`);
  assert.deepEqual(texts(log), wanted, "the log of the server");
  assert.deepEqual(texts(seen), wanted, "the entries that Ben's client reported");
  assert.deepEqual(texts([...ben.timeline.entries]).slice(-100), wanted.slice(-100));
  assert.deepEqual(texts([...ana.timeline.entries]), wanted, "the entries that Ana sees");
  assert.deepEqual(problems, []);
  assert.equal(used.size, 3);
  await ana.close();
  await ben.close();
  proxy.stop();
  await server.stop();
});

test("the queue survives a process that is killed at any moment", async (t) => {
  const server = await Server.start();
  const proxy = await Proxy.start(server.port);
  const folder = await mkdtemp(join(tmpdir(), "couple-client-"));
  const path = join(folder, "store");
  const ana = createClient({ baseUrl: server.url, storage: fileStore(path) });
  const ben = createClient({ ...FAST, baseUrl: server.url, WebSocket: /** @type {any} */ (WebSocket) });
  await pair(server, ana, ben);
  await ana.refresh();
  await ana.close();

  // Each run writes numbers from where the run before stopped, and says so once they are stored.
  let stored = -1;
  const program = fileURLToPath(new URL("support/writer.js", import.meta.url));
  for (let run = 0; run < 15; run++) {
    const child = spawn(process.execPath, [program, proxy.url, path, String(stored + 1)], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (data) => {
      text += data;
      const lines = text.split("\n").slice(0, -1);
      if (lines.length > 0) stored = Math.max(stored, Number(lines.at(-1)));
    });
    const before = stored;
    await until(() => stored > before, "the program writes", 20_000);
    await sleep(Math.random() * 60);
    if (run % 3 === 1) proxy.cut();
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGKILL");
    await ended;
  }
  const last = createClient({ ...FAST, baseUrl: server.url, storage: fileStore(path) });
  await last.ready;
  await until(() => last.timeline.queue.length === 0, "the queue is sent", 30_000);
  const texts = (await wholeLog(server, /** @type {any} */ (ben.session).token)).filter(({ kind }) => kind === "text").map(({ body }) => Number(body.text));
  t.diagnostic(`${texts.length} entries of 15 killed processes`);
  // A number that was stored but not yet reported is written again by the next run, as another entry.
  const distinct = texts.filter((number, at) => number !== texts[at - 1]);
  assert.deepEqual(distinct, Array.from({ length: distinct.length }, (_, n) => n));
  assert.ok(distinct.length > stored);
  assert.ok(texts.length - distinct.length <= 15);
  await last.close();
  await ben.close();
  proxy.stop();
  await server.stop();
  await rm(folder, { recursive: true });
});

test("a client that starts without network connects when it comes, and finds what happened", async () => {
  const server = await Server.start();
  const [ana, ben] = [createClient({ ...FAST, baseUrl: server.url }), createClient({ ...FAST, baseUrl: server.url })];
  await pair(server, ana, ben);
  await signUp(server, createClient({ baseUrl: server.url }), "Cleo");
  await server.kill();
  ben.connect();
  await until(() => ben.status.state === "waiting");
  await ana.refresh().catch(() => {});
  await server.start();
  await until(() => ben.status.state === "live", "the client connects", 20_000);
  await ana.timeline.append("text", { text: "back" });
  await until(() => ben.timeline.entries.some(({ body }) => body?.text === "back"));
  await ana.close();
  await ben.close();
  await server.stop();
});
