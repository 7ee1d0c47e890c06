/** @import { Changes, Couple, Entry, Events, Frame, QueueItem, TimelineEntry, TransportName } from "./types.js" */

import { sortable } from "./util.js";

/** Kinds of entries that only report a change of another one. */
const CHANGE_KINDS = new Set(["entry_edited", "entry_deleted", "entry_reacted", "media_ready", "media_rejected"]);
/** Kinds of the system that do not count as unread. */
const SYSTEM_KINDS = new Set(["paired", "restored", "profile_changed", "couple_changed"]);

/**
 * A change of the local copy. The leader makes messages, and every tab applies them in the same order.
 * @typedef {{ type: "frame", frame: Frame, transport: TransportName, at: number }
 *   | { type: "snapshot", couple: Couple, entries: Entry[], first: number, last: number, reason: string | null }
 *   | { type: "couple", couple: Couple | null }
 *   | { type: "queued", item: QueueItem }
 *   | { type: "progress", item: QueueItem }
 *   | { type: "done", id: string, entry: Entry | null }
 *   | { type: "refused", id: string, error: any }
 *   | { type: "discarded", id: string }
 *   | { type: "cleared" }} Message
 */

/**
 * Effects of a message: changes for the store, and events for the app.
 * @typedef {{ changes: Changes, events: { [Type in keyof Events]: [Type, Events[Type]] }[keyof Events][] }} Effects
 */

/** @typedef {{ couple: Couple | null | undefined, cursor: string | undefined, first: number, last: number, entries: Entry[], queue: QueueItem[] }} ReplicaState */

/**
 * The local copy of the couple, the newest part of its log, and the queue of writes. It does no I/O: `apply` changes it and returns what
 * must be stored and reported.
 *
 * The log is known from `first` to `last` without gaps. `ahead` has own entries that the server has confirmed, and that have not arrived in
 * the log yet.
 */
export class Replica {
  /** @type {Couple | null | undefined} undefined: unknown */
  couple;
  /** @type {string | undefined} */
  cursor;
  /** `seq` of the first and last known entry of the log. */
  first = 1;
  last = 0;
  /** @type {readonly QueueItem[]} sorted by `order` */
  queue = [];

  /** @type {Map<number, Entry>} entries that are shown, by `seq` */
  #log = new Map();
  /** @type {Map<number, Entry>} */
  #ahead = new Map();
  /** Item whose entry a frame has changed while its request was in progress: the response may be older than the frame. @type {string | null} */
  #overtaken = null;
  /** @type {Map<number, Entry> | null} changed entries that are older than `first`, while a page of older ones is read */
  #older = null;
  /** `seq` from which on entries are stored. */
  #storedFrom = 1;
  #stored = new Set();
  /** Last `seq` that was reported by the event `entry`. */
  #reported = 0;
  /** @type {{ entries: readonly TimelineEntry[], byKey: Map<string, TimelineEntry> } | null} */
  #view = null;
  /** @type {WeakMap<Entry | QueueItem, TimelineEntry>} so that what did not change is the same object */
  #shown = new WeakMap();
  #cacheSize;

  /** @param {number} cacheSize number of newest entries that are stored */
  constructor(cacheSize) {
    this.#cacheSize = cacheSize;
  }

  /** @returns {readonly TimelineEntry[]} */
  get entries() {
    return this.#current().entries;
  }

  /** @param {string} key */
  get(key) {
    return this.#current().byKey.get(key);
  }

  get myRead() {
    const queued = this.queue.filter(({ type }) => type === "read").map(({ seq }) => seq ?? 0);
    return Math.max(this.couple?.my_read_seq ?? 0, ...queued);
  }

