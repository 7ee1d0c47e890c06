import { CoupleError } from "./util.js";

/** @import { Changes, Store } from "./types.js" */

/**
 * A store in memory, lost when the program ends.
 * @returns {Store}
 */
export function memoryStore() {
  /** @type {Map<string, any>} */
  const values = new Map();
  return {
    async entries(prefix) {
      const found = [...values].filter(([key]) => key.startsWith(prefix));
      return found.sort(([one], [other]) => (one < other ? -1 : 1));
    },
    async write(changes) {
      applyChanges(values, changes);
    },
    async close() {},
  };
}

/**
 * @param {Map<string, any>} values
 * @param {Changes} changes
 */
export function applyChanges(values, changes) {
  for (const [key, value] of changes) {
    if (value === undefined) values.delete(key);
    else values.set(key, value);
  }
}

/**
 * Access to a store. Writes happen one after another. Changes that arrive during a write are merged into the next one, which is atomic: so an entry and the
 * cursor after it, given in one call, are stored together.
 */
export class Writer {
  /** Prefix of all keys: the account whose data they are. */
  scope = "";
  #closed = false;
  /** @type {{ scope: string, changes: Changes, keep: boolean }[]} */
  #waiting = [];
  /** @type {Promise<void> | null} the write that will take the waiting changes */
  #next = null;
  /** @type {Promise<void>} */
  #last = Promise.resolve();
  #store;

  /** @param {Store} store */
  constructor(store) {
    this.#store = store;
  }

  /**
   * @param {Changes} changes
   * @param {{ keep?: boolean }} [options] `keep`: after a failure, the changes are part of the next write; otherwise they are given up, and
   *   the caller reports that
   * @returns {Promise<void>} resolves when they are stored; rejects with `storage_failed`
   */
  write(changes, { keep = false } = {}) {
    if (this.#closed) return Promise.reject(new CoupleError("aborted", { message: "the client is closed" }));
    const { scope } = this;
    this.#waiting.push({ scope, changes: changes.map(([key, value]) => [scope + key, value]), keep });
    this.#next ??= this.#last.then(() => this.#flush());
    this.#last = this.#next.catch(() => {});
    return this.#next;
  }

  /** Resolves when all changes so far are stored. */
  idle() {
    return this.#last;
  }

  /** Closes the store after the writes so far: a response that arrives later must not change the data of the next instance. */
  async close() {
    this.#closed = true;
    await this.#last;
    await this.#store.close();
  }

  /**
   * @param {string} prefix
   * @returns {Promise<[string, any][]>} the account's values whose key has the prefix
   */
  async read(prefix) {
    const { scope } = this;
    const found = await this.entries(scope + prefix);
    return found.map(([key, value]) => [key.slice(scope.length), value]);
  }

  /**
   * Deletes all values of the account, also those that a failed write has kept.
   * @returns {Promise<void>}
   */
  wipe() {
    const { scope } = this;
    const wiped = this.#last.then(async () => {
      this.#waiting = this.#waiting.filter((waiting) => waiting.scope !== scope);
      const found = await this.entries(scope);
      await this.store(found.map(([key]) => [key, undefined]));
    });
    this.#last = wiped.catch(() => {});
    return wiped;
  }

  /**
   * Reads values of any account.
   * @param {string} prefix
   */
  entries(prefix) {
    return reported(() => this.#store.entries(prefix));
  }

  /**
   * Writes values of any account.
   * @param {Changes} changes
   */
  store(changes) {
    return reported(() => this.#store.write(changes));
  }

  async #flush() {
    const batch = this.#waiting;
    this.#waiting = [];
    this.#next = null;
    try {
      await this.store(batch.flatMap(({ changes }) => changes));
    } catch (error) {
      this.#waiting.unshift(...batch.filter(({ keep }) => keep));
      throw error;
    }
  }
}

/**
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>} rejects with `storage_failed`
 */
async function reported(work) {
  try {
    return await work();
  } catch (cause) {
    throw new CoupleError("storage_failed", { detail: cause instanceof Error ? cause.message : String(cause), cause });
  }
}
