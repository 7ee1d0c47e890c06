/** The server example as a child process, with couples that are ready to use. */

import { spawn } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** @returns {Promise<number>} a port that nothing listens on */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}

export class Server {
  /** @type {import("node:child_process").ChildProcess | null} */
  #child = null;
  /** @type {Record<string, string>} */
  settings = {};

  /**
   * @param {string} folder
   * @param {number} port
   */
  constructor(folder, port) {
    this.folder = folder;
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
  }

  /** @param {Record<string, string>} [settings] environment variables */
  static async start(settings = {}) {
    const server = new Server(await mkdtemp(join(tmpdir(), "couple-client-")), await freePort());
    server.settings = settings;
    await server.start();
    return server;
  }

  async start() {
    const program = process.env.COUPLE_TEST_SERVER;
    if (!program) throw new Error("COUPLE_TEST_SERVER is not set: the path of the server example");
    // The server refuses variables that it does not know.
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("COUPLE_"));
    const own = { COUPLE_LISTEN: `127.0.0.1:${this.port}`, COUPLE_LIMITS: "off", COUPLE_STOP_DELAY: "0", RUST_LOG: "error" };
    const env = { ...Object.fromEntries(inherited), ...own, ...this.settings };
    this.#child = spawn(program, { cwd: this.folder, env, stdio: ["ignore", "ignore", "inherit"] });
    for (let tries = 0; ; tries++) {
      const ready = await fetch(`${this.url}/readyz`).then(({ ok }) => ok, () => false);
      if (ready) return;
      if (tries > 600 || this.#child.exitCode !== null) throw new Error("the server does not start");
      await sleep(50);
    }
  }

  /** @param {NodeJS.Signals} signal */
  async #end(signal) {
    const child = this.#child;
    this.#child = null;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }

  /** Ends the process without any warning, as a crash does. */
  kill() {
    return this.#end("SIGKILL");
  }

  async stop() {
    await this.#end("SIGTERM");
    await rm(this.folder, { recursive: true, force: true });
  }

  /**
   * Newest code that was mailed to an address.
   * @param {string} email
   */
  async code(email) {
    const mail = join(this.folder, "couple-data/mail");
    for (let tries = 0; tries < 200; tries++) {
      const names = await readdir(mail).catch(() => []);
      for (const name of names.filter((name) => name.endsWith(".eml")).sort().reverse()) {
        const text = await readFile(join(mail, name), "utf8");
        const code = /^ {4}(\d{6})\r?$/m.exec(text);
        if (text.includes(`To: ${email}`) && code) return code[1];
      }
      await sleep(50);
    }
    throw new Error(`no mail to ${email}`);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string | undefined} token
   * @param {any} [body]
   * @returns {Promise<any>}
   */
  async call(method, path, token, body) {
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
    const response = await fetch(this.url + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }
}

let users = 0;

/**
 * Signs a client up.
 * @param {Server} server
 * @param {import("../../src/index.js").Client} client
 * @param {string} name
 */
export async function signUp(server, client, name) {
  const email = `${name.toLowerCase()}-${++users}@example.org`;
  await client.account.signUp({ email, display_name: name });
  await client.account.verify({ email, code: await server.code(email) });
  return email;
}

/**
 * Signs two clients up and makes them a couple.
 * @param {Server} server
 * @param {import("../../src/index.js").Client} one
 * @param {import("../../src/index.js").Client} other
 */
export async function pair(server, one, other) {
  await signUp(server, one, "Ana");
  await signUp(server, other, "Ben");
  const invite = /** @type {{ code: string }} */ (await one.pairing.invite());
  await other.pairing.accept({ code: invite.code });
}
