/** A server in memory, seen by one user, that misbehaves as a test asks. */

/** @param {number} status @param {any} [body] @param {Record<string, string>} [headers] */
export function json(status, body, headers = {}) {
  const text = body === undefined ? null : JSON.stringify(body);
  return new Response(text, { status, headers: { ...(text !== null && { "content-type": "application/json" }), ...headers } });
}

/** @param {number} status @param {string} code @param {Record<string, string>} [headers] */
export function problem(status, code, headers = {}) {
  return json(status, { type: `urn:couple:problem:${code}`, title: code, status, code }, { "content-type": "application/problem+json", ...headers });
}

export class FakeServer {
  /** @type {any[]} */
  log = [];
  coupleNumber = 1;
  paired = true;
  token = "token-1";
  accountId = "account-1";
  /** Requests so far, as `METHOD path`. */
  requests = /** @type {string[]} */ ([]);
  /** Replaces the answer to a request, or throws as a broken network does. @type {(request: { method: string, path: string, body: any, headers: Headers }) => any} */
  intercept = () => undefined;
  /** Loses the answer to the next request that it accepts. @type {(request: { method: string, path: string }) => boolean} */
  loseAnswer = () => false;
  /** Transports that can be used. */
  transports = new Set(["websocket", "sse", "poll"]);
  /** @type {Set<{ after: number, send: (frame: any) => void, drop: () => void, transport: string }>} */
  connections = new Set();
  /** Number of live connections that were opened. */
  opened = 0;

  get couple() {
    const member = (/** @type {string} */ id) => ({ id, display_name: id, avatar: null });
    const head_seq = this.log.length;
    return { id: `couple-${this.coupleNumber}`, since: "", title: null, anniversary: null, me: member("me"), partner: { ...member("partner"), presence: "away" }, head_seq, my_read_seq: 0, partner_read_seq: 0, unread: 0, previous: null };
  }

  get options() {
    return { baseUrl: "http://fake", fetch: this.fetch, WebSocket: this.WebSocket, backoff: { first: 5, most: 20 } };
  }

  get session() {
    return { account: { id: this.accountId }, session: { id: "session", token: this.token, expires_at: "" } };
  }

  /** @param {number} seq */
  cursor(seq) {
    return `c${this.coupleNumber}.${seq}`;
  }

  /** Adds an entry and sends it. @param {"me" | "partner" | "system"} author @param {string} kind @param {any} body @param {any} [more] */
  append(author, kind, body, more = {}) {
    const entry = { seq: this.log.length + 1, author, kind, body, created_at: new Date().toISOString(), reactions: {}, ...more };
    this.log.push(entry);
    for (const connection of this.connections) this.#catchUp(connection);
    return entry;
  }

  /** Ends all live connections as a broken network does. */
  cut() {
    for (const { drop } of [...this.connections]) drop();
  }

  /** Sends a frame on all live connections. @param {any} frame */
  broadcast(frame) {
    for (const { send } of [...this.connections]) send(frame);
  }

