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
        /** @type {Map<string, TimelineEntry>} */
        let rows = new Map();
        const update = () => {
          const next = new Map(timeline.entries.filter((entry) => tombstones || !entry.deleted_at).map((entry) => [entry.key, entry]));
          begin();
          for (const key of rows.keys()) if (!next.has(key)) write({ type: "delete", key });
          for (const [key, value] of next) {
            if (!rows.has(key)) write({ type: "insert", value });
            else if (rows.get(key) !== value) write({ type: "update", value });
          }
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
