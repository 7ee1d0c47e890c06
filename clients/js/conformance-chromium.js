// Lets clients/conformance drive this client in a page of Chromium: as conformance.js, but the commands go to the page.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Chromium, servePage } from "./test/support/chromium.js";

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

/** Opens the page. Profile and origin, to which IndexedDB belongs, are in the folder `store`, so that they survive a SIGKILL. */
async function open(store) {
  const path = join(store, "page-port");
  const page = await servePage(Number(await readFile(path, "utf8").catch(() => "0")));
  await writeFile(path, new URL(page.origin).port);
  // A SIGKILL of this program is one of the browser.
  const chromium = await Chromium.start({ folder: join(store, "chromium"), endsWithParent: true });
  chromium.on("Runtime.bindingCalled", ({ payload }) => say(JSON.parse(payload)));
  chromium.on("Runtime.consoleAPICalled", ({ type, args }) => type === "error" && console.error(args.map((one) => one.description ?? one.value).join(" ")));
  chromium.on("Runtime.exceptionThrown", ({ exceptionDetails }) => console.error(exceptionDetails.exception?.description ?? exceptionDetails.text));
  const tab = await chromium.open(page.origin);
  await tab.call("Runtime.enable");
  await tab.call("Runtime.addBinding", { name: "sayText" });
  await tab.until(() => typeof globalThis.createClient === "function");
  await tab.run(async () => {
    const { conformanceClient } = await import("/test/support/conformance.js");
    const { createClient } = globalThis;
    globalThis.handle = conformanceClient({ createClient, options: {}, say: (message) => globalThis.sayText(JSON.stringify(message)) });
  });
  return tab;
}

say({
  event: "ready",
  client: "couple-client (JavaScript, in Chromium)",
  transports: ["websocket", "sse", "poll"],
  supports: ["edit", "delete", "react", "offline_changes", "heartbeat"],
});
let tab;
const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const command = JSON.parse(line);
  try {
    if (command.do === "start") tab = open(command.store);
    say(await (await tab).run((given) => globalThis.handle(given), command));
  } catch (error) {
    say({ id: command.id, error: error.message });
  }
});
lines.on("close", () => process.exit());
