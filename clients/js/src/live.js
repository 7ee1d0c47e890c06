import { TRANSPORTS } from "./transports.js";
import { CoupleError, Sleeper, asCoupleError, randomId } from "./util.js";

/** @import { Core } from "./core.js" */
/** @import { Entry, Frame, TransportName } from "./types.js" */

/** Entries that a snapshot should show, and the most pages that it reads for them. */
const SNAPSHOT_ENTRIES = 30;
const SNAPSHOT_PAGES = 5;
const PAGE_SIZE = 200;
/** First and longest wait, in milliseconds, between two requests that check whether the user is in a couple. */
const PAIRING_POLL = { first: 2_000, most: 30_000 };
/** Shortest time, in milliseconds, after which the couple is read again while the client polls. */
const COUPLE_POLL = 10_000;
/** First and longest time, in milliseconds, for which a transport that does not work is left out. */
const TRANSPORT_PENALTY = { first: 60_000, most: 30 * 60_000 };

/** Follows the couple's log, across every failure. Runs in the leader. */
export class Live {
  #core;
  #sleeper = new Sleeper();
  #stopped = false;
  /** @type {AbortController | null} current attempt */
  #attempt = null;
  /** Whether the current attempt was ended in order to begin the next one immediately. */
  #restarted = false;
  /** Number of failures since the client last had all entries. */
  #failures = 0;
  /** @type {string | null} reason for which the local copy must be replaced */
  #resync = null;
  /** `last` at the previous gap. */
  #gapAt = -1;
  /** @type {TransportName | null} */
  #only = null;
  /** @type {Map<TransportName, { strikes: number, until: number }>} transports that failed where another one worked */
  #penalties = new Map();
  /** @type {((text: string) => void) | null} */
  #send = null;
  #device = randomId();
  /** Time of the last read of the couple while the client polls. */
  #polledCouple = 0;

  /** @param {Core} core */
  constructor(core) {
    this.#core = core;
  }

  /** Begins the next attempt now: session, couple, network or settings have changed. */
  restart() {
    this.#restarted = true;
    this.#attempt?.abort();
    this.#sleeper.wake();
  }

  /** Drops the connection. */
  kill() {
    this.#attempt?.abort();
  }

  stop() {
    this.#stopped = true;
    this.restart();
  }

  /** The only transport to use; null: all. */
  get only() {
    return this.#only;
  }

