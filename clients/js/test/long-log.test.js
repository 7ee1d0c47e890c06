/** The local copy of a long log: what a change costs, and that it is the same as one that is computed from the whole log. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Replica } from "../src/replica.js";

/** @import { Entry, QueueItem } from "../src/types.js" */

const ENTRIES = 100_000;
/**
 * Most milliseconds of processor time of a change and of all that an app reads after it. It is about 1, for the copy of the list;
 * 100 if the list is built anew for each change.
 */
const MOST = 8;
/** The same of a write that is put into a queue of 10,000 and sent. */
const MOST_OF_WRITE = 1;

let numbers = 0;

/** Milliseconds of processor time of this process: other processes do not change it. */
function processorTime() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** @param {number} seq @param {Partial<Entry>} [more] @returns {Entry} */
function entry(seq, more = {}) {
  const kind = seq % 50 === 0 ? "photo" : "text";
  const body = kind === "photo" ? { media_id: `m-${seq}`, media: { state: "processing" } } : { text: String(seq) };
  return { seq, author: seq % 3 === 0 ? "me" : "partner", client_id: seq % 3 === 0 ? `c-${seq}` : undefined, kind, body, created_at: "", reactions: {}, ...more };
}

/** @param {Partial<QueueItem>} write @returns {QueueItem} */
function item(write) {
  const id = `w-${String(++numbers).padStart(9, "0")}`;
  return { id, type: "append", key: `me:${id}`, client_id: id, order: id, couple_id: "c", kind: "text", body: { text: id }, seq: null, created_at: "", attempts: 0, error: null, ...write };
}

/** A replica with a log of so many entries. @param {number} length */
function replicaOf(length) {
  const replica = new Replica(500);
  const couple = /** @type {any} */ ({ id: "c", my_read_seq: length - 10, partner_read_seq: 0, partner: { presence: "here" } });
  const entries = Array.from({ length }, (_, at) => entry(at + 1));
  replica.apply({ type: "snapshot", couple, entries, first: 1, last: length, reason: null });
  return replica;
}

/** @param {Replica} replica @param {Entry} entry */
function arrives(replica, entry) {
  replica.apply({ type: "frame", frame: { type: "entry", entry, cursor: String(entry.seq) }, transport: "websocket", at: 0 });
}

/** What an app reads when something has changed. @param {Replica} replica */
function read(replica) {
  return replica.entries.length + replica.unread + replica.queue.length;
}

test(`a change of a log of ${ENTRIES} entries takes less than ${MOST} ms`, (t) => {
  const replica = replicaOf(ENTRIES);
  read(replica);
  const rounds = 200;
  let changes = 0;
  const change = (/** @type {() => void} */ make) => {
    make();
    read(replica);
    changes += 1;
  };
  const begun = processorTime();
  for (let round = 0; round < rounds; round++) {
    const own = item({});
    change(() => replica.apply({ type: "queued", item: own }));
    assert.equal(replica.get(own.key)?.state, "waiting");
    const seq = replica.last + 1;
    const stored = entry(seq, { author: "me", client_id: own.client_id, kind: "text", body: own.body });
    change(() => replica.apply({ type: "done", id: own.id, entry: stored }));
    assert.equal(replica.get(own.key)?.state, "sent");
    change(() => arrives(replica, stored));
    assert.equal(replica.get(own.key)?.state, "confirmed");
    const old = 1 + ((round * 7919) % ENTRIES);
    const edited = entry(old, { kind: "text", body: { text: "edited" }, edited_at: "2026" });
    change(() => arrives(replica, entry(replica.last + 1, { kind: "entry_edited", author: "partner", body: null, target_seq: old, target: edited })));
    assert.equal(replica.get(old % 3 === 0 ? `me:c-${old}` : String(old))?.body?.text, "edited");
    const photo = 50 * (1 + (round % 100));
    change(() => arrives(replica, entry(replica.last + 1, { kind: "media_ready", author: "system", body: { media_id: `m-${photo}` } })));
    const reaction = item({ type: "react", key: String(photo + 1), seq: photo + 1, emoji: "❤️" });
    change(() => replica.apply({ type: "queued", item: reaction }));
    change(() => replica.apply({ type: "discarded", id: reaction.id }));
  }
  const each = (processorTime() - begun) / changes;
  t.diagnostic(`${each.toFixed(3)} ms per change, of ${changes}`);
  assert.ok(each < MOST, `${each} ms per change`);
});

