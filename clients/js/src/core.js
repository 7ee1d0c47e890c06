import { Http } from "./http.js";
import { Live } from "./live.js";
import { Outbox } from "./outbox.js";
import { Replica } from "./replica.js";
import { Writer, memoryStore } from "./store.js";
import { Tabs } from "./tabs.js";
import { Uploads } from "./uploads.js";
import { CoupleError, Emitter, asCoupleError, backoffDelay, randomId, sortable } from "./util.js";

/** @import { Changes, ClientOptions, Couple, Events, QueueItem, Session, SessionReason, Status, TransportName, Upload } from "./types.js" */
/** @import { Message } from "./replica.js" */

/** Time, in milliseconds, between two events `timeline` while the entries since the last connection arrive. */
const CATCH_UP_INTERVAL = 20;
/** Time, in milliseconds, after which a tab that ends the session, and does not repeat that, counts as closed. */
const ENDING_TIMEOUT = 30_000;
/** Entries after which the couple is read again. */
const COUPLE_KINDS = new Set(["paired", "restored", "profile_changed", "couple_changed"]);

/** @param {ClientOptions} options */
function withDefaults(options) {
  const { baseUrl, backoff = { first: 500, most: 30_000 }, heartbeat = 25 } = options;
  if (!/^https?:\/\//.test(baseUrl)) throw new TypeError(`baseUrl must begin with http:// or https://: ${baseUrl}`);
  const fetch = options.fetch ?? globalThis.fetch;
  return {
    baseUrl: baseUrl.replace(/\/+$/, ""),
    storage: options.storage ?? memoryStore(),
    transports: options.transports ?? /** @type {TransportName[]} */ (["websocket", "sse", "poll"]),
    // Browsers refuse a `fetch` that is called as a method of another object.
    fetch: /** @type {typeof globalThis.fetch} */ ((input, init) => fetch(input, init)),
    WebSocket: options.WebSocket ?? globalThis.WebSocket,
    locks: options.locks,
    channel: options.channel,
    name: options.name ?? "couple",
    presence: options.presence ?? true,
    cacheSize: options.cacheSize ?? 500,
    requestTimeout: options.requestTimeout ?? 30_000,
    uploadChunk: options.uploadChunk ?? 262_144,
    random: options.random ?? Math.random,
    heartbeat,
    backoff,
  };
}

/** The engine behind a client. The leader makes messages, applies and stores them, and sends them to the other tabs, which apply them. */
export class Core {
  /** @type {Emitter<Events>} */
  events = new Emitter();
  /** @type {Session | null} */
  session = null;
  /** @type {Status} */
  status = { state: "idle", transport: null, retryAt: null, reason: null, online: true, leader: false };
  options;
  http;
  /** @type {Replica} */
  replica;
  writer;
  live = new Live(this);
  outbox = new Outbox(this);
  uploads = new Uploads(this);
  ready;
  /** @type {Promise<void>} settled once a refused token is dealt with */
  expiring = Promise.resolve();
  /** @type {string | null | undefined} account whose data is stored; null: a part that was not deleted; undefined: none */
  owner;
  #tabs;
  #wanted = false;
  #closed = false;
  #online = new AbortController();
  /** @type {any[] | null} messages of other tabs that arrived before storage was loaded */
  #early = [];
  #lastOrder = 0;
  /** Ids of writes of this tab. */
  #own = new Set();
  /** @type {Promise<Couple | null> | null} */
  #refreshing = null;
  #refreshAgain = false;
  #announcing = false;
  /** @type {Map<string, { token: string, timer: ReturnType<typeof setTimeout> }>} requests by which tabs end the session of a token */
  #endings = new Map();
  /** Token of a deletion whose response was lost. */
  #unsure = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #announcement;

  /** @param {ClientOptions} options */
  constructor(options) {
    this.options = withDefaults(options);
    const { baseUrl, fetch, requestTimeout, backoff, random, storage, name, locks, channel, cacheSize } = this.options;
    this.replica = new Replica(cacheSize);
    this.writer = new Writer(storage);
    this.http = new Http({
      baseUrl,
      fetch,
      backoff,
      random,
      timeout: requestTimeout,
      token: () => this.session?.token,
      refused: (token) => void (this.expiring = this.expire(token)),
      online: () => this.#online.signal,
    });
    this.#tabs = new Tabs({ name, locks, channel, onMessage: (message) => this.#receive(message) });
    this.ready = this.#start();
    // Reported by `ready`; without a listener it must not end a program.
    this.ready.catch(() => {});
  }

  random() {
    return this.options.random();
  }

  /** @param {number} failures */
  delay(failures) {
    return backoffDelay(failures, this.options.backoff, this.options.random);
  }

  /** @returns {number} a number greater than all before, by which writes are sorted */
  nextOrder() {
    this.#lastOrder = Math.max(this.#lastOrder + 1, Date.now() * 1000);
    return this.#lastOrder;
  }

  /** Reason that prevents a live connection now; null if there is none. */
  blocked() {
    if (!this.#wanted) return "idle";
    if (this.#online.signal.aborted) return "offline";
    if (!this.session) return "signed_out";
    return null;
  }

  /**
   * Headers of a write: the server refuses it with `not_paired` if the user is in another couple by then.
   * @param {string | null | undefined} couple id
   * @returns {Record<string, string>}
   */
  namingCouple(couple = this.replica.couple?.id) {
    return couple ? { "couple-id": couple } : {};
  }

  canSend() {
    return this.#tabs.leader && !this.#closed && this.session !== null && !this.#isEnding(this.session.token) && !this.#online.signal.aborted;
  }

  async #start() {
    this.session = await this.#storedSession();
    this.owner = this.session?.account_id ?? (await this.#storedValue("owner"));
    if (this.owner) {
      this.writer.scope = scopeOf(this.owner);
      await this.#load();
    } else {
      // A sign-out has not deleted everything.
      const rest = await this.writer.read("");
      if (rest[0] && !rest.some(([key]) => key === "owner")) this.#keep(rest.map(([key]) => [key, undefined]));
    }
    const early = this.#early ?? [];
    this.#early = null;
    for (const message of early) this.#receive(message);
    this.#tabs.send({ hello: true });
    this.#tabs.elect(() => this.#lead()).catch((error) => this.reportError(asCoupleError(error)));
  }

  /** Reads the data of the account. */
  async #load() {
    const stored = await this.writer.read("");
    this.replica.load(stored);
    this.uploads.load(stored);
    for (const { order } of this.replica.queue) this.#lastOrder = Math.max(this.#lastOrder, Number.parseInt(order, 10));
  }

  /**
   * A value that belongs to no account.
   * @param {string} name
   */
  async #storedValue(name) {
    return (await this.writer.entries(name)).find(([key]) => key === name)?.[1];
  }

  /** @returns {Promise<Session | null>} */
  async #storedSession() {
    return (await this.#storedValue("session")) ?? null;
  }

  /** This tab is the leader now. */
  async #lead() {
    if (this.options.locks) {
      // The leader before may have stored what it had not told, or told what it had not stored.
      await this.writer.idle();
      if (this.owner) {
        await this.#load();
        this.#keep(this.replica.save());
      }
    }
    this.setStatus({ leader: true });
    void this.live.run();
    void this.outbox.run();
    void this.uploads.run();
  }

  // Messages between tabs.

  /**
   * Applies a change of the local copy here and in all other tabs.
   * @param {Message} message
   */
  publish(message) {
    this.#apply(message);
    this.#tabs.send({ apply: message });
  }

  /** @param {Message} message */
  #apply(message) {
    const before = this.replica.couple?.id;
    // A write in this tab comes after each one that its user has seen.
    if (message.type === "queued") this.#lastOrder = Math.max(this.#lastOrder, Number.parseInt(message.item.order, 10));
    const { changes, events } = this.replica.apply(message);
    if (this.#tabs.leader && changes.length > 0) this.#keep(changes);
    for (const [type, value] of events) {
      if (type === "timeline") this.#announceTimeline(message.type === "frame" && this.status.state === "connecting");
      else if (type === "refused") this.events.emit(type, { item: /** @type {any} */ (value).item, error: revived(/** @type {any} */ (value).error) });
      else this.events.emit(type, /** @type {any} */ (value));
    }
    if (message.type === "cleared") this.#clear();
    if (!this.#tabs.leader) return;
    if (message.type === "queued" || message.type === "discarded") this.outbox.wake();
    if (message.type === "frame" && message.frame.type === "entry" && COUPLE_KINDS.has(message.frame.entry?.kind ?? "")) {
      void this.refreshCouple().catch(() => {});
    }
    // Paired, or left: the connection belongs to the couple before.
    if (message.type === "couple" && this.replica.couple?.id !== before) this.live.restart();
  }

  /**
   * Emits `timeline` once for all changes of one turn of the event loop or, while missed entries arrive, of some milliseconds.
   * @param {boolean} [arriving]
   */
  #announceTimeline(arriving = false) {
    const announce = () => {
      clearTimeout(this.#announcement);
      this.#announcement = undefined;
      this.#announcing = false;
      this.events.emit("timeline", undefined);
    };
    if (arriving) {
      this.#announcement ??= setTimeout(announce, CATCH_UP_INTERVAL);
    } else if (!this.#announcing) {
      this.#announcing = true;
      void Promise.resolve().then(announce);
    }
  }

  /** @param {any} message */
  #receive(message) {
    if (this.#closed) return;
    if (this.#early) {
      this.#early.push(message);
      return;
    }
    if (message.apply) this.#apply(message.apply);
    // The leader can have written after the tab in which the user signed out.
    if (message.apply?.type === "cleared" && this.#tabs.leader) this.writer.wipe().catch(this.reportError);
    if (message.upload) this.uploads.apply(message.upload);
    if (message.frame) this.events.emit("frame", message.frame);
    if (message.error) this.events.emit("error", revived(message.error));
    if (message.session) this.#applySession(message.session.session, message.session.reason);
    for (const ending of message.endings ?? []) this.#applyEnding(ending);
    if (message.expired) this.#receiveExpired(message.expired);
    if (message.online !== undefined) this.#applyOnline(message.online);
    if (message.wanted !== undefined) this.#applyWanted(message.wanted);
    if (message.transport !== undefined) this.live.setTransport(message.transport);
    if (message.status && !this.#tabs.leader) this.#applyStatus({ ...message.status, leader: false });
    if (message.state && !this.#tabs.leader && message.state.replica.last >= this.replica.last) {
      const { queue } = this.replica;
      this.replica.restore(message.state.replica);
      // The leader did not know these yet when it sent its state.
      for (const item of queue) if (this.#own.has(item.id)) this.replica.apply({ type: "queued", item });
      this.#announceTimeline();
      this.events.emit("queue", this.replica.queue);
      if (this.replica.couple !== undefined) this.events.emit("couple", this.replica.couple);
    }
    if (message.hello && this.#tabs.leader) {
      const state = { replica: this.replica.state() };
      const endings = Array.from(this.#endings, ([id, { token }]) => ({ id, token }));
      this.#tabs.send({ state, endings, status: this.status, wanted: this.#wanted, transport: this.live.only, online: this.status.online });
    }
    if (message.kill && this.#tabs.leader) this.live.kill();
  }

  /** Drops the live connection, which the leader holds. */
  kill() {
    if (this.#tabs.leader) this.live.kill();
    else this.#tabs.send({ kill: true });
  }

  /** @param {Upload} upload */
  publishUpload(upload) {
    this.uploads.apply(upload);
    this.#tabs.send({ upload });
  }

  /** @param {Events["frame"]} frame */
  report(frame) {
    this.events.emit("frame", frame);
    this.#tabs.send({ frame });
  }

  /** @param {CoupleError} error */
  reportError = (error) => this.events.emit("error", error);

  /**
   * Stores changes that must not get lost: after a failure they are part of the next write.
   * @param {Changes} changes
   */
  #keep(changes) {
    this.writer.write(changes, { keep: true }).catch((error) => this.#closed || this.reportError(error));
  }

  /** @param {Partial<Status>} change */
  setStatus(change) {
    const status = { ...this.status, ...change };
    this.#applyStatus(status);
    if (this.#tabs.leader) this.#tabs.send({ status });
  }

  /** @param {Status} status */
  #applyStatus(status) {
    const names = /** @type {(keyof Status)[]} */ (Object.keys(status));
    if (names.every((name) => status[name] === this.status[name])) return;
    this.status = Object.freeze(status);
    this.events.emit("status", status);
  }

  // Settings that are the same in all tabs.

  /** @param {boolean} wanted */
  setWanted(wanted) {
    this.#applyWanted(wanted);
    this.#tabs.send({ wanted });
  }

  /** @param {boolean} wanted */
  #applyWanted(wanted) {
    if (this.#wanted === wanted) return;
    this.#wanted = wanted;
    this.live.restart();
  }

  /** @param {TransportName | null} transport */
  setTransport(transport) {
    // Also here, where the leader may not be elected yet, or may end.
    this.live.setTransport(transport);
    this.#tabs.send({ transport });
  }

  /** @param {boolean} online */
  setOnline(online) {
    this.#applyOnline(online);
    this.#tabs.send({ online });
  }

  /** @param {boolean} online */
  #applyOnline(online) {
    if (online === !this.#online.signal.aborted) return;
    if (online) this.#online = new AbortController();
    else this.#online.abort();
    this.setStatus({ online });
    this.#wakeAll();
  }

  #wakeAll() {
    this.live.restart();
    this.networkWorks();
  }

  /** Sends the queue and the uploads: the live connection works, or the session does not end. */
  networkWorks() {
    this.outbox.wake();
    this.uploads.wake();
  }

  // Session.

  /**
   * Starts, replaces or ends the session, in all tabs.
   * @param {Session | null} session
   * @param {SessionReason} reason
   */
  async setSession(session, reason) {
    /** @type {unknown} */
    let failure;
    if (this.owner !== undefined && this.owner !== session?.account_id) {
      const failed = (/** @type {unknown} */ error) => void (failure ??= error);
      // Without session and owner, the next start deletes what is left.
      await this.#store(null).catch(failed);
      this.publish({ type: "cleared" });
      this.owner = null;
      await this.writer.wipe().catch(failed);
      if (!failure) this.owner = undefined;
      else if (session) [session, reason] = [null, "signed_out"];
    }
    if (session) await this.#store(session);
    this.#applySession(session, reason);
    this.#tabs.send({ session: { session, reason } });
    if (failure) throw failure;
  }

  /** @param {Session | null} session */
  #store(session) {
    return this.writer.store([["session", session ?? undefined], ["owner", session?.account_id]]);
  }

  /**
   * Ends the session by a request. Until the response arrives, a refused token is not reported as `expired`, and no tab sends the
   * queue.
   * @template T
   * @param {"signed_out" | "deleted"} reason `signed_out`: whatever the server answers
   * @param {() => Promise<T>} request
   * @returns {Promise<T | undefined>} undefined: the response was lost, and the session has ended
   */
  async endSession(reason, request) {
    await this.ready;
    const id = randomId();
    const publish = (/** @type {string} */ token) => {
      this.#applyEnding({ id, token });
      this.#tabs.send({ endings: [{ id, token }] });
    };
    let token = "";
    const timer = setInterval(() => publish(token), ENDING_TIMEOUT / 3);
    let refused = false;
    try {
      for (;;) {
        const { session, owner } = this;
        publish((token = session?.token ?? ""));
        const { answer, failure } = await request().then((answer) => ({ answer, failure: null }), (cause) => ({ answer: undefined, failure: asCoupleError(cause) }));
        if (failure?.unsure) this.#unsure = token;
        refused = failure?.code === "unauthenticated" && token !== "";
        const now = owner === null ? null : await this.#storedSession().catch(() => this.session);
        const ended = reason === "signed_out";
        if (now && now.account_id === owner && now.token !== token && (ended || refused)) {
          // Another tab has replaced the token.
          this.session = now;
          continue;
        }
        if (failure && !ended && !(refused && token === this.#unsure)) throw failure;
        refused = false;
        // Another user can have signed in, or another tab have signed out.
        if (owner !== undefined && owner === this.owner && (!now || now.account_id === owner)) await this.setSession(null, reason);
        return answer;
      }
    } finally {
      clearInterval(timer);
      publish("");
      if (refused) await this.expire(token);
    }
  }

  /** @param {{ id: string, token: string }} ending a closed tab cannot take it back by an empty token, so it is repeated and expires */
  #applyEnding({ id, token }) {
    clearTimeout(this.#endings.get(id)?.timer);
    this.#endings.delete(id);
    if (token) this.#endings.set(id, { token, timer: setTimeout(() => this.#applyEnding({ id, token: "" }), ENDING_TIMEOUT) });
    else this.networkWorks();
  }

  /** @param {string} token */
  #isEnding(token) {
    return [...this.#endings.values()].some((ending) => ending.token === token);
  }

  /** The data of the account is deleted; what arrives for it later is discarded. */
  #clear() {
    this.session = null;
    this.owner = undefined;
    this.uploads.clear();
    this.live.restart();
  }

  /**
   * @param {Session | null} session
   * @param {SessionReason} reason
   */
  #applySession(session, reason) {
    this.session = session;
    if (session) {
      this.owner = session.account_id;
      this.writer.scope = scopeOf(this.owner);
    }
    this.events.emit("session", { session, reason });
    this.#wakeAll();
  }

  /**
   * Handles a token that the server has refused. Stored data is kept for the same account.
   * @param {string} token
   */
  async expire(token) {
    if (token !== this.session?.token || this.#isEnding(token)) return;
    // Another tab can have replaced the token before this tab heard of it.
    const stored = this.options.locks ? await this.#storedSession().catch(() => null) : null;
    if (token !== this.session?.token || this.#isEnding(token)) return;
    if (stored && stored.token !== token) return this.#applySession(stored, "rotated");
    this.#applySession(null, "expired");
    this.#tabs.send({ expired: token });
    await this.writer.store([["session", undefined]]).catch(this.reportError);
  }

  /** @param {string} token token that the server refused in another tab */
  #receiveExpired(token) {
    if (this.session?.token === token) {
      if (!this.#isEnding(token)) this.#applySession(null, "expired");
    }
    // The other tab did not know the new token and has deleted it.
    else if (this.session) this.#store(this.session).catch(this.reportError);
  }

  // The couple and the queue.

  /**
   * Reads the couple.
   * @returns {Promise<Couple | null>}
   */
  refreshCouple() {
    // A question that is under way can have been answered before the change.
    if (this.#refreshing) this.#refreshAgain = true;
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  /** @returns {Promise<Couple | null>} */
  async #refresh() {
    const { owner } = this;
    let couple = null;
    do {
      this.#refreshAgain = false;
      try {
        couple = await this.http.call("GET", "/v1/couple");
      } catch (error) {
        if (asCoupleError(error).code !== "not_paired") throw error;
      }
    } while (this.#refreshAgain);
    if (owner === this.owner) this.publish({ type: "couple", couple });
    return couple;
  }

  /**
   * Adds a write to the queue.
   * @param {Pick<QueueItem, "type" | "key"> & Partial<QueueItem>} write
   * @param {Changes} [more] changes to store together with it
   * @returns {Promise<void>} when it is stored
   */
  async enqueue(write, more = []) {
    await this.ready;
    if (!this.session) throw new CoupleError("signed_out", { message: "sign in first" });
    if (this.replica.couple === undefined) await this.refreshCouple();
    if (!this.replica.couple) throw new CoupleError("not_paired", { message: "you are in no couple" });
    const id = randomId();
    /** @type {QueueItem} */
    const item = {
      id,
      order: `${sortable(this.nextOrder())}-${id}`,
      couple_id: this.replica.couple.id,
      seq: null,
      created_at: new Date().toISOString(),
      attempts: 0,
      error: null,
      ...write,
    };
    await this.writer.write([[`q:${item.order}`, item], ...more]);
    this.#own.add(id);
    this.publish({ type: "queued", item });
  }

  async close() {
    if (this.#closed) return;
    await this.ready.catch(() => {});
    this.#closed = true;
    this.live.stop();
    this.outbox.stop();
    this.uploads.stop();
    for (const id of this.#endings.keys()) this.#applyEnding({ id, token: "" });
    // Requests under way end as after a lost connection.
    this.#online.abort();
    await this.writer.close();
    this.#tabs.close();
  }
}

/**
 * Prefix of the keys of an account's data.
 * @param {string} account
 */
function scopeOf(account) {
  return `${account}/`;
}

/** @param {{ code: string, status?: number, message?: string, errors?: any[] }} error error as another tab sent it */
function revived({ code, ...more }) {
  return new CoupleError(code, more);
}
