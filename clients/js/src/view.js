/** @import { Entry, QueueItem, TimelineEntry } from "./types.js" */

/**
 * Entries that an app shows: the log with the queued writes applied. It is kept up to date change by change: a change costs the same in a log of 100,000 entries as
 * in a short one, and reading `entries` after it copies references only.
 */
export class View {
  /** Entries that the server has confirmed, sorted by `seq`. @type {TimelineEntry[]} */
  #rows = [];
  /** The same by key. @type {Map<string, TimelineEntry>} */
  #byKey = new Map();
  /** Waiting writes by the key of their entry, in order. @type {Map<string, QueueItem[]>} */
  #pending = new Map();
  /** Entries as they are shown while writes of them wait, so that the same entry is the same object. @type {Map<string, TimelineEntry>} */
  #shown = new Map();
  /** @type {readonly TimelineEntry[] | null} */
  #entries = null;

  /**
   * Adds or replaces a confirmed entry.
   * @param {Entry} entry
   * @param {"confirmed" | "sent"} state
   */
  put(entry, state) {
    const row = { ...entry, key: keyOf(entry), state, changing: false };
    const at = this.#position(entry.seq);
    this.#rows.splice(at, this.#rows[at]?.seq === entry.seq ? 1 : 0, row);
    this.#byKey.set(row.key, row);
    this.#touch(row.key);
  }

  /** Removes all confirmed entries. */
  clear() {
    this.#rows = [];
    this.#byKey.clear();
    this.#shown.clear();
    this.#entries = null;
  }

  /**
   * Adds, replaces or removes a waiting write.
   * @param {QueueItem} item
   * @param {boolean} [waits]
   */
  queue(item, waits = true) {
    if (item.type === "read") return;
    const others = this.writesOf(item.key).filter(({ id }) => id !== item.id);
    const items = waits ? [...others, item].sort((one, other) => (one.order < other.order ? -1 : 1)) : others;
    if (items.length > 0) this.#pending.set(item.key, items);
    else this.#pending.delete(item.key);
    this.#touch(item.key);
  }

  /**
   * @param {string} key
   * @returns {readonly QueueItem[]} waiting writes of an entry, in order
   */
  writesOf(key) {
    return this.#pending.get(key) ?? [];
  }

  /**
   * @param {string} key
   * @returns {TimelineEntry | undefined}
   */
  get(key) {
    const confirmed = this.#byKey.get(key);
    const known = this.#shown.get(key);
    const writes = this.#pending.get(key);
    if (known || !writes) return known ?? confirmed;
    let entry = confirmed;
    for (const item of writes) {
      // The log can be faster than the answer to the request.
      if (item.type === "append") entry ??= waiting(item);
      else entry &&= withChange(entry, item);
    }
    if (entry) this.#shown.set(key, entry);
    return entry;
  }

  /**
   * All entries: confirmed ones by `seq`, then waiting ones.
   * @param {readonly QueueItem[]} queue
   * @returns {readonly TimelineEntry[]}
   */
  entries(queue) {
    if (!this.#entries) {
      const all = this.#rows.slice();
      for (const key of this.#pending.keys()) {
        const confirmed = this.#byKey.get(key);
        if (confirmed) all[this.#position(confirmed.seq ?? 0)] = this.get(key) ?? confirmed;
      }
      for (const { type, key } of queue) {
        const entry = type === "append" && !this.#byKey.has(key) ? this.get(key) : undefined;
        if (entry) all.push(entry);
      }
      this.#entries = Object.freeze(all);
    }
    return this.#entries;
  }

  /**
   * Number of confirmed entries after a position for which `counts` holds.
   * @param {number} seq
   * @param {(entry: TimelineEntry) => boolean} counts
   */
  count(seq, counts) {
    let count = 0;
    for (let at = this.#position(seq + 1); at < this.#rows.length; at++) count += Number(counts(this.#rows[at]));
    return count;
  }

  /**
   * Index of the first confirmed entry whose `seq` is not less.
   * @param {number} seq
   */
  #position(seq) {
    const seqAt = (/** @type {number} */ at) => /** @type {number} */ (this.#rows[at].seq);
    let [from, to] = [0, this.#rows.length];
    if (to === 0 || seqAt(to - 1) < seq) return to;
    while (from < to) {
      const middle = (from + to) >> 1;
      if (seqAt(middle) < seq) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /** @param {string} key */
  #touch(key) {
    this.#shown.delete(key);
    this.#entries = null;
  }
}

/**
 * Key of an entry in the local copy.
 * @param {Entry} entry
 */
function keyOf({ author, client_id, seq }) {
  return author === "me" && client_id ? `me:${client_id}` : String(seq);
}

/**
 * @param {QueueItem} item
 * @returns {TimelineEntry}
 */
function waiting({ key, client_id, kind = "", body = {}, created_at }) {
  return { seq: null, key, state: "waiting", changing: false, author: "me", client_id, kind, body, created_at, reactions: {} };
}

/**
 * An entry as it will be when the change is confirmed.
 * @param {TimelineEntry} entry
 * @param {QueueItem} item
 * @returns {TimelineEntry}
 */
function withChange(entry, item) {
  const changed = { ...entry, changing: true };
  if (item.type === "edit") return { ...changed, body: item.body ?? null, edited_at: item.created_at };
  if (item.type === "delete") return { ...changed, body: null, deleted_at: item.created_at };
  return { ...changed, reactions: { ...entry.reactions, me: item.emoji ?? undefined } };
}
