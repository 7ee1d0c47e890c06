/** @import { Changes, Couple, Entry, Events, Frame, QueueItem, TimelineEntry, TransportName } from "./types.js" */

import { sortable } from "./util.js";
import { View } from "./view.js";

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
  #view = new View();
  /** `seq` of the entries that show a picture, by its id. @type {Map<string, Set<number>>} */
  #photos = new Map();
  #cacheSize;

  /** @param {number} cacheSize number of newest entries that are stored */
  constructor(cacheSize) {
    this.#cacheSize = cacheSize;
  }

  /** @returns {readonly TimelineEntry[]} */
  get entries() {
    return this.#view.entries(this.queue);
  }

  /** @param {string} key */
  get(key) {
    return this.#view.get(key);
  }

  get myRead() {
    let read = this.couple?.my_read_seq ?? 0;
    for (const { type, seq } of this.queue) if (type === "read") read = Math.max(read, seq ?? 0);
    return read;
  }

  /** Number of known entries of the partner after the own read position. */
  get unread() {
    return this.#view.count(this.myRead, ({ author, kind, deleted_at }) => author === "partner" && !deleted_at && !SYSTEM_KINDS.has(kind));
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
    Object.assign(this, { couple, cursor, first, last });
    this.#log.clear();
    this.#photos.clear();
    this.#view.clear();
    for (const entry of entries) this.#set(entry);
    // The leader does not know which own entries this tab shows before they arrive in the log.
    for (const entry of [...this.#ahead.values()]) {
      if (entry.seq <= last) this.#ahead.delete(entry.seq);
      else this.#setAhead(entry);
    }
    this.#setQueue(queue);
    this.#reported = Math.max(this.#reported, last);
    this.#storedFrom = first;
    this.#stored.clear();
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
    else this.#setQueue(queue);
    for (const { seq } of entries) this.#stored.add(seq);
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
   * Whether a frame can be applied: `false` if entries before it are missing, or if it is malformed.
   * @param {Frame} frame
   */
  fits(frame) {
    if (frame.type !== "entry") return true;
    const { seq, target } = /** @type {Entry} */ (frame.entry);
    return seq <= this.last + 1 && (!target || Number.isInteger(target.seq));
  }

  /**
   * @param {Message} message
   * @returns {Effects}
   */
  apply(message) {
    /** @type {Effects} */
    const effects = { changes: [], events: [] };
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
      case "queued": {
        const { item } = message;
        const similar = item.type === "read" ? this.queue : this.#view.writesOf(item.key);
        if (similar.some(({ id }) => id === item.id)) break;
        this.#enqueue(item);
        effects.events.push(["queue", this.queue], ["timeline", undefined]);
        break;
      }
      case "progress":
        this.#replace([message.item]);
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
        this.#setQueue([]);
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
    this.#photos.clear();
    this.#view.clear();
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
    for (const seq of this.#photos.get(media_id) ?? []) {
      const photo = this.#log.get(seq);
      if (!photo || photo.body?.media_id !== media_id) continue;
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
    this.#set(entry);
    this.#store(changes, entry);
  }

  /** @param {Entry} entry */
  #set(entry) {
    this.#log.set(entry.seq, entry);
    this.#view.put(entry, "confirmed");
    if (entry.kind !== "photo" || !entry.body?.media_id) return;
    const seqs = this.#photos.get(entry.body.media_id) ?? new Set();
    this.#photos.set(entry.body.media_id, seqs.add(entry.seq));
  }

  /** @param {Entry} entry */
  #setAhead(entry) {
    this.#ahead.set(entry.seq, entry);
    this.#view.put(entry, "sent");
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
    for (const entry of shown) this.#set(changed?.get(entry.seq) ?? entry);
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
    if (entry && entry.seq > this.last) this.#setAhead(entry);
    else if (entry && !overtaken) this.#put(entry, changes);
    if (item.type === "append" && entry) {
      // Changes of the entry that were written before it had a `seq`.
      const named = this.#view.writesOf(item.key).map((later) => ({ ...later, seq: entry.seq }));
      for (const later of named) changes.push([`q:${later.order}`, later]);
      this.#replace(named);
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
    if (this.#ahead.has(entry.seq)) this.#setAhead(entry);
    else this.#put(entry, changes);
  }

  /** @param {readonly QueueItem[]} queue */
  #setQueue(queue) {
    for (const item of this.queue) this.#view.queue(item, false);
    this.queue = queue;
    for (const item of queue) this.#view.queue(item);
  }

  /** @param {QueueItem} item */
  #enqueue(item) {
    const queue = this.queue.slice();
    // Sorted by `order`; nearly always the new one is the last.
    let at = queue.length;
    while (at > 0 && queue[at - 1].order > item.order) at--;
    queue.splice(at, 0, item);
    this.queue = queue;
    this.#view.queue(item);
  }

  /** @param {QueueItem[]} items new states of items in the queue */
  #replace(items) {
    if (items.length === 0) return;
    const byId = new Map(items.map((item) => [item.id, item]));
    this.queue = this.queue.map((item) => byId.get(item.id) ?? item);
    for (const item of this.queue) if (byId.has(item.id)) this.#view.queue(item);
  }

  /**
   * @param {QueueItem} item
   * @param {Effects} effects
   */
  #unqueue(item, { changes }) {
    const at = this.queue.indexOf(item);
    this.queue = at === 0 ? this.queue.slice(1) : this.queue.filter((other) => other !== item);
    this.#view.queue(item, false);
    changes.push([`q:${item.order}`, undefined]);
  }

  /**
   * An item, and if it adds an entry, the changes of that entry.
   * @param {string} id
   */
  #withDependents(id) {
    const item = this.queue.find((item) => item.id === id);
    if (!item) return [];
    return item.type === "append" ? [...this.#view.writesOf(item.key)] : [item];
  }
}
