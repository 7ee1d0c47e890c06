/** Client of couple for every platform. `browser.js` adds the defaults of browsers. */

import { AccountApi, PairingApi } from "./account.js";
import { Core } from "./core.js";
import { TimelineApi } from "./timeline.js";
import { MediaApi } from "./uploads.js";

export { memoryStore } from "./store.js";
export { CoupleError } from "./util.js";

/** @import { ClientOptions, Couple, Events, Session, Status, TransportName } from "./types.js" */

/**
 * @param {ClientOptions} options
 * @returns {Client}
 */
export function createClient(options) {
  return new Client(new Core(options));
}

/** A user's device: session, couple, timeline and live connection. */
export class Client {
  #core;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
    this.account = new AccountApi(core);
    this.pairing = new PairingApi(core);
    this.timeline = new TimelineApi(core);
    this.media = new MediaApi(core);
  }

  /** @returns {Promise<void>} resolves when storage is loaded */
  get ready() {
    return this.#core.ready;
  }

  /** @returns {Session | null} */
  get session() {
    return this.#core.session;
  }

  /** @returns {Status} */
  get status() {
    return this.#core.status;
  }

  /** @returns {Couple | null | undefined} null: not paired; undefined: unknown */
  get couple() {
    return this.#core.replica.couple;
  }

  /** @returns {string | undefined} cursor in the couple's log */
  get cursor() {
    return this.#core.replica.cursor;
  }

  /** Follows the couple's log until `disconnect`, in all tabs. */
  connect() {
    this.#core.setWanted(true);
  }

  /** Ends the connection. The queue is still sent. */
  disconnect() {
    this.#core.setWanted(false);
  }

  /**
   * Sends a signal to the partner's connected devices. It is not stored.
   * @param {string} kind
   * @param {Record<string, any>} [body]
   * @returns {Promise<void>}
   */
  async signal(kind, body) {
    if (this.#core.live.send({ type: "signal", kind, body })) return;
    await this.#core.http.json("POST", "/v1/couple/signals", { headers: this.#core.namingCouple(), body: { kind, body } });
  }

  /**
   * Reads the couple again.
   * @returns {Promise<Couple | null>}
   */
  async refresh() {
    await this.#core.ready;
    return this.#core.refreshCouple();
  }

  /**
   * Calls any route with the session.
   * @param {string} method
   * @param {string} path
   * @param {{ body?: any, headers?: Record<string, string>, signal?: AbortSignal, idempotencyKey?: string }} [options]
   * @returns {Promise<any>} parsed answer, undefined for an empty one
   */
  async request(method, path, options) {
    await this.#core.ready;
    return this.#core.http.call(method, path, options);
  }

  /**
   * @template {keyof Events} Type
   * @param {Type} type
   * @param {(value: Events[Type]) => void} listener
   * @returns {() => void} removes the listener
   */
  on(type, listener) {
    return this.#core.events.on(type, listener);
  }

  /**
   * Ends the connection, the queue and the uploads of this instance. Stored data is kept.
   * @returns {Promise<void>}
   */
  close() {
    return this.#core.close();
  }

  /** Drops the live connection, as a broken network does. */
  kill() {
    this.#core.kill();
  }

  /**
   * Uses only one transport, in all tabs; null: all again.
   * @param {TransportName | null} name
   */
  setTransport(name) {
    this.#core.setTransport(name);
  }

  /**
   * `false` stops all traffic, as without network.
   * @param {boolean} online
   */
  setOnline(online) {
    this.#core.setOnline(online);
  }
}
