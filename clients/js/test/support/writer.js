/** Appends numbers for ever, and prints each one once it is stored: node writer.js URL STORE FIRST */

import { createClient } from "../../src/index.js";
import { fileStore } from "../../src/node.js";

const [baseUrl, path, first] = process.argv.slice(2);
const client = createClient({ baseUrl, storage: fileStore(path), backoff: { first: 10, most: 50 } });
await client.ready;
for (let number = Number(first); ; number++) {
  await client.timeline.append("text", { text: String(number) });
  process.stdout.write(`${number}\n`);
}
