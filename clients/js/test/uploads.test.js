/** Resumable uploads to the server example. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { deflateSync } from "node:zlib";

import { createClient, memoryStore } from "../src/index.js";
import { fileStore } from "../src/node.js";
import { until } from "./support/fake-server.js";
import { Proxy } from "./support/proxy.js";
import { Server, pair, signUp } from "./support/server.js";

const FAST = { backoff: { first: 20, most: 200 }, uploadChunk: 16_384 };

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
function opened(options) {
  const client = createClient({ ...FAST, baseUrl: server.url, ...options });
  clients.push(client);
  return client;
}

/** CRC-32 of PNG. @param {Buffer} bytes */
function crc(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (0xedb88320 & -(sum & 1));
  }
  return ~sum >>> 0;
}

/** A PNG of random pixels, which does not compress. @param {number} side @returns {Blob} */
function noise(side) {
  const chunk = (/** @type {string} */ type, /** @type {Buffer} */ data) => {
    const named = Buffer.concat([Buffer.from(type), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc(named));
    return Buffer.concat([length, named, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(side, 0);
  head.writeUInt32BE(side, 4);
  head.set([8, 2], 8);
  const row = () => Buffer.concat([Buffer.from([0]), Buffer.from(Array.from({ length: side * 3 }, () => Math.random() * 256))]);
  const pixels = deflateSync(Buffer.concat(Array.from({ length: side }, row)), { level: 0 });
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return new Blob([signature, chunk("IHDR", head), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))], { type: "image/png" });
}

/** Id of the picture of the same bytes, sent in one request. @param {Blob} blob @param {string | undefined} token */
async function directly(blob, token) {
  const response = await fetch(`${server.url}/v1/media?purpose=photo`, { method: "POST", body: blob, headers: { authorization: `Bearer ${token}` } });
  return (await response.json()).id;
}

/** @param {any} [options] */
async function couple(options = {}) {
  const [ana, ben] = [opened(options), opened()];
  await pair(server, ana, ben);
  await ana.refresh();
  await ben.refresh();
  return { ana, ben };
}

test("a photo is uploaded with progress and appended once", async () => {
  const { ana, ben } = await couple();
  ben.connect();
  const blob = noise(300);
  const sent = /** @type {number[]} */ ([]);
  ana.on("upload", (upload) => sent.push(upload.sent));
  const upload = await ana.media.upload(blob, { purpose: "photo", entry: { body: { caption: "noise" } } });
  assert.equal(ana.media.uploads.length, 1);
  const media = await ana.media.finished(upload.id);
  assert.equal(ana.media.uploads.length, 0);
  assert.ok(sent.length > 5 && sent.at(-1) === blob.size && sent.every((bytes, at) => at === 0 || bytes >= sent[at - 1]), String(sent));
  assert.equal(media.id, await directly(blob, ana.session?.token));
  await until(() => ben.timeline.entries.some(({ kind, body }) => kind === "photo" && body?.media_id === media.id && body?.caption === "noise"));
  assert.equal((await ana.media.ready(media.id)).state, "ready");
  await until(() => ben.timeline.entries.at(-1)?.body?.media.state === "ready");
  assert.equal(ben.timeline.entries.filter(({ kind }) => kind === "photo").length, 1);
});

test("an upload over a connection that breaks again and again arrives complete", async (t) => {
  const proxy = await Proxy.start(server.port);
  const { ana } = await couple({ baseUrl: proxy.url });
  const blob = noise(400);
  const { id } = await ana.media.upload(blob, { purpose: "photo" });
  const finished = ana.media.finished(id);
  const timer = setInterval(() => proxy.cuts < 20 && proxy.cut(), 25);
  const media = await finished;
  clearInterval(timer);
  t.diagnostic(`${blob.size} bytes, ${proxy.cuts} cuts, ${proxy.accepted} connections`);
  assert.ok(proxy.cuts >= 3);
  assert.equal(media.id, await directly(blob, ana.session?.token));
  proxy.stop();
});

test("an upload continues after a restart, and its entry is appended once", async () => {
  const folder = await mkdtemp(join(tmpdir(), "couple-client-"));
  const path = join(folder, "store");
  const { ana } = await couple({ storage: fileStore(path) });
  const blob = noise(400);
  const { id } = await ana.media.upload(blob, { purpose: "photo", entry: {} });
  await until(() => (ana.media.uploads[0]?.sent ?? 0) > blob.size / 4);
  await ana.close();

  const created = /** @type {string[]} */ ([]);
  const counting = /** @type {typeof fetch} */ ((url, init) => {
    if (init?.method === "POST" || init?.method === "PATCH") created.push(`${init.method} ${url}`);
    return fetch(url, init);
  });
  const next = opened({ storage: fileStore(path), fetch: counting });
  await next.ready;
  assert.equal(next.media.uploads[0].id, id);
  const media = await next.media.finished(id);
  assert.equal(media.id, await directly(blob, next.session?.token));
  assert.ok(!created.some((request) => request.endsWith("/v1/uploads")), "the same upload continued");
  assert.ok(created.filter((request) => request.startsWith("PATCH")).length < blob.size / FAST.uploadChunk, "from where it was");
  await until(() => next.timeline.queue.length === 0);
  const { entries } = await next.timeline.page({ kind: "photo" });
  assert.deepEqual(entries.map(({ body }) => body?.media_id), [media.id]);
  await rm(folder, { recursive: true });
});

test("the same file chosen again continues its upload; an upload can be cancelled", async () => {
  const { ana } = await couple();
  ana.setOnline(false);
  const file = () => new File([Buffer.from("not a picture")], "cat.png", { type: "image/png", lastModified: 1 });
  const [one, same] = [await ana.media.upload(file(), { purpose: "photo" }), await ana.media.upload(file(), { purpose: "photo" })];
  assert.equal(one.id, same.id);
  const other = await ana.media.upload(noise(10), { purpose: "photo" });
  assert.deepEqual(ana.media.uploads.map(({ id }) => id), [one.id, other.id]);
  const cancelled = assert.rejects(ana.media.finished(one.id), { code: "aborted" });
  await ana.media.cancel(one.id);
  await cancelled;
  ana.setOnline(true);
  await ana.media.finished(other.id);
  assert.deepEqual(ana.media.uploads, []);
});

test("a file that is no picture fails once, and the next one is sent", async () => {
  const storage = memoryStore();
  const { ana } = await couple({ storage });
  const bad = await ana.media.upload(new Blob([Buffer.alloc(100_000, "text ")]), { purpose: "photo", entry: {} });
  const good = await ana.media.upload(noise(20), { purpose: "photo" });
  await assert.rejects(ana.media.finished(bad.id), { code: "unknown_type", status: 415 });
  await ana.media.finished(good.id);
  const keys = (await storage.entries("")).map(([key]) => key);
  assert.ok(!keys.some((key) => /\/[ub]:/.test(key)), String(keys));
  assert.deepEqual(ana.timeline.queue, []);
});

test("a photo for an ended couple is not shown to the next one", async () => {
  const { ana } = await couple();
  const upload = await ana.media.upload(noise(400), { purpose: "photo", entry: {} });
  await until(() => (ana.media.uploads[0]?.sent ?? 0) > 0);
  ana.setOnline(false);
  const outcome = assert.rejects(ana.media.finished(upload.id), { code: "not_paired" });
  await server.call("DELETE", "/v1/couple", ana.session?.token);
  const cleo = opened();
  await signUp(server, cleo, "Cleo");
  const { code } = await server.call("POST", "/v1/invites", ana.session?.token, {});
  await cleo.pairing.accept({ code });
  ana.setOnline(true);
  await outcome;
  assert.deepEqual((await cleo.timeline.page({ kind: "photo" })).entries, []);
});

test("an avatar is uploaded with its crop and shown", async () => {
  const client = opened();
  await signUp(server, client, "Dora");
  const { id } = await client.media.upload(noise(120), { purpose: "avatar", crop: "10,10,100,100" });
  const media = await client.media.finished(id);
  assert.equal((await client.media.ready(media.id)).state, "ready");
  await client.account.setAvatar(media.id);
  assert.equal((await client.account.me()).avatar?.id, media.id);
  await client.account.clearAvatar();
  assert.equal((await client.account.me()).avatar, null);
});
