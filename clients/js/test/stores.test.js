/** The stores keep what they promise. */

import "fake-indexeddb/auto";

import assert from "node:assert/strict";
import { appendFile, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { indexedDbStore } from "../src/browser.js";
import { memoryStore } from "../src/index.js";
import { fileStore } from "../src/node.js";
import { Writer } from "../src/store.js";

const folder = await mkdtemp(join(tmpdir(), "couple-client-"));
process.on("exit", () => void rm(folder, { recursive: true }));

const stores = {
  memory: () => memoryStore(),
  file: () => fileStore(join(folder, "store")),
  indexeddb: () => indexedDbStore("test"),
};

for (const [name, open] of Object.entries(stores)) {
  test(`${name}: values are found by prefix in the order of keys, and deleted`, async () => {
    const store = open();
    await store.write([["b:2", { text: "two" }], ["b:1", { text: "one", list: [1, null] }], ["c", true]]);
    assert.deepEqual(await store.entries("b:"), [["b:1", { text: "one", list: [1, null] }], ["b:2", { text: "two" }]]);
    await store.write([["b:1", undefined], ["b:2", { text: "new" }], ["never", undefined]]);
    assert.deepEqual(await store.entries(""), [["b:2", { text: "new" }], ["c", true]]);
    await store.close();
  });
}

for (const name of /** @type {const} */ (["file", "indexeddb"])) {
  test(`${name}: values are there after the store is opened again`, async () => {
    let store = stores[name]();
    await store.write([["kept", { line: "a\nb" }]]);
    await store.close();
    store = stores[name]();
    assert.deepEqual(await store.entries("kept"), [["kept", { line: "a\nb" }]]);
    await store.close();
  });
}

test("file: a blob is there after the store is opened again", async () => {
  const path = join(folder, "blobs");
  let store = fileStore(path);
  const bytes = new Uint8Array([0, 255, 10, 13]);
  await store.write([["b:1", new Blob([bytes], { type: "image/png" })]]);
  await store.close();
  store = fileStore(path);
  const blob = (await store.entries("b:"))[0][1];
  assert.equal(blob.type, "image/png");
  assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), bytes);
  await store.close();
});

test("file: a write that was cut off is ignored, and the ones before and after it are kept", async () => {
  const path = join(folder, "torn");
  let store = fileStore(path);
  await store.write([["a", 1]]);
  await store.close();
  await appendFile(path, '[["b",2],["c"');
  store = fileStore(path);
  await store.write([["d", 4]]);
  await store.close();
  store = fileStore(path);
  assert.deepEqual(await store.entries(""), [["a", 1], ["d", 4]]);
  await store.close();
});

test("file: it is compacted when it is opened, and readable by its owner only", async () => {
  const path = join(folder, "compact");
  let store = fileStore(path);
  for (let n = 0; n < 1_000; n++) await store.write([["same", n]]);
  await store.close();
  store = fileStore(path);
  assert.deepEqual(await store.entries(""), [["same", 999]]);
  assert.equal((await readFile(path, "utf8")).trim(), '[["same",999]]');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  await store.close();
});

test("writes are merged, in order, and a failed one is part of the next if it must be kept", async () => {
  const store = memoryStore();
  const batches = /** @type {any[]} */ ([]);
  const { write } = store;
  let failing = true;
  store.write = async (changes) => {
    batches.push(changes.map(([key]) => key).join(""));
    if (failing) throw new Error("full");
    await write(changes);
  };
  const writer = new Writer(store);
  const results = await Promise.allSettled([writer.write([["a", 1]], { keep: true }), writer.write([["b", 2]]), writer.write([["c", 3]], { keep: true })]);
  assert.ok(results.every(({ status }) => status === "rejected"));
  failing = false;
  await Promise.all([writer.write([["d", 4]]), writer.write([["e", 5]])]);
  assert.deepEqual(batches, ["abc", "acde"]);
  assert.deepEqual((await store.entries("")).map(([key]) => key), ["a", "c", "d", "e"]);
});

test("a wipe deletes the values of its account only, with what a failed write has kept", async () => {
  const store = memoryStore();
  const { write } = store;
  const writer = new Writer(store);
  for (const scope of ["one/", "two/"]) {
    writer.scope = scope;
    await writer.write([["a", 1]]);
  }
  store.write = () => Promise.reject(new Error("full"));
  for (const scope of ["one/", "two/"]) {
    writer.scope = scope;
    await assert.rejects(writer.write([["b", 2]], { keep: true }), { code: "storage_failed" });
  }
  store.write = write;
  writer.scope = "one/";
  await writer.wipe();
  await writer.write([["c", 3]]);
  assert.deepEqual((await store.entries("")).map(([key]) => key), ["one/c", "two/a", "two/b"]);
  store.entries = () => Promise.reject(new Error("closed"));
  await assert.rejects(writer.wipe(), { code: "storage_failed" });
});
