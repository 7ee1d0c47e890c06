import { CoupleError, queryOf, randomId } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { EntryPage, PageQuery, QueueItem, TimelineEntry } from "./types.js" */

/** Ids that the server accepts: 1 to 64 visible ASCII characters. */
const CLIENT_ID = /^[!-~]{1,64}$/;

/** The local copy of the couple's timeline, and writes to it. */
export class TimelineApi {
  #core;
  /** @type {Promise<boolean> | null} */
  #loading = null;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /**
   * Confirmed entries by `seq`, then waiting ones in the order of writing. The same array means that nothing changed.
   * @returns {readonly TimelineEntry[]}
   */
  get entries() {
    return this.#core.replica.entries;
  }

  /** @returns {readonly QueueItem[]} writes that wait, in order */
  get queue() {
    return this.#core.replica.queue;
  }

  /** Own read position, as `seq`. */
  get myRead() {
    return this.#core.replica.myRead;
  }

  /** Read position of the partner, as `seq`. */
  get partnerRead() {
    return this.#core.replica.couple?.partner_read_seq ?? 0;
  }

  /** Number of loaded entries of the partner after the own read position. */
  get unread() {
    return this.#core.replica.unread;
  }

  /** Whether the log has entries before the first one in `entries`. */
  get hasOlder() {
    return this.#core.replica.first > 1;
  }

  /**
   * @param {string} key
   * @returns {TimelineEntry | undefined}
   */
  get(key) {
    return this.#core.replica.get(key);
  }

  /**
   * Adds an entry to the queue and to `entries`.
   * @param {string} kind
   * @param {Record<string, any>} body
   * @param {{ client_id?: string }} [options]
   * @returns {Promise<TimelineEntry>} once it is stored on this device
   */
  async append(kind, body, { client_id = randomId() } = {}) {
    if (!CLIENT_ID.test(client_id)) throw new TypeError(`client_id must be 1 to 64 visible ASCII characters: ${client_id}`);
    const key = `me:${client_id}`;
    await this.#core.enqueue({ type: "append", key, client_id, kind, body });
    return /** @type {TimelineEntry} */ (this.get(key));
  }

  /**
   * Replaces the body of an own entry.
   * @param {string} key
   * @param {Record<string, any>} body
   * @returns {Promise<void>} once it is stored on this device
   */
  edit(key, body) {
    return this.#change("edit", key, { body });
  }

  /**
   * Deletes an own entry.
   * @param {string} key
   * @returns {Promise<void>} once it is stored on this device
   */
  delete(key) {
    return this.#change("delete", key, {});
  }

  /**
   * Sets or, with null, removes the own reaction to an entry.
   * @param {string} key
   * @param {string | null} emoji
   * @returns {Promise<void>} once it is stored on this device
   */
  react(key, emoji) {
    return this.#change("react", key, { emoji });
  }

  /**
   * Advances the own read position.
   * @param {number} [seq] default: the newest entry
   * @returns {Promise<void>} once it is stored on this device
   */
  async markRead(seq) {
    await this.#core.ready;
    const position = seq ?? this.#core.replica.last;
    if (position <= this.myRead) return;
    await this.#core.enqueue({ type: "read", key: "", seq: position });
    // Those too that were added while this one was stored.
    for (const { id, type, seq } of this.queue) if (type === "read" && (seq ?? 0) < position) this.discard(id);
  }

  /**
   * Removes a write that waits, and the changes of the entry that it would have added.
   * @param {string} id
   */
  discard(id) {
    this.#core.publish({ type: "discarded", id });
  }

  /**
   * Reads a page of older entries into `entries`, until at least one is shown.
   * @param {number} [limit] entries per page, at most 200
   * @returns {Promise<boolean>} whether there are more
   */
  loadOlder(limit = 50) {
    this.#loading ??= this.#loadOlder(limit).finally(() => (this.#loading = null));
    return this.#loading;
  }

  /**
   * A page of the log as the server has it, without effect on `entries`.
   * @param {PageQuery} [query]
   * @returns {Promise<EntryPage>}
   */
  page(query = {}) {
    return this.#core.http.call("GET", `/v1/couple/entries${queryOf(query)}`);
  }

  /** @param {number} limit */
  async #loadOlder(limit) {
    await this.#core.ready;
    const { replica } = this.#core;
    for (let shown = 0; shown === 0 && this.hasOlder; ) {
      const couple = replica.couple?.id;
      replica.expectOlder();
      const { entries, next } = await this.page({ before: replica.first, limit });
      if (replica.couple?.id !== couple) return this.hasOlder;
      shown = replica.addOlder(entries, next === null ? 1 : entries[0].seq);
      this.#core.events.emit("timeline", undefined);
    }
    return this.hasOlder;
  }

  /**
   * @param {"edit" | "delete" | "react"} type
   * @param {string} key
   * @param {Partial<QueueItem>} change
   */
  async #change(type, key, change) {
    await this.#core.ready;
    const entry = this.get(key);
    if (!entry) throw new CoupleError("entry_not_found", { message: `no entry ${key}` });
    await this.#core.enqueue({ type, key, seq: entry.seq, ...change });
  }
}
