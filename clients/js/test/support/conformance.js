/** What `clients/conformance` asks of a client, without anything of a platform: Node.js and a page in a browser run it. */

/**
 * @param {object} platform
 * @param {typeof import("../../src/index.js").createClient} platform.createClient
 * @param {Partial<import("../../src/types.js").ClientOptions>} platform.options
 * @param {(message: any) => void} platform.say writes an event
 * @returns {(command: any) => Promise<any>} runs a command and returns its answer
 */
export function conformanceClient({ createClient, options, say }) {
  /** @type {import("../../src/index.js").Client} */
  let client;
  /** @type {{ id: string }} */
  let account;
  /** @type {any} */
  let given;

  /** Answers a sign-in with the session that the script has given: it has no mails with codes. @type {typeof fetch} */
  const fetchWithSignIn = (url, init) => {
    if (init?.method !== "POST" || !String(url).endsWith("/v1/sessions")) return fetch(url, init);
    return Promise.resolve(Response.json(given));
  };

  const signIn = async (/** @type {string} */ token) => {
    given = { account, session: { id: `session-${token}`, token, expires_at: "2100-01-01T00:00:00Z" } };
    await client.account.signIn({ token });
  };

  const start = async (/** @type {any} */ { url, token, account_id, transport, heartbeat_s, max_backoff_ms }) => {
    account = { id: account_id };
    client = createClient({
      baseUrl: url,
      fetch: fetchWithSignIn,
      heartbeat: heartbeat_s,
      backoff: { first: 50, most: max_backoff_ms },
      cacheSize: 1_000_000,
      ...options,
    });
    client.on("session", ({ reason }) => reason === "expired" && say({ event: "signed_out" }));
    client.on("refused", ({ item, error }) => say({ event: "rejected", client_id: item.client_id, code: error.code }));
    client.on("status", (status) => say({ event: "state", state: status.state, transport: status.transport, reason: status.reason }));
    client.on("error", (error) => console.error(error));
    await client.ready;
    client.setTransport(transport);
    if (client.session?.token !== token) await signIn(token);
    client.connect();
  };

  const unconfirmed = () => client.timeline.entries.filter(({ state }) => state !== "confirmed");
  const keyOf = (/** @type {number} */ seq) => client.timeline.entries.find((entry) => entry.seq === seq)?.key ?? String(seq);

  const log = async () => {
    while (client.timeline.hasOlder && client.status.online) await client.timeline.loadOlder(200).catch(() => {});
    const confirmed = client.timeline.entries.filter(({ state }) => state === "confirmed");
    const entries = confirmed.map(({ seq, author, client_id, kind, body, deleted_at, reactions }) => {
      return { seq, author, client_id: client_id ?? null, kind, body, deleted: Boolean(deleted_at), reactions };
    });
    return { entries, pending: unconfirmed().map(({ client_id }) => client_id) };
  };

  /** @type {Record<string, (command: any) => any>} */
  const commands = {
    start,
    sign_in: ({ token }) => signIn(token),
    append: async ({ client_id, kind, body }) => void (await client.timeline.append(kind, body, { client_id })),
    edit: ({ seq, body }) => client.timeline.edit(keyOf(seq), body),
    delete: ({ seq }) => client.timeline.delete(keyOf(seq)),
    react: ({ seq, emoji }) => client.timeline.react(keyOf(seq), emoji),
    offline: () => client.setOnline(false),
    online: async () => {
      client.setOnline(true);
      await client.refresh().catch(() => {});
    },
    transport: ({ transport }) => client.setTransport(transport),
    status: () => ({ queued: client.timeline.queue.length + unconfirmed().filter(({ state }) => state === "sent").length }),
    log,
  };

  return async (command) => {
    try {
      return { ...(await commands[command.do](command)), id: command.id, ok: true };
    } catch (error) {
      const { code = "", message } = /** @type {any} */ (error);
      return { id: command.id, error: `${code} ${message}` };
    }
  };
}
