/** A store in one file, for Node.js, Deno and Bun. */

import { open, readFile, rename } from "node:fs/promises";

import { applyChanges } from "./store.js";

/** @import { Changes, Store } from "./types.js" */

/**
 * A store in an append-only file: one line of JSON per write, synced before the write is reported as stored. The file is compacted when it is
 * opened. One process at a time may use it.
 * @param {string} path
 * @returns {Store}
 */
export function fileStore(path) {
  /** @type {Promise<{ values: Map<string, any>, file: import("node:fs/promises").FileHandle }> | null} */
  let opening = null;
  let failed = false;
  const opened = () => (opening ??= load(path));
  return {
    async entries(prefix) {
      const { values } = await opened();
      const found = [...values].filter(([key]) => key.startsWith(prefix));
      return found.sort(([one], [other]) => (one < other ? -1 : 1));
    },
    async write(changes) {
      const { values, file } = await opened();
      // The empty line separates this write from one that failed half-way.
      const line = `${failed ? "\n" : ""}${await lineOf(changes)}`;
      failed = true;
      await file.appendFile(line);
      await file.datasync();
      failed = false;
      applyChanges(values, changes);
    },
    async close() {
      if (opening) await (await opening).file.close();
      opening = null;
    },
  };
}

/** @param {string} path */
async function load(path) {
  const values = new Map();
  const text = await readFile(path, "utf8").catch((error) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  for (const line of text.split("\n")) applyChanges(values, changesOf(line));
  const compact = `${path}.new`;
  const file = await open(compact, "w", 0o600);
  if (values.size > 0) await file.writeFile(await lineOf([...values]));
  await file.datasync();
  await rename(compact, path);
  return { values, file };
}

/** @param {Changes} changes */
async function lineOf(changes) {
  const plain = changes.map(async ([key, value]) => {
    if (!(value instanceof Blob)) return value === undefined ? [key] : [key, value];
    return [key, { $blob: Buffer.from(await value.arrayBuffer()).toString("base64"), type: value.type }];
  });
  return `${JSON.stringify(await Promise.all(plain))}\n`;
}

/**
 * @param {string} line
 * @returns {Changes}
 */
function changesOf(line) {
  /** @type {any} */
  let written;
  try {
    written = JSON.parse(line);
  } catch {
    // Cut off, because the process died or the disk was full: it was not reported as stored.
    return [];
  }
  return written.map((/** @type {[string, any]} */ [key, value]) => {
    if (typeof value?.$blob !== "string") return [key, value];
    return [key, new Blob([Buffer.from(value.$blob, "base64")], { type: value.type })];
  });
}