test(`a queue of 10,000 writes is filled and sent in less than ${MOST_OF_WRITE} ms per write`, (t) => {
  const replica = replicaOf(1000);
  const items = Array.from({ length: 10_000 }, () => item({}));
  const begun = processorTime();
  for (const one of items) {
    replica.apply({ type: "queued", item: one });
    assert.equal(replica.get(one.key)?.state, "waiting");
  }
  assert.deepEqual(replica.entries.slice(1000).map(({ key }) => key), items.map(({ key }) => key));
  for (const { id, client_id, body } of items) {
    const stored = entry(replica.last + 1, { author: "me", client_id, kind: "text", body });
    replica.apply({ type: "done", id, entry: stored });
    arrives(replica, stored);
  }
  const each = (processorTime() - begun) / items.length;
  t.diagnostic(`${each.toFixed(3)} ms per write`);
  assert.ok(each < MOST_OF_WRITE, `${each} ms per write`);
  assert.equal(replica.queue.length, 0);
  assert.deepEqual(replica.entries.slice(1000).map(({ key }) => key), items.map(({ key }) => key));
});

test("the local copy after any changes is the one that is computed from the whole log and queue", () => {
  let state = 7;
  const random = (/** @type {number} */ below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
  for (let run = 0; run < 40; run++) {
    const replica = replicaOf(60);
    for (let step = 0; step < 60; step++) {
      const rows = replica.entries;
      const some = rows[random(rows.length)];
      const change = { key: some.key, seq: some.seq, created_at: String(step) };
      const [head] = replica.queue;
      const seq = replica.last + 1;
      const target = entry(1 + random(60), { body: { text: `s-${step}` }, kind: "text", edited_at: String(step).padStart(9, "0") });
      [
        () => replica.apply({ type: "queued", item: item({}) }),
        () => replica.apply({ type: "queued", item: item({ type: "edit", body: { text: "e" }, ...change }) }),
        () => replica.apply({ type: "queued", item: item({ type: "react", emoji: "🙂", ...change }) }),
        () => replica.apply({ type: "queued", item: item({ type: "delete", ...change }) }),
        () => replica.apply({ type: "queued", item: item({ type: "read", key: "", seq: random(60) }) }),
        () => head && replica.apply({ type: "progress", item: { ...head, attempts: head.attempts + 1 } }),
        () => head && replica.apply({ type: random(2) === 0 ? "discarded" : "refused", id: head.id, error: null }),
        () => head?.type === "append" && replica.get(head.key)?.state === "waiting" && arrives(replica, entry(seq, { author: "me", client_id: head.client_id, kind: "text", body: head.body })),
        () => head && replica.apply({ type: "done", id: head.id, entry: head.type === "append" ? (known(replica, head.key) ?? entry(seq, { author: "me", client_id: head.client_id, kind: "text", body: head.body })) : null }),
        () => arrives(replica, entry(seq)),
        () => arrives(replica, entry(seq, { kind: "entry_edited", author: "partner", target_seq: target.seq, target, body: null })),
        () => replica.apply({ type: "queued", item: item({ order: `v-${random(1e9)}` }) }),
      ][random(12)]();
      // A sent entry, shown since the response to its append, is in no state that another tab gets.
      const sent = replica.entries.filter(({ state }) => state === "sent");
      const other = new Replica(500);
      other.restore(structuredClone(replica.state()));
      assert.deepEqual(replica.entries.filter(({ state }) => state !== "sent"), other.entries);
      assert.equal(replica.unread, other.unread);
      for (const row of replica.entries) assert.equal(replica.get(row.key), row);
      for (const { seq } of sent) if (seq === replica.last + 1) arrives(replica, entry(seq, { ...rawOf(replica, seq) }));
    }
  }
});

test("a sent entry stays when the state of the leader is restored, until it arrives in the log", () => {
  const replica = replicaOf(5);
  replica.apply({ type: "queued", item: item({}) });
  const [head] = replica.queue;
  replica.apply({ type: "done", id: head.id, entry: entry(7, { author: "me", client_id: head.client_id, kind: "text", body: head.body }) });
  const leader = replicaOf(5);
  replica.restore(structuredClone(leader.state()));
  assert.equal(replica.get(head.key)?.state, "sent");
  for (const seq of [6, 7]) arrives(leader, entry(seq, seq === 7 ? { author: "me", client_id: head.client_id, kind: "text", body: head.body } : {}));
  replica.restore(structuredClone(leader.state()));
  assert.equal(replica.get(head.key)?.state, "confirmed");
  assert.equal(replica.entries.filter(({ key }) => key === head.key).length, 1);
});

/** A confirmed entry as the server sends it. @param {Replica} replica @param {string} key */
function known(replica, key) {
  const row = replica.get(key);
  return row?.seq ? rawOf(replica, row.seq) : undefined;
}

/** @param {Replica} replica @param {number} seq @returns {Entry} */
function rawOf(replica, seq) {
  const row = replica.entries.find((one) => one.seq === seq);
  const { key, state, changing, ...raw } = /** @type {any} */ (row);
  return raw;
}