  /** Number of known entries of the partner after the own read position. */
  get unread() {
    const read = this.myRead;
    const counts = (/** @type {Entry} */ { seq, author, kind, deleted_at }) =>
      seq > read && author === "partner" && !deleted_at && !SYSTEM_KINDS.has(kind);
    return [...this.#log.values()].filter(counts).length;
  }

  /** @returns {ReplicaState} what another tab needs to start from */
  state() {
    const { couple, cursor, first, last } = this;
    return { couple, cursor, first, last, entries: [...this.#log.values()], queue: [...this.queue] };
  }

  /**
   * Replaces everything by the state of the leader.
   * @param {ReplicaState} state
   */
  restore({ couple, cursor, first, last, entries, queue }) {
    Object.assign(this, { couple, cursor, first, last, queue });
    this.#log = new Map(entries.map((entry) => [entry.seq, entry]));
    this.#reported = Math.max(this.#reported, last);
    this.#storedFrom = first;
    this.#stored.clear();
    this.#view = null;
  }

  /**
   * Loads the stored data, unless newer data is already known.
   * @param {[string, any][]} stored
   */
  load(stored) {
    const values = new Map(stored);
    const log = values.get("log") ?? { cursor: undefined, first: 1, last: 0 };
    const starting = (/** @type {string} */ prefix) => stored.filter(([key]) => key.startsWith(prefix));
    const queue = starting("q:").map(([, item]) => item);
    const entries = starting("e:").map(([, entry]) => entry);
    const stale = values.get("couple");
    // The presence was that of another time.
    const couple = stale && { ...stale, partner: { ...stale.partner, presence: "away" } };
    if (log.last >= this.last) this.restore({ couple, ...log, entries, queue });
    else this.queue = queue;
    for (const { seq } of entries) this.#stored.add(seq);
    this.#view = null;
  }

  /** @returns {Changes} everything that is to be stored, for a tab that becomes the leader */
  save() {
    /** @type {Changes} */
    const changes = [["couple", this.couple ?? undefined]];
    for (const entry of this.#log.values()) this.#store(changes, entry);
    this.#storeCursor(changes);
    return changes;
  }

  /**
   * Whether a frame can be applied: `false` if entries before it are missing.
   * @param {Frame} frame
   */
  fits(frame) {
    return frame.type !== "entry" || /** @type {Entry} */ (frame.entry).seq <= this.last + 1;
  }

  /**
   * @param {Message} message
   * @returns {Effects}
   */
  apply(message) {
    /** @type {Effects} */
    const effects = { changes: [], events: [] };
    this.#view = null;
    switch (message.type) {
      case "frame":
        effects.events.push(["frame", { direction: "in", transport: message.transport, frame: message.frame, at: message.at }]);
        this.#frame(message.frame, effects);
        break;
      case "snapshot":
        this.#snapshot(message, effects);
        break;
      case "couple":
        this.#setCouple(message.couple, effects);
        break;
      case "queued":
        if (this.queue.some(({ id }) => id === message.item.id)) break;
        this.queue = [...this.queue, message.item].sort((one, other) => (one.order < other.order ? -1 : 1));
        effects.events.push(["queue", this.queue], ["timeline", undefined]);
        break;
      case "progress":
        this.queue = this.queue.map((item) => (item.id === message.item.id ? message.item : item));
        effects.changes.push([`q:${message.item.order}`, message.item]);
        effects.events.push(["queue", this.queue]);
        break;
      case "done":
        this.#done(message.id, message.entry, effects);
        break;
      case "refused":
      case "discarded":
        for (const item of this.#withDependents(message.id)) {
          this.#unqueue(item, effects);
          if (message.type === "refused") effects.events.push(["refused", { item, error: message.error }]);
        }
        effects.events.push(["queue", this.queue], ["timeline", undefined]);
        break;
      case "cleared":
        this.couple = undefined;
        this.queue = [];
        this.#clearLog({ changes: [], events: [] });
        effects.events.push(["queue", this.queue], ["timeline", undefined], ["couple", null]);
        break;
    }
    return effects;
  }

  /**
   * @param {Frame} frame
   * @param {Effects} effects
   */
  #frame(frame, effects) {
    const { changes, events } = effects;
    switch (frame.type) {
      case "entry": {
        const entry = /** @type {Entry} */ (frame.entry);
        if (entry.seq !== this.last + 1) return;
        this.last = entry.seq;
        this.#ahead.delete(entry.seq);
        const sending = this.queue[0];
        if (sending && sending.seq === entry.target_seq) this.#overtaken = sending.id;
        if (CHANGE_KINDS.has(entry.kind)) this.#change(entry, changes);
        else this.#put(entry, changes);
        // After a crash the stored cursor can be behind what was reported; in one process, nothing is reported twice.
        if (entry.seq > this.#reported) events.push(["entry", entry]);
        this.#reported = Math.max(this.#reported, entry.seq);
        events.push(["timeline", undefined]);
        break;
      }
      case "read":
        if (this.couple) {
          const { my_read_seq, partner_read_seq } = frame;
          this.couple = { ...this.couple, my_read_seq, partner_read_seq };
          changes.push(["couple", this.couple]);
          events.push(["read", { my_read_seq, partner_read_seq }], ["couple", this.couple]);
        }
        break;
      case "presence":
        if (this.couple) {
          this.couple = { ...this.couple, partner: { ...this.couple.partner, presence: frame.presence } };
          events.push(["presence", frame.presence], ["couple", this.couple]);
        }
        break;
      case "signal":
        events.push(["signal", { from: frame.from, kind: frame.kind, body: frame.body ?? null }]);
        break;
    }
    if (frame.cursor && frame.cursor !== this.cursor && frame.type !== "reset") {
      this.cursor = frame.cursor;
      this.#storeCursor(changes);
      events.push(["cursor", frame.cursor]);
    }
  }

  /**
   * Replaces the log by its newest part.
   * @param {Message & { type: "snapshot" }} message
   * @param {Effects} effects
   */
  #snapshot({ couple, entries, first, last, reason }, effects) {
    this.#setCouple(couple, effects);
    this.#clearLog(effects);
    Object.assign(this, { first, last, cursor: String(last) });
    this.#storedFrom = first;
    this.#reported = last;
    for (const entry of entries) if (!CHANGE_KINDS.has(entry.kind)) this.#put(entry, effects.changes);
    this.#storeCursor(effects.changes);
    if (reason) effects.events.push(["reset", { reason }]);
    effects.events.push(["cursor", String(last)], ["timeline", undefined]);
  }

  /**
   * @param {Couple | null} couple
   * @param {Effects} effects
   */
  #setCouple(couple, effects) {
    const before = this.couple;
    if (couple && before?.id === couple.id) {
      // The answer can be older than the last frame with the read positions, which never move back.
      const my_read_seq = Math.max(couple.my_read_seq, before.my_read_seq);
      const partner_read_seq = Math.max(couple.partner_read_seq, before.partner_read_seq);
      couple = { ...couple, my_read_seq, partner_read_seq };
    } else if (before || !couple) {
      this.#clearLog(effects);
    }
    this.couple = couple;
    effects.changes.push(["couple", couple ?? undefined]);
    if (couple || before !== null) effects.events.push(["couple", couple]);
    const presence = couple?.partner.presence;
    if (presence && presence !== before?.partner.presence) effects.events.push(["presence", presence]);
  }

  /** @param {Effects} effects */
  #clearLog({ changes, events }) {
    for (const seq of this.#stored) changes.push([`e:${sortable(seq)}`, undefined]);
    changes.push(["log", undefined]);
    if (this.#log.size > 0) events.push(["timeline", undefined]);
    Object.assign(this, { cursor: undefined, first: 1, last: 0 });
    this.#reported = 0;
    this.#storedFrom = 1;
    this.#log.clear();
    this.#ahead.clear();
    this.#stored.clear();
  }

  /**
   * Applies an entry that reports a change of another one.
   * @param {Entry} entry
   * @param {Changes} changes
   */
  #change(entry, changes) {
    if (entry.target) this.#put(entry.target, changes);
    if (entry.kind !== "media_ready" && entry.kind !== "media_rejected") return;
    const { media_id, ...media } = entry.body ?? {};
    const state = entry.kind === "media_ready" ? "ready" : "rejected";
    for (const photo of this.#log.values()) {
      if (photo.kind !== "photo" || photo.body?.media_id !== media_id) continue;
      this.#put({ ...photo, body: { ...photo.body, media: { ...photo.body?.media, ...media, state } } }, changes);
    }
  }

  /**
   * Adds or replaces an entry.
   * @param {Entry} entry
   * @param {Changes} changes
   */
  #put(entry, changes) {
    if (entry.seq < this.first) {
      this.#older?.set(entry.seq, entry);
      return;
    }
    const known = this.#log.get(entry.seq);
    // The answer to a write can overtake the log, so an older state of the entry can arrive after a newer one.
    if (known?.deleted_at && !entry.deleted_at) return;
    if (known?.edited_at && (entry.edited_at ?? "") < known.edited_at) entry = { ...entry, body: known.body, edited_at: known.edited_at };
    this.#log.set(entry.seq, entry);
    this.#store(changes, entry);
  }

  /**
   * @param {Changes} changes
   * @param {Entry} entry
   */
  #store(changes, entry) {
    if (entry.seq < this.#storedFrom) return;
    changes.push([`e:${sortable(entry.seq)}`, entry]);
    this.#stored.add(entry.seq);
  }

  /** @param {Changes} changes */
  #storeCursor(changes) {
    // Removed in groups, so that this costs little per entry.
    if (this.#stored.size > this.#cacheSize * 1.25 + 8) {
      const seqs = [...this.#stored].sort((one, other) => other - one);
      for (const seq of seqs.slice(this.#cacheSize)) {
        changes.push([`e:${sortable(seq)}`, undefined]);
        this.#stored.delete(seq);
      }
      this.#storedFrom = seqs[this.#cacheSize - 1];
    }
    changes.push(["log", { cursor: this.cursor, first: this.#storedFrom, last: this.last }]);
  }

  /** Begins to read older entries: changes of them are kept until `addOlder`. */
  expectOlder() {
    this.#older ??= new Map();
  }

  /**
   * Adds a page of entries before `first`.
   * @param {Entry[]} entries
   * @param {number} first
   * @returns {number} number of entries that are shown
   */
  addOlder(entries, first) {
    const changed = this.#older;
    this.#older = null;
    const shown = entries.filter(({ kind, seq }) => !CHANGE_KINDS.has(kind) && seq < this.first);
    this.first = Math.min(this.first, first);
    for (const entry of shown) this.#log.set(entry.seq, changed?.get(entry.seq) ?? entry);
    this.#view = null;
    return shown.length;
  }

  /**
   * An item was sent and confirmed.
   * @param {string} id
   * @param {Entry | null} entry
   * @param {Effects} effects
   */
  #done(id, entry, effects) {
    const { changes, events } = effects;
    const item = this.queue.find((item) => item.id === id);
    if (!item) return;
    this.#unqueue(item, effects);
    const overtaken = this.#overtaken === id || (entry !== null && item.type === "append" && this.#log.has(entry.seq));
    if (entry && entry.seq > this.last) this.#ahead.set(entry.seq, entry);
    else if (entry && !overtaken) this.#put(entry, changes);
    if (item.type === "append" && entry) {
      // Changes of the entry that were written before it had a `seq`.
      this.queue = this.queue.map((later) => {
        if (later.key !== item.key) return later;
        const named = { ...later, seq: entry.seq };
        changes.push([`q:${named.order}`, named]);
        return named;
      });
    }
    const target = item.seq === null ? undefined : (this.#log.get(item.seq) ?? this.#ahead.get(item.seq));
    if (target && item.type === "delete") this.#update({ ...target, body: null, deleted_at: new Date().toISOString() }, changes);
    if (target && item.type === "react" && !entry && !overtaken) {
      this.#update({ ...target, reactions: { ...target.reactions, me: item.emoji ?? undefined } }, changes);
    }
    if (item.type === "read" && this.couple && (item.seq ?? 0) > this.couple.my_read_seq) {
      this.couple = { ...this.couple, my_read_seq: item.seq ?? 0 };
      changes.push(["couple", this.couple]);
      events.push(["couple", this.couple]);
    }
    events.push(["queue", this.queue], ["timeline", undefined]);
  }

  /**
   * @param {Entry} entry
   * @param {Changes} changes
   */
  #update(entry, changes) {
    if (this.#ahead.has(entry.seq)) this.#ahead.set(entry.seq, entry);
    else this.#put(entry, changes);
  }

  /**
   * @param {QueueItem} item
   * @param {Effects} effects
   */
  #unqueue(item, { changes }) {
    this.queue = this.queue.filter((other) => other !== item);
    changes.push([`q:${item.order}`, undefined]);
  }

  /**
   * An item, and if it adds an entry, the changes of that entry.
   * @param {string} id
   */
  #withDependents(id) {
    const item = this.queue.find((item) => item.id === id);
    if (!item) return [];
    return item.type === "append" ? this.queue.filter(({ key }) => key === item.key) : [item];
  }

  #current() {
    return (this.#view ??= this.#compute());
  }

  #compute() {
    /** @type {Map<string, TimelineEntry>} */
    const byKey = new Map();
    /**
     * @param {Entry | QueueItem} source
     * @param {() => TimelineEntry} make
     */
    const add = (source, make) => {
      const entry = this.#shown.get(source) ?? make();
      this.#shown.set(source, entry);
      byKey.set(entry.key, entry);
    };
    const bySeq = (/** @type {Entry} */ one, /** @type {Entry} */ other) => one.seq - other.seq;
    for (const entry of [...this.#log.values()].sort(bySeq)) {
      add(entry, () => ({ ...entry, key: keyOf(entry), state: "confirmed", changing: false }));
    }
    for (const entry of [...this.#ahead.values()].sort(bySeq)) {
      add(entry, () => ({ ...entry, key: keyOf(entry), state: "sent", changing: false }));
    }
    for (const item of this.queue) {
      const known = byKey.get(item.key);
      if (item.type === "append") {
        // The log can be faster than the answer to the request.
        if (!known) add(item, () => waiting(item));
      } else if (known && item.type !== "read") {
        byKey.set(item.key, withChange(known, item));
      }
    }
    return { entries: Object.freeze([...byKey.values()]), byKey };
  }
}

/**
 * Key of an entry in the local copy.
 * @param {Entry} entry
 */
export function keyOf({ author, client_id, seq }) {
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
