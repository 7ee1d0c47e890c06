// Lets clients/conformance drive this client: commands as JSON lines on stdin, answers and events on stdout.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { createClient } from "./src/index.js";
import { fileStore } from "./src/node.js";
import { conformanceClient } from "./test/support/conformance.js";

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
const options = { WebSocket };
const handle = conformanceClient({ createClient, options, say });

say({
  event: "ready",
  client: "couple-client (JavaScript)",
  transports: [...(WebSocket ? ["websocket"] : []), "sse", "poll"],
  supports: ["edit", "delete", "react", "offline_changes", "heartbeat"],
});
const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const command = JSON.parse(line);
  if (command.do === "start") options.storage = fileStore(join(command.store, "client.jsonl"));
  say(await handle(command));
});
lines.on("close", () => process.exit());