  /** @param {TransportName | null} name */
  setTransport(name) {
    this.#only = name;
    this.#penalties.clear();
    if (this.#core.status.transport !== name) this.restart();
  }

  /**
   * Sends a frame over the WebSocket.
   * @param {Frame} frame
   * @returns {boolean} whether there is one
   */
  send(frame) {
    if (!this.#send) return false;
    this.#send(JSON.stringify(frame));
    this.#core.report({ direction: "out", transport: "websocket", frame, at: Date.now() });
    return true;
  }

  async run() {
    for (let unpaired = 0; !this.#stopped; ) {
      const blocked = this.#core.blocked();
      if (blocked) {
        this.#core.setStatus({ state: blocked, transport: null, retryAt: null });
        await this.#sleeper.sleep();
        continue;
      }
      this.#restarted = false;
      this.#attempt = new AbortController();
      const token = this.#core.session?.token ?? "";
      const error = await this.#connect(this.#attempt.signal).then(() => new CoupleError("network_error"), asCoupleError);
      this.#attempt.abort();
      if (this.#stopped || this.#restarted) continue;
      if (error.code === "signed_out") await this.#core.expire(token);
      await this.#core.expiring;
      if (error.code === "not_paired") {
        if (this.#core.replica.couple !== null) this.#core.publish({ type: "couple", couple: null });
        const delay = Math.min(PAIRING_POLL.most, PAIRING_POLL.first * 1.2 ** unpaired++) * (0.75 + this.#core.random() / 2);
        await this.#wait("not_paired", error.code, delay);
      } else if (!this.#core.blocked()) {
        unpaired = 0;
        await this.#wait("waiting", error.code, this.#delayAfter(error));
      }
    }
  }

  /** @param {CoupleError} error */
  #delayAfter(error) {
    const asked = error.retryAfter ?? 0;
    if (error.code === "draining") return asked;
    this.#failures += 1;
    if (error.code === "cursor_unknown" || (error.code === "gap" && this.#gapAt === this.#core.replica.last)) {
      this.#resync = error.code;
      if (this.#failures === 1) return 0;
    }
    if (error.code === "gap") this.#gapAt = this.#core.replica.last;
    return Math.max(asked, this.#core.delay(this.#failures));
  }

  /**
   * @param {"waiting" | "not_paired"} state
   * @param {string} reason
   * @param {number} delay
   */
  async #wait(state, reason, delay) {
    this.#core.setStatus({ state, transport: null, reason, retryAt: Math.round(Date.now() + delay) });
    await this.#sleeper.sleep(delay);
  }

  /**
   * One attempt: a snapshot if there is no cursor, then a connection over the first transport that works.
   * @param {AbortSignal} signal
   * @returns {Promise<void>} when the connection has ended
   */
  async #connect(signal) {
    const { replica } = this.#core;
    if (this.#core.status.state !== "not_paired") this.#core.setStatus({ state: "connecting", transport: null, retryAt: null });
    if (this.#resync || replica.cursor === undefined || !replica.couple) await this.#snapshot(signal);
    /** @type {TransportName[]} */
    const failed = [];
    let error = new CoupleError("unsupported", { message: "no transport works on this platform" });
    for (const name of this.#candidates()) {
      this.#core.setStatus({ state: "connecting", transport: name, retryAt: null });
      let established = false;
      try {
        return await this.#follow(name, signal, () => {
          established = true;
          this.#punish(failed, name);
        });
      } catch (cause) {
        error = asCoupleError(cause);
        // An answer of the server is not the transport's fault.
        const faulty = ["network_error", "bad_answer", "unsupported"].includes(error.code);
        if (established || signal.aborted || !faulty) throw error;
        failed.push(name);
      }
    }
    // A WebSocket does not show with which status it was refused, for example 401; a request does.
    if (failed.at(-1) === "websocket") await this.#core.http.json("GET", "/v1/couple", { signal });
    throw error;
  }

  /**
   * @param {TransportName} name
   * @param {AbortSignal} signal
   * @param {() => void} established called at the first frame
   */
  #follow(name, signal, established) {
    const { http, options, replica, session } = this.#core;
    let first = true;
    return TRANSPORTS[name]({
      http,
      signal,
      WebSocket: options.WebSocket,
      token: session?.token ?? "",
      cursor: () => replica.cursor,
      heartbeat: options.heartbeat,
      presence: options.presence,
      device: this.#device,
      sender: (send) => (this.#send = send),
      frame: (frame) => {
        if (signal.aborted) throw new CoupleError("aborted");
        if (!replica.fits(frame)) throw new CoupleError("gap", { message: `an entry does not continue the log, which is known up to ${replica.last}` });
        this.#core.publish({ type: "frame", frame, transport: name, at: Date.now() });
        if (frame.type === "bye") throw new CoupleError(frame.reason ?? "unavailable", { retryAfter: frame.retry_after_ms });
        if (frame.type === "reset") throw new CoupleError(frame.reason ?? "cursor_unknown");
        if (frame.type === "refused") this.#core.reportError(new CoupleError(frame.code, { message: "the server refused a frame" }));
        if (first) established();
        first = false;
        if (frame.type === "caught_up") this.#caughtUp(name);
      },
    });
  }

  /** @param {TransportName} name */
  #caughtUp(name) {
    // Polls do not report the presence of the partner at their beginning, nor changes between two of them.
    if (name === "poll" && Date.now() - this.#polledCouple > COUPLE_POLL) {
      this.#polledCouple = Date.now();
      void this.#core.refreshCouple().catch(() => {});
    }
    if (this.#core.status.state === "live") return;
    this.#failures = 0;
    this.#core.setStatus({ state: "live", transport: name, retryAt: null, reason: null });
    this.#core.networkWorks();
  }

  /** Transports to try, in order. */
  #candidates() {
    if (this.#only) return [this.#only];
    const all = this.#core.options.transports;
    const now = Date.now();
    const good = all.filter((name) => (this.#penalties.get(name)?.until ?? 0) <= now);
    return good.length > 0 ? good : all;
  }

  /**
   * A transport worked after others had failed. After the second time in a row, the failed ones are not tried for a while.
   * @param {TransportName[]} failed
   * @param {TransportName} worked
   */
  #punish(failed, worked) {
    this.#penalties.delete(worked);
    for (const name of failed) {
      const strikes = (this.#penalties.get(name)?.strikes ?? 0) + 1;
      const { first, most } = TRANSPORT_PENALTY;
      const until = strikes < 2 ? 0 : Date.now() + Math.min(most, first * 2 ** (strikes - 2));
      this.#penalties.set(name, { strikes, until });
    }
  }

  /**
   * Replaces the local copy by the couple and the newest part of its log.
   * @param {AbortSignal} signal
   */
  async #snapshot(signal) {
    const { http, replica } = this.#core;
    const before = replica.couple?.id;
    const couple = await http.json("GET", "/v1/couple", { signal });
    /** @type {Entry[]} */
    let entries = [];
    /** @type {number | null} */
    let next = null;
    for (let page = 0; page < SNAPSHOT_PAGES; page++) {
      const query = next === null ? "" : `&before=${next}`;
      const answer = await http.json("GET", `/v1/couple/entries?limit=${PAGE_SIZE}${query}`, { signal });
      entries = [...answer.entries, ...entries];
      next = answer.next ?? null;
      if (next === null || entries.filter(({ target_seq }) => target_seq === undefined).length >= SNAPSHOT_ENTRIES) break;
    }
    const changed = before !== undefined && before !== couple.id;
    const reason = changed ? "couple_changed" : this.#resync;
    const first = next === null ? 1 : entries[0].seq;
    this.#core.publish({ type: "snapshot", couple, entries, first, last: entries.at(-1)?.seq ?? 0, reason });
    this.#resync = null;
  }
}
