/**
 * All checks and tests of the client: node test/run.js [ARGUMENT OF node --test…]
 *
 * COUPLE_TEST_CLIENTS is the folder of the installed packages, COUPLE_TEST_SERVER the path of the server example. COUPLE_TEST_CUTS and
 * COUPLE_TEST_KILLS change how often connections are cut and the server is killed.
 */

import { spawn } from "node:child_process";
import { readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { build, checkTests, run } from "../scripts/build.js";
import { Server } from "./support/server.js";

/** Largest size of an entry point, minified and compressed, in bytes. */
const MAX_SIZE = 15 * 1024;

/** @param {string} folder */
async function checkSizes(folder) {
  for (const entry of ["index", "browser"]) {
    const options = ["--bundle", "--minify", "--format=esm", "--log-level=error"];
    const minified = gzipSync(await run(folder, "esbuild", [`src/${entry}.js`, ...options]), { level: 9 });
    console.log(`couple-client ${entry}.js: ${minified.length} bytes, minified and compressed; at most ${MAX_SIZE}`);
    if (minified.length > MAX_SIZE) throw new Error(`${entry}.js is too large`);
  }
  const names = (await readdir(join(folder, "src"))).filter((name) => !["node.js", "tanstack-db.js", "types.js"].includes(name));
  const files = await Promise.all(names.map(async (name) => gzipSync(await readFile(join(folder, "src", name))).length));
  console.log(`couple-client as source, for browsers: ${files.length} files, ${files.reduce((sum, size) => sum + size)} bytes, compressed`);
}

const server = await Server.start();
const folder = await build(`${server.url}/v1/openapi.json`).finally(() => server.stop());
await checkTests(folder);
await checkSizes(folder);
const tests = (await readdir(join(folder, "test"), { recursive: true })).filter((name) => name.endsWith(".test.js")).map((name) => join("test", name));
const child = spawn(process.execPath, ["--test", ...process.argv.slice(2), ...tests], { cwd: folder, stdio: "inherit" });
const code = await new Promise((resolve) => child.once("exit", resolve));
await rm(folder, { recursive: true });
process.exitCode = code ?? 1;
