/** Web Locks and `BroadcastChannel` within one program: each `Browser` has its tabs. */
export class Browser {
  /** @type {Map<string, { waiting: (() => void)[], held: boolean }>} */
  #locks = new Map();
  /** @type {Set<any>} */
  #channels = new Set();

  locks = {
    /** @param {string} name @param {{ signal?: AbortSignal }} options @param {() => Promise<void>} callback */
    request: async (name, { signal }, callback) => {
      const lock = this.#locks.get(name) ?? { waiting: [], held: false };
      this.#locks.set(name, lock);
      if (lock.held) {
        await new Promise((resolve, reject) => {
          lock.waiting.push(() => resolve(undefined));
          signal?.addEventListener("abort", () => {
            lock.waiting = lock.waiting.filter((one) => one !== resolve);
            reject(new Error("aborted"));
          });
        });
      }
      lock.held = true;
      try {
        await callback();
      } finally {
        lock.held = false;
        lock.waiting.shift()?.();
      }
    },
  };

  /** @param {string} name */
  channel = (name) => {
    const channel = {
      name,
      onmessage: /** @type {any} */ (null),
      postMessage: (/** @type {any} */ message) => {
        if (!this.#channels.has(channel)) throw new Error("the channel is closed");
        for (const other of this.#channels) {
          if (other === channel || other.name !== name) continue;
          const data = structuredClone(message);
          setTimeout(() => other.onmessage?.({ data }), 0);
        }
      },
      close: () => void this.#channels.delete(channel),
    };
    this.#channels.add(channel);
    return channel;
  };
}
