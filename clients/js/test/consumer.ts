// An app in TypeScript that uses the declarations of the package; it is only compiled.

import { createCollection } from "@tanstack/db";
import { CoupleError, createClient, memoryStore } from "couple-client";
import { createClient as createBrowserClient } from "couple-client/browser";
import { fileStore } from "couple-client/node";
import { newEntry, timelineCollectionOptions } from "couple-client/tanstack-db";

const client = createClient({ baseUrl: "http://127.0.0.1:8080", storage: fileStore("store"), transports: ["sse"] });
createBrowserClient({ baseUrl: "/", storage: memoryStore() });
client.on("refused", ({ item, error }) => console.log(item.type, error.code, error instanceof CoupleError));
client.on("entry", ({ seq, kind, author }) => console.log(seq.toFixed(), kind, author === "partner"));
const name: string | null | undefined = client.couple?.partner.display_name;
const texts: string[] = client.timeline.entries.filter(({ state }) => state !== "waiting").map(({ body }) => body?.text);
// @ts-expect-error: no such event
client.on("nothing", () => {});
// @ts-expect-error: the address is missing
await client.account.signUp({ display_name: "Ana" });
const collection = createCollection(timelineCollectionOptions({ client }));
collection.insert(newEntry("text", { text: `${name} ${texts}` }));
