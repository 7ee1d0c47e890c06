import { CoupleError, Sleeper, asCoupleError } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { Entry, QueueItem } from "./types.js" */

/** Sends the queue: one item after another, each until the server confirms or refuses it. Runs in the leader. */
export class Outbox {
  #core;
  #sleeper = new Sleeper();
  #stopped = false;
  /** Time before which the server asked not to repeat. */
  #notBefore = 0;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /** Ends a wait: there is a new item, or the network is back. */
  wake() {
    this.#sleeper.wake();
  }

  stop() {
    this.#stopped = true;
    this.wake();
  }

  async run() {
    const { replica } = this.#core;
    for (let failures = 0; !this.#stopped; ) {
      const wait = this.#notBefore - Date.now();
      const item = this.#core.canSend() ? replica.queue[0] : undefined;
      if (!item || wait > 0) {
        await this.#sleeper.sleep(item ? wait : undefined);
        continue;
      }
      try {
        const entry = await this.#send(item);
        failures = 0;
        this.#core.publish({ type: "done", id: item.id, entry });
      } catch (cause) {
        const error = asCoupleError(cause);
        await this.#core.expiring;
        // The session has ended, or this tab is closed: the item stays in the queue.
        if (this.#stopped || !this.#core.canSend()) continue;
        if (!error.temporary && error.code !== "unauthenticated") {
          this.#core.publish({ type: "refused", id: item.id, error: error.toJSON() });
          continue;
        }
        failures += 1;
        const delay = Math.max(error.retryAfter ?? 0, this.#core.delay(failures));
        if (error.retryAfter) this.#notBefore = Date.now() + error.retryAfter;
        const { code, status } = error;
        const failed = { ...item, attempts: item.attempts + 1, error: { code, status, retryAt: Math.round(Date.now() + delay) } };
        if (replica.queue[0]?.id === item.id) this.#core.publish({ type: "progress", item: { ...failed, seq: replica.queue[0].seq } });
        await this.#sleeper.sleep(delay);
      }
    }
  }

  /**
   * @param {QueueItem} item
   * @returns {Promise<Entry | null>} the entry, where the server returns it
   */
  async #send({ id, type, key, couple_id, client_id, kind, body, emoji, ...item }) {
    const { http, replica } = this.#core;
    // The server refuses a write for another couple than the user is in now: a `seq` means an entry of one couple.
    const options = { idempotencyKey: id, headers: this.#core.namingCouple(couple_id) };
    if (type === "append") {
      return entryOf(await http.json("POST", "/v1/couple/entries", { ...options, body: { client_id, kind, body } }));
    }
    // A change of an entry that had no `seq` yet when the change was written.
    const seq = item.seq ?? replica.get(key)?.seq ?? null;
    if (type === "read") {
      await http.json("PUT", "/v1/couple/read", { ...options, body: { seq } });
      return null;
    }
    if (seq === null) throw new CoupleError("entry_not_found", { status: 404, message: `no entry ${key}` });
    const path = `/v1/couple/entries/${seq}`;
    if (type === "edit") return entryOf(await http.json("PATCH", path, { ...options, body: { body } }));
    if (type === "react" && emoji) return entryOf(await http.json("PUT", `${path}/reaction`, { ...options, body: { emoji } }));
    try {
      await http.json("DELETE", type === "react" ? `${path}/reaction` : path, options);
    } catch (error) {
      // The answer to an earlier attempt was lost.
      if (type !== "delete" || asCoupleError(error).code !== "entry_deleted") throw error;
    }
    return null;
  }
}

/**
 * @param {any} answer
 * @returns {Entry}
 */
function entryOf(answer) {
  if (!Number.isInteger(answer?.seq)) throw new CoupleError("bad_answer", { message: "the answer is no entry" });
  return answer;
}
