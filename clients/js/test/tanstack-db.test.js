/** The collection of TanStack DB, with the real package. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { createCollection, createLiveQueryCollection, eq } from "@tanstack/db";

import { createClient } from "../src/index.js";
import { newEntry, timelineCollectionOptions } from "../src/tanstack-db.js";
import { FakeServer, problem, until } from "./support/fake-server.js";

const clients = /** @type {import("../src/index.js").Client[]} */ ([]);
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
});

async function opened() {
  const server = new FakeServer();
  server.append("system", "paired", null);
  const client = createClient(server.options);
  clients.push(client);
  await client.account.signIn({ email: "ana@example.org", password: "a long password" });
  client.connect();
  const collection = createCollection(timelineCollectionOptions({ client }));
  await collection.preload();
  await until(() => client.status.state === "live");
  return { server, client, collection };
}

test("rows follow the timeline", async () => {
  const { server, client, collection } = await opened();
  await until(() => collection.size === 1);
  server.append("partner", "text", { text: "hello" });
  await until(() => collection.get("2")?.body?.text === "hello");
  await client.timeline.append("text", { text: "mine" });
  await until(() => [...collection.values()].at(-1)?.state === "confirmed" && collection.size === 3);
  assert.deepEqual([...collection.values()].map(({ body }) => body?.text), [undefined, "hello", "mine"]);
});

test("inserts, updates and deletions go through the queue, also without network", async () => {
  const { server, client, collection } = await opened();
  client.setOnline(false);
  const row = newEntry("text", { text: "one" });
  const inserted = collection.insert(row);
  assert.equal(collection.get(row.key)?.body?.text, "one");
  await inserted.isPersisted.promise;
  assert.equal(collection.get(row.key)?.state, "waiting");
  await collection.update(row.key, (draft) => void (draft.body = { text: "two" })).isPersisted.promise;
  assert.equal(collection.get(row.key)?.body?.text, "two");
  await collection.update(row.key, (draft) => void (draft.reactions = { me: "❤️" })).isPersisted.promise;
  assert.equal(client.timeline.queue.length, 3);
  client.setOnline(true);
  await until(() => collection.get(row.key)?.state === "confirmed" && client.timeline.queue.length === 0);
  assert.deepEqual(server.log.map(({ kind }) => kind), ["paired", "text", "entry_edited", "entry_reacted"]);
  assert.equal(server.log[1].body.text, "two");
  await collection.delete(row.key).isPersisted.promise;
  assert.equal(collection.get(row.key), undefined);
  await until(() => server.log.length === 5 && server.log[1].deleted_at);
  assert.equal(collection.size, 1);
});

test("a live query sees changes, and a refused entry disappears", async () => {
  const { server, client, collection } = await opened();
  server.intercept = ({ body }) => (body?.kind === "x-bad" ? problem(422, "invalid_field") : undefined);
  const texts = createLiveQueryCollection((query) => query.from({ entry: collection }).where(({ entry }) => eq(entry.kind, "text")));
  await texts.preload();
  server.append("partner", "text", { text: "hello" });
  collection.insert(newEntry("x-bad", {}));
  await until(() => client.timeline.queue.length === 0 && collection.size === 2 && texts.size === 1);
  assert.deepEqual([...texts.values()].map(({ body }) => body?.text), ["hello"]);
});
