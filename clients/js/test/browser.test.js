/** `couple-client/browser` in Chromium, loaded as source, against the server example over a proxy that cuts. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { createClient } from "../src/index.js";
import { Chromium, servePage } from "./support/chromium.js";
import { until } from "./support/fake-server.js";
import { Proxy } from "./support/proxy.js";
import { Server, signUp } from "./support/server.js";

const CUTS = Number(process.env.COUPLE_TEST_CUTS ?? 200) / 4;

/** @type {Server} */
let server;
/** @type {Proxy} */
let proxy;
/** @type {Chromium} */
let chromium;
/** @type {Awaited<ReturnType<typeof servePage>>} */
let page;
/** Partner of the user in the browser. @type {import("../src/index.js").Client} */
let partner;

before(async () => {
  page = await servePage();
  server = await Server.start({ COUPLE_CORS_ORIGINS: page.origin });
  proxy = await Proxy.start(server.port);
  chromium = await Chromium.start();
  partner = createClient({ baseUrl: server.url, backoff: { first: 20, most: 200 } });
  await signUp(server, partner, "Ben");
  partner.connect();
});
after(async () => {
  await partner?.close();
  await chromium?.stop();
  proxy?.stop();
  await server?.stop();
  page?.stop();
});

// Functions that run in the page.

/** @param {string} baseUrl */
const start = async (baseUrl) => {
  const page = /** @type {any} */ (globalThis);
  page.client = page.createClient({ baseUrl, backoff: { first: 20, most: 200 }, uploadChunk: 16_384 });
  page.seen = [];
  page.problems = [];
  page.client.on("entry", (/** @type {any} */ entry) => page.seen.push(entry.seq));
  for (const type of ["refused", "error", "reset"]) page.client.on(type, (/** @type {any} */ value) => page.problems.push(`${type} ${JSON.stringify(value)}`));
  await page.client.ready;
  page.client.connect();
};
const isLive = () => /** @type {any} */ (globalThis).client.status.state === "live";
const status = () => /** @type {any} */ (globalThis).client.status;
const texts = () => /** @type {any} */ (globalThis).client.timeline.entries.filter((/** @type {any} */ { kind }) => kind === "text").map((/** @type {any} */ { body }) => body.text);
const queued = () => /** @type {any} */ (globalThis).client.timeline.queue.length;
/** @param {string} text */
const append = (text) => /** @type {any} */ (globalThis).client.timeline.append("text", { text }).then(() => true);

/** Opens a tab with a started client. */
async function openTab() {
  const tab = await chromium.open(page.origin);
  await tab.until(() => typeof (/** @type {any} */ (globalThis).createClient) === "function");
  await tab.run(start, proxy.url);
  return tab;
}

test("two tabs: one connection, shared session, nothing lost over cuts, a closed leader and a reload", async (t) => {
  const one = await openTab();
  await one.run((email) => /** @type {any} */ (globalThis).client.account.signUp({ email, display_name: "Ana" }), "ana@example.org");
  const code = await server.code("ana@example.org");
  await one.run((email, code) => /** @type {any} */ (globalThis).client.account.verify({ email, code }).then(() => true), "ana@example.org", code);
  const invite = /** @type {any} */ (await partner.pairing.invite());
  await one.run((ref) => /** @type {any} */ (globalThis).client.pairing.accept(ref).then(() => true), { code: invite.code });
  await one.until(isLive);
  assert.equal((await one.run(status)).transport, "websocket");
  const two = await openTab();
  await two.until(isLive);
  assert.deepEqual([(await one.run(status)).leader, (await two.run(status)).leader], [true, false]);

  let tabs = [one, two];
  const wanted = [];
  for (let cut = 0; cut < CUTS; cut++) {
    const transport = [null, "sse", "poll", "websocket"][Math.floor(cut / 5) % 4];
    if (cut % 5 === 0) await tabs[0].run((name) => /** @type {any} */ (globalThis).client.setTransport(name), transport);
    for (let n = 0; n < 4; n++) {
      wanted.push(String(wanted.length));
      // A tab shows what the other one wrote before the user can answer to it.
      await tabs[n % 2].run(append, wanted.at(-1));
      await tabs[(n + 1) % 2].until((text) => /** @type {any} */ (globalThis).client.timeline.entries.some((/** @type {any} */ { body }) => body?.text === text), wanted.at(-1));
      if (n === cut % 4) proxy.cut();
    }
    if (cut === Math.floor(CUTS / 3)) {
      // The leader is closed with a queue.
      await one.close();
      await two.until(() => /** @type {any} */ (globalThis).client.status.leader);
      tabs = [two, await openTab()];
      await tabs[1].until(isLive);
    }
    if (cut === Math.floor((2 * CUTS) / 3)) {
      await two.reload();
      await tabs[1].until(() => /** @type {any} */ (globalThis).client.status.leader);
      await two.until(() => typeof (/** @type {any} */ (globalThis).createClient) === "function");
      await two.run(start, proxy.url);
    }
  }
  for (const tab of tabs) await tab.until(() => /** @type {any} */ (globalThis).client.timeline.queue.length === 0);
  const mine = () => partner.timeline.entries.filter(({ kind }) => kind === "text").map(({ body }) => body?.text);
  await until(() => mine().length >= wanted.length);
  await sleep(200);
  assert.deepEqual(mine(), wanted);
  for (const tab of tabs) {
    assert.deepEqual(await tab.run(texts), wanted);
    assert.equal(await tab.run(queued), 0);
    const seen = await tab.run(() => /** @type {any} */ (globalThis).seen);
    assert.deepEqual(seen, seen.map((/** @type {number} */ _, /** @type {number} */ at) => seen[0] + at), "entries in order, without gaps");
    assert.deepEqual(await tab.run(() => /** @type {any} */ (globalThis).problems), []);
  }
  t.diagnostic(`${wanted.length} writes of two tabs over ${proxy.cuts} cuts, ${proxy.accepted} connections`);
  for (const tab of tabs) await tab.close();
});

test("a reload in the middle of an upload continues it, and its entry is appended once", async () => {
  const tab = await openTab();
  await tab.until(isLive);
  await tab.run(async () => {
    const { client } = /** @type {any} */ (globalThis);
    const canvas = new OffscreenCanvas(600, 600);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const image = context.createImageData(600, 600);
    for (let at = 0; at < image.data.length; at++) image.data[at] = at % 4 === 3 ? 255 : Math.random() * 256;
    context.putImageData(image, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/png" });
    await client.media.upload(new File([blob], "noise.png", { type: "image/png" }), { purpose: "photo", entry: { body: { caption: "noise" } } });
  });
  await tab.until(() => /** @type {any} */ (globalThis).client.media.uploads[0]?.sent > 0);
  await tab.reload();
  await tab.until(() => typeof (/** @type {any} */ (globalThis).createClient) === "function");
  await tab.run(start, proxy.url);
  assert.equal(await tab.run(() => /** @type {any} */ (globalThis).client.media.uploads.length), 1, "the upload had not ended before the reload");
  await until(() => partner.timeline.entries.at(-1)?.body?.media?.state === "ready");
  const photos = partner.timeline.entries.filter(({ kind }) => kind === "photo");
  assert.equal(photos.length, 1);
  assert.equal(photos[0].body?.caption, "noise");
  await tab.close();
});
