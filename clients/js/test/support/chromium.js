/** Chromium over the DevTools protocol, and a page that loads the client's source. */

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PAGE = `<!doctype html><title>couple</title><script type="module">
  import { createClient } from "/src/browser.js";
  globalThis.createClient = createClient;
</script>`;

/**
 * Serves the page and the source files as they are.
 * @param {number} [port]
 */
export async function servePage(port = 0) {
  const server = createServer(async (request, response) => {
    const path = /^\/(?:src|test\/support)\/[\w-]+\.js$/.exec(request.url ?? "")?.[0];
    const body = path ? await readFile(new URL(`../..${path}`, import.meta.url)) : PAGE;
    response.writeHead(200, { "content-type": path ? "text/javascript" : "text/html" }).end(body);
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", () => resolve(undefined)));
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  return { origin: `http://127.0.0.1:${address.port}`, stop: () => server.close() };
}

export class Chromium {
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: Error) => void }>} */
  #calls = new Map();
  /** @type {Map<string, (params: any) => void>} */
  #listeners = new Map();
  #next = 0;
  #received = "";

  /**
   * @param {import("node:child_process").ChildProcess} child
   * @param {string} folder
   */
  constructor(child, folder) {
    this.child = child;
    this.folder = folder;
    const [, , , input, output] = /** @type {any[]} */ (child.stdio);
    this.input = /** @type {import("node:stream").Writable} */ (input);
    output.setEncoding("utf8").on("data", (/** @type {string} */ data) => {
      const messages = (this.#received + data).split("\0");
      this.#received = messages.pop() ?? "";
      for (const message of messages) this.#receive(JSON.parse(message));
    });
    for (const stream of [input, output]) stream.on("error", () => {});
    child.on("exit", (code, signal) => {
      for (const { reject } of this.#calls.values()) reject(new Error(`Chromium has ended: ${code ?? signal}`));
      this.#calls.clear();
    });
  }

  /** @param {any} message */
  #receive({ id, result, error, method, params }) {
    if (method) return this.#listeners.get(method)?.(params);
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(new Error(error.message));
    else call?.resolve(result);
  }

  /**
   * @param {object} [options]
   * @param {string} [options.folder] profile; without it, a temporary one
   * @param {boolean} [options.endsWithParent] whether it is killed with this program, however that ends (Linux)
   */
  static async start({ folder, endsWithParent = false } = {}) {
    const profile = folder ?? (await mkdtemp(join(tmpdir(), "couple-client-")));
    const program = process.env.COUPLE_TEST_CHROMIUM ?? "chromium";
    const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", `--user-data-dir=${profile}`];
    const [command, ...args] = [...(endsWithParent ? ["setpriv", "--pdeathsig", "KILL"] : []), program, ...flags];
    const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
    let text = "";
    child.stderr?.on("data", (data) => (text = `${text}${data}`.slice(-4096)));
    const chromium = new Chromium(child, folder ? "" : profile);
    const failed = new Promise((_, reject) => child.once("error", reject));
    await Promise.race([failed, chromium.call("Browser.getVersion", {})]).catch((error) => {
      throw new Error(`Chromium does not start: ${error.message} ${text}`);
    });
    return chromium;
  }

  /**
   * Sets the listener of an event.
   * @param {string} method
   * @param {(params: any) => void} listener
   */
  on(method, listener) {
    this.#listeners.set(method, listener);
  }

  /**
   * @param {string} method
   * @param {any} params
   * @param {string} [sessionId]
   * @returns {Promise<any>}
   */
  call(method, params, sessionId) {
    const id = ++this.#next;
    this.input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
  }

  /**
   * Opens a tab. All tabs share their storage.
   * @param {string} url
   */
  async open(url) {
    const { targetId } = await this.call("Target.createTarget", { url });
    const { sessionId } = await this.call("Target.attachToTarget", { targetId, flatten: true });
    return new Tab(this, targetId, sessionId);
  }

  async stop() {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    await this.call("Browser.close", {}).catch(() => {});
    await ended;
    if (this.folder) await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

export class Tab {
  /**
   * @param {Chromium} chromium
   * @param {string} target
   * @param {string} session
   */
  constructor(chromium, target, session) {
    this.chromium = chromium;
    this.target = target;
    this.session = session;
  }

  /**
   * @param {string} method
   * @param {any} [params]
   */
  call(method, params = {}) {
    return this.chromium.call(method, params, this.session);
  }

  /**
   * Runs a function in the page, with arguments as JSON.
   * @param {(...given: any[]) => any} code
   * @param {...any} given
   * @returns {Promise<any>}
   */
  async run(code, ...given) {
    const expression = `(${code})(...${JSON.stringify(given)})`;
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until a function returns something true in the page. @param {(...given: any[]) => any} condition @param {...any} given */
  async until(condition, ...given) {
    const end = Date.now() + 30_000;
    while (!(await this.run(condition, ...given).catch(() => false))) {
      if (Date.now() > end) throw new Error(`did not happen in the page: ${condition}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  reload() {
    return this.call("Page.reload");
  }

  close() {
    return this.chromium.call("Target.closeTarget", { targetId: this.target });
  }
}