  /** @param {{ after: number, send: (frame: any) => void }} connection */
  #catchUp(connection) {
    while (connection.after < this.log.length) {
      const entry = this.log[connection.after++];
      const target = entry.target_seq ? { target: this.log[entry.target_seq - 1] } : {};
      connection.send({ type: "entry", entry: structuredClone({ ...entry, ...target }), cursor: this.cursor(entry.seq) });
    }
  }

  /** Starts to follow the log. @param {string} path @param {string} transport @param {(frame: any) => void} send @param {() => void} drop */
  #follow(path, transport, send, drop) {
    this.opened += 1;
    const after = new URL(path, "http://fake").searchParams.get("after") ?? String(this.log.length);
    const [, number, seq] = /^(?:c(\d+)\.)?(\d+)$/.exec(after) ?? [];
    const fits = (number === undefined || Number(number) === this.coupleNumber) && Number(seq) <= this.log.length;
    const connection = { after: fits ? Number(seq) : this.log.length, send, drop: () => this.connections.delete(connection) && drop(), transport };
    this.connections.add(connection);
    if (!fits) send({ type: "reset", reason: "cursor_unknown", cursor: this.cursor(this.log.length) });
    this.#catchUp(connection);
    send({ type: "caught_up", cursor: this.cursor(connection.after) });
    return connection;
  }

  WebSocket = (() => {
    const server = this;
    return class {
      readyState = 0;
      onmessage = /** @type {any} */ (null);
      onclose = /** @type {any} */ (null);
      onerror = /** @type {any} */ (null);
      #connection = /** @type {any} */ (null);
      #closed = false;
      /** @param {string} url @param {string[]} protocols */
      constructor(url, protocols) {
        setTimeout(() => {
          if (this.#closed) return;
          server.requests.push(`WEBSOCKET ${url}`);
          if (!server.transports.has("websocket") || !server.paired || protocols[1] !== server.token) return this.onclose?.({ code: 1006 });
          const send = (/** @type {any} */ frame) => queueMicrotask(() => this.onmessage?.({ data: JSON.stringify(frame) }));
          this.#connection = server.#follow(url, "websocket", send, () => this.onclose?.({ code: 1006 }));
        }, 1);
      }
      /** @param {string} text */
      send(text) {
        server.requests.push(`FRAME ${text}`);
      }
      close() {
        this.#closed = true;
        server.connections.delete(this.#connection);
      }
    };
  })();

  /** @type {any} */
  fetch = async (/** @type {string} */ url, /** @type {any} */ init = {}) => {
    const { method = "GET", signal } = init;
    const headers = new Headers(init.headers);
    const path = url.replace("http://fake", "");
    const body = typeof init.body === "string" ? JSON.parse(init.body) : init.body;
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (signal?.aborted) throw new TypeError("aborted");
    this.requests.push(`${method} ${path}`);
    const replaced = await this.intercept({ method, path, body, headers });
    if (replaced) return replaced;
    const answer = await this.#answer(method, path, body, headers, signal);
    if (this.loseAnswer({ method, path })) throw new TypeError("the connection broke before the answer");
    return answer;
  };

  /** @param {string} method @param {string} path @param {any} body @param {Headers} headers @param {AbortSignal} signal */
  async #answer(method, path, body, headers, signal) {
    if (method === "POST" && path === "/v1/sessions") return json(201, this.session);
    if (headers.get("authorization") !== `Bearer ${this.token}`) return problem(401, "unauthenticated");
    if (path === "/v1/sessions/current") return json(204);
    if (!this.paired) return problem(404, "not_paired");
    if (path === "/v1/couple") return json(200, this.couple);
    if (path.startsWith("/v1/couple/live")) return this.#live(path, headers, signal);
    const asked = headers.get("couple-id");
    if (asked && asked !== this.couple.id) return problem(404, "not_paired");
    if (path === "/v1/couple/read") return json(204);
    if (path === "/v1/couple/signals") return json(202);
    if (method === "GET" && path.startsWith("/v1/couple/entries")) return this.#page(path);
    if (method === "POST" && path === "/v1/couple/entries") {
      const known = this.log.find(({ author, client_id }) => author === "me" && client_id === body.client_id);
      return known ? json(200, known) : json(201, this.append("me", body.kind, body.body, { client_id: body.client_id }));
    }
    return this.#change(method, path, body);
  }

  /** @param {string} method @param {string} path @param {any} body */
  #change(method, path, body) {
    const [, seq, reaction] = /^\/v1\/couple\/entries\/(\d+)(\/reaction)?$/.exec(path) ?? [];
    const entry = this.log[Number(seq) - 1];
    if (!entry) return problem(404, "entry_not_found");
    if (entry.deleted_at) return problem(410, "entry_deleted");
    if (!reaction && entry.author !== "me") return problem(403, "not_author");
    const at = new Date().toISOString();
    if (reaction) entry.reactions = method === "PUT" ? { ...entry.reactions, me: body.emoji } : {};
    else if (method === "PATCH") Object.assign(entry, { body: body.body, edited_at: at });
    else Object.assign(entry, { body: null, deleted_at: at });
    const kind = reaction ? "entry_reacted" : method === "PATCH" ? "entry_edited" : "entry_deleted";
    this.append("me", kind, null, { target_seq: entry.seq });
    return method === "DELETE" ? json(204) : json(200, entry);
  }

  /** @param {string} path */
  #page(path) {
    const query = new URL(path, "http://fake").searchParams;
    const limit = Number(query.get("limit") ?? 50);
    const before = Number(query.get("before") ?? Infinity);
    const entries = this.log.filter(({ seq }) => seq < before).slice(-limit);
    const next = entries.length === limit && entries[0].seq > 1 ? entries[0].seq : null;
    return json(200, { entries: structuredClone(entries), next });
  }

  /** @param {string} path @param {Headers} headers @param {AbortSignal} signal */
  async #live(path, headers, signal) {
    if (headers.get("accept") === "text/event-stream") {
      if (!this.transports.has("sse")) throw new TypeError("no event streams");
      /** @type {ReadableStreamDefaultController} */
      let controller;
      const stream = new ReadableStream({ start: (given) => void (controller = given) });
      const encoder = new TextEncoder();
      const send = (/** @type {any} */ frame) => controller.enqueue(encoder.encode(`id: 1\ndata: ${JSON.stringify(frame)}\n\n`));
      const connection = this.#follow(path, "sse", send, () => controller.error(new TypeError("cut")));
      signal?.addEventListener("abort", () => connection.drop());
      return new Response(stream, { headers: { "content-type": "text/event-stream" } });
    }
    if (!this.transports.has("poll")) throw new TypeError("no polls");
    /** @type {any[]} */
    const frames = [];
    /** @type {any} */
    let connection;
    const wait = Number(new URL(path, "http://fake").searchParams.get("wait")) * 1000;
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, wait);
      const send = (/** @type {any} */ frame) => {
        if (frame.type === "caught_up") return;
        frames.push(frame);
        setTimeout(resolve, 1);
      };
      connection = this.#follow(path, "poll", send, () => reject(new TypeError("cut")));
      signal?.addEventListener("abort", () => reject(new TypeError("aborted")));
      if (wait === 0) clearTimeout(timer), resolve(undefined);
    }).finally(() => this.connections.delete(connection));
    return json(200, { frames, cursor: this.cursor(connection.after) });
  }
}

/** Waits until something is true. @param {() => any} condition @param {string} [what] @param {number} [timeout] */
export async function until(condition, what = condition.toString(), timeout = 30_000) {
  const end = Date.now() + timeout;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
