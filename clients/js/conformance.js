// Lets clients/conformance drive this client: commands as JSON lines on stdin, answers and events on stdout.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { createClient } from "./src/index.js";
import { fileStore } from "./src/node.js";

/** The platform's `WebSocket`, or that of npm `ws` where it is installed: Node.js 20 has none. */
function webSocket() {
  if (globalThis.WebSocket) return globalThis.WebSocket;
  try {
    return createRequire(import.meta.url)("ws");
  } catch {
    return undefined;
  }
}

const WebSocket = webSocket();
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** Answers a sign-in with the session that the script has given: it has no mails with codes. */
let given;
function fetchWithSignIn(url, options) {
  if (options?.method !== "POST" || !String(url).endsWith("/v1/sessions")) return fetch(url, options);
  return Promise.resolve(Response.json(given));
}

let client;
let account;

async function signIn(token) {
  given = { account, session: { id: `session-${token}`, token, expires_at: "2100-01-01T00:00:00Z" } };
  await client.account.signIn({ token });
}

async function start({ url, token, account_id, store, transport, heartbeat_s, max_backoff_ms }) {
  account = { id: account_id };
  client = createClient({
    baseUrl: url,
    storage: fileStore(join(store, "client.jsonl")),
    fetch: fetchWithSignIn,
    WebSocket,
    heartbeat: heartbeat_s,
    backoff: { first: 50, most: max_backoff_ms },
    cacheSize: 1_000_000,
  });
  client.on("session", ({ reason }) => reason === "expired" && say({ event: "signed_out" }));
  client.on("refused", ({ item, error }) => say({ event: "rejected", client_id: item.client_id, code: error.code }));
  client.on("status", (status) => say({ event: "state", state: status.state, transport: status.transport, reason: status.reason }));
  client.on("error", (error) => console.error(error));
  await client.ready;
  client.setTransport(transport);
  if (client.session?.token !== token) await signIn(token);
  client.connect();
}

const unconfirmed = () => client.timeline.entries.filter((entry) => entry.state !== "confirmed");
const keyOf = (seq) => client.timeline.entries.find((entry) => entry.seq === seq)?.key ?? String(seq);

async function log() {
  while (client.timeline.hasOlder && client.status.online) await client.timeline.loadOlder(200).catch(() => {});
  const confirmed = client.timeline.entries.filter((entry) => entry.state === "confirmed");
  const entries = confirmed.map(({ seq, author, client_id, kind, body, deleted_at, reactions }) => {
    return { seq, author, client_id: client_id ?? null, kind, body, deleted: Boolean(deleted_at), reactions };
  });
  return { entries, pending: unconfirmed().map((entry) => entry.client_id) };
}

const commands = {
  start,
  sign_in: ({ token }) => signIn(token),
  append: ({ client_id, kind, body }) => client.timeline.append(kind, body, { client_id }),
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
const NO_VALUE = new Set(["append", "edit", "delete", "react"]);

say({
  event: "ready",
  client: "couple-client (JavaScript)",
  transports: [...(WebSocket ? ["websocket"] : []), "sse", "poll"],
  supports: ["edit", "delete", "react", "offline_changes", "heartbeat"],
});
const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const command = JSON.parse(line);
  try {
    const value = await commands[command.do](command);
    say({ ...(NO_VALUE.has(command.do) ? {} : value), id: command.id, ok: true });
  } catch (error) {
    say({ id: command.id, error: `${error.code ?? ""} ${error.message}` });
  }
});
lines.on("close", () => process.exit());
