/** A collection of TanStack DB over the timeline of a client. */

import { randomId } from "./util.js";

/** @import { Client } from "./index.js" */
/** @import { TimelineEntry } from "./types.js" */
/** @import { CollectionConfig } from "@tanstack/db" */

/**
 * Options for `createCollection`. The rows are the entries of `client.timeline.entries`; changes go through the client's queue, which keeps
 * them when the device is offline. The client, not the collection, connects.
 * @param {object} options
 * @param {Client} options.client
 * @param {string} [options.id] id of the collection
 * @param {boolean} [options.tombstones] whether deleted entries are rows
 * @returns {CollectionConfig<TimelineEntry, string>}
 */
export function timelineCollectionOptions({ client, id = "couple-timeline", tombstones = false }) {
  const { timeline } = client;
  return {
    id,
    getKey: ({ key }) => key,
    sync: {
      rowUpdateMode: "full",
      sync({ begin, write, commit, markReady }) {
        /** @type {readonly TimelineEntry[]} */
        let rows = [];
        const update = () => {
          const next = tombstones ? timeline.entries : timeline.entries.filter(({ deleted_at }) => !deleted_at);
          const [removed, added] = difference(rows, next);
          begin();
          for (const key of removed.keys()) if (!added.has(key)) write({ type: "delete", key });
          for (const [key, value] of added) write({ type: removed.has(key) ? "update" : "insert", value });
          commit();
          rows = next;
        };
        const off = client.on("timeline", update);
        void client.ready.then(() => {
          update();
          markReady();
        });
        return off;
      },
    },
    async onInsert({ transaction }) {
      for (const { modified } of transaction.mutations) {
        await timeline.append(modified.kind, modified.body ?? {}, { client_id: modified.client_id ?? undefined });
      }
    },
    async onUpdate({ transaction }) {
      for (const { key, changes, modified } of transaction.mutations) {
        if (changes.body) await timeline.edit(key, changes.body);
        if (changes.reactions) await timeline.react(key, modified.reactions.me ?? null);
      }
    },
    async onDelete({ transaction }) {
      for (const { key } of transaction.mutations) await timeline.delete(key);
    },
  };
}

/**
 * The parts in which two lists of entries differ, by key. Nearly always they are short: what is the same at both ends is skipped.
 * @param {readonly TimelineEntry[]} before
 * @param {readonly TimelineEntry[]} after
 */
function difference(before, after) {
  let start = 0;
  while (start < before.length && before[start] === after[start]) start++;
  let end = 0;
  const least = Math.min(before.length, after.length) - start;
  while (end < least && before.at(-1 - end) === after.at(-1 - end)) end++;
  const byKey = (/** @type {readonly TimelineEntry[]} */ entries) =>
    new Map(entries.slice(start, entries.length - end).map((entry) => [entry.key, entry]));
  const [removed, added] = [byKey(before), byKey(after)];
  for (const [key, entry] of added) if (removed.get(key) === entry) added.delete(key), removed.delete(key);
  return [removed, added];
}

/**
 * A row to insert.
 * @param {string} kind
 * @param {Record<string, any>} body
 * @returns {TimelineEntry}
 */
export function newEntry(kind, body) {
  const client_id = randomId();
  const created_at = new Date().toISOString();
  return { key: `me:${client_id}`, client_id, seq: null, author: "me", kind, body, created_at, reactions: {}, state: "waiting", changing: false };
}
