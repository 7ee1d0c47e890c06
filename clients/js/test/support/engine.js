/** Clients of a server in memory, for the tests of the engine. They are closed after each test. */

import { afterEach } from "node:test";

import { createClient, memoryStore } from "../../src/index.js";
import { FakeServer, json, until } from "./fake-server.js";
import { Browser } from "./tabs.js";

const clients = /** @type {import("../../src/index.js").Client[]} */ ([]);
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
});

/** @param {any} options */
export function opened(options) {
  const client = createClient(options);
  clients.push(client);
  return client;
}

/** A signed-in client of a server with one entry. */
export async function started(options = {}, server = new FakeServer()) {
  if (server.log.length === 0) server.append("system", "paired", null);
  const client = opened({ ...server.options, .../** @type {any} */ (options) });
  const seen = /** @type {any[]} */ ([]);
  const events = /** @type {Record<string, any[]>} */ ({});
  for (const type of /** @type {const} */ (["session", "status", "reset", "refused", "error", "signal", "presence", "read"])) {
    events[type] = [];
    client.on(type, (value) => events[type].push(value));
  }
  client.on("entry", (entry) => seen.push(entry));
  await client.account.signIn({ email: "ana@example.org", password: "a long password" });
  return { client, server, seen, events };
}

/** The same, connected. */
export async function live(options = {}, server = new FakeServer()) {
  const one = await started(options, server);
  one.client.connect();
  await until(() => one.client.status.state === "live");
  return one;
}

export const texts = (/** @type {any} */ client) => client.timeline.entries.filter((/** @type {any} */ { kind }) => kind === "text").map((/** @type {any} */ { body }) => body?.text);

/** Two tabs of one browser, both live, and the reasons of their events `session`. @param {any} [options] */
export async function twoTabs(options) {
  const [browser, server, storage] = [new Browser(), new FakeServer(), memoryStore()];
  const tab = { storage, locks: browser.locks, channel: browser.channel, ...options };
  const { client: one, events } = await live(tab, server);
  const two = opened({ ...server.options, ...tab });
  await until(() => two.status.state === "live");
  const reasons = /** @type {Record<string, string[]>} */ ({ one: [], two: [] });
  one.on("session", ({ reason }) => reasons.one.push(reason));
  two.on("session", ({ reason }) => reasons.two.push(reason));
  return { server, storage, tab, one, two, events, reasons };
}

/** Holds the answer to a deletion of a session or account until `answer` is called. @param {FakeServer} server */
export function held(server) {
  const asked = /** @type {string[]} */ ([]);
  /** @type {(response: any) => void} */
  let answer = () => {};
  const answered = new Promise((resolve) => (answer = resolve));
  server.intercept = ({ method, path, headers }) => {
    if (method !== "DELETE" || (path !== "/v1/me" && path !== "/v1/sessions/current")) return undefined;
    return asked.push(headers.get("authorization") ?? "") === 1 ? answered : json(204);
  };
  return { asked, answer: (/** @type {any} */ response) => answer(response) };
}

/** Timers that `advance` moves, in steps between which requests and messages are handled. @param {any} t */
export function mockedTimers(t) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  return async (/** @type {number} */ milliseconds, step = 100) => {
    for (let time = 0; time < milliseconds; time += step) {
      t.mock.timers.tick(step);
      for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
}

export const writes = (/** @type {FakeServer} */ server) => server.requests.filter((request) => /^POST \/v1\/(couple|uploads)/.test(request));
/** @type {(storage: any, prefix?: string) => Promise<string[]>} */
export const storedKeys = async (storage, prefix = "") => (await storage.entries(prefix)).map((/** @type {[string, any]} */ [key]) => key);
