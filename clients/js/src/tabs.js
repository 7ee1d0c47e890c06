/** @import { Channel, Locks } from "./types.js" */

/**
 * The tabs of one browser: one of them is the leader, which holds the connection and the queue; the others follow it by a channel. Without
 * Web Locks and a channel, the only tab is the leader.
 */
export class Tabs {
  leader = false;
  /** @type {Channel | null} */
  #channel = null;
  #ended = new AbortController();
  #options;

  /**
   * @param {object} options
   * @param {string} options.name
   * @param {Locks | undefined} options.locks
   * @param {((name: string) => Channel) | undefined} options.channel
   * @param {(message: any) => void} options.onMessage message of another tab
   */
  constructor(options) {
    this.#options = options;
    if (options.locks && options.channel) {
      this.#channel = options.channel(options.name);
      this.#channel.onmessage = ({ data }) => options.onMessage(data);
    }
  }

  /**
   * Waits until this tab is the leader.
   * @param {() => Promise<void>} onLeader
   */
  async elect(onLeader) {
    const lead = async () => {
      if (this.#ended.signal.aborted) return;
      this.leader = true;
      await onLeader();
    };
    if (!this.#options.locks || !this.#channel) return lead();
    const closed = new Promise((resolve) => this.#ended.signal.addEventListener("abort", () => resolve(undefined)));
    const held = this.#options.locks.request(this.#options.name, { signal: this.#ended.signal }, async () => {
      await lead();
      // The lock is held until this tab is closed.
      await closed;
    });
    await held.catch((error) => {
      this.leader = false;
      // Closed before it became the leader.
      if (!this.#ended.signal.aborted) throw error;
    });
  }

  /**
   * Sends a message to all other tabs.
   * @param {any} message
   */
  send(message) {
    this.#channel?.postMessage(message);
  }

  close() {
    this.leader = false;
    this.#ended.abort();
    this.#channel?.close();
    this.#channel = null;
  }
}
