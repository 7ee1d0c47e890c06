/** Chromium over the DevTools protocol, and a page that loads the client's source. */

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { WebSocket } from "ws";

const PAGE = `<!doctype html><title>couple</title><script type="module">
  import { createClient } from "/src/browser.js";
  globalThis.createClient = createClient;
</script>`;

/** Serves the page and the source files as they are. */
export async function servePage() {
  const server = createServer(async (request, response) => {
    const name = /^\/src\/([\w-]+\.js)$/.exec(request.url ?? "")?.[1];
    const body = name ? await readFile(new URL(`../../src/${name}`, import.meta.url)) : PAGE;
    response.writeHead(200, { "content-type": name ? "text/javascript" : "text/html" }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return { origin: `http://127.0.0.1:${port}`, stop: () => server.close() };
}

export class Chromium {
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: Error) => void }>} */
  #calls = new Map();
  #next = 0;

  /**
   * @param {import("node:child_process").ChildProcess} child
   * @param {string} folder
   * @param {WebSocket} socket
   */
  constructor(child, folder, socket) {
    this.child = child;
    this.folder = folder;
    this.socket = socket;
    socket.on("message", (data) => {
      const { id, result, error } = JSON.parse(String(data));
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error) call?.reject(new Error(error.message));
      else call?.resolve(result);
    });
  }

  static async start() {
    const folder = await mkdtemp(join(tmpdir(), "couple-client-"));
    const program = process.env.COUPLE_TEST_CHROMIUM ?? "chromium";
    const options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", `--user-data-dir=${folder}`];
    const child = spawn(program, options, { stdio: ["ignore", "ignore", "pipe"] });
    const url = await new Promise((resolve, reject) => {
      let text = "";
      child.stderr.on("data", (data) => {
        text += data;
        const found = /DevTools listening on (\S+)/.exec(text);
        if (found) resolve(found[1]);
      });
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`Chromium does not start: ${text}`)));
    });
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    return new Chromium(child, folder, socket);
  }

  /**
   * @param {string} method
   * @param {any} params
   * @param {string} [sessionId]
   * @returns {Promise<any>}
   */
  call(method, params, sessionId) {
    const id = ++this.#next;
    this.socket.send(JSON.stringify({ id, method, params, sessionId }));
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
    this.socket.close();
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
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
   * Runs a function in the page, with arguments as JSON.
   * @param {(...given: any[]) => any} code
   * @param {...any} given
   * @returns {Promise<any>}
   */
  async run(code, ...given) {
    const expression = `(${code})(...${JSON.stringify(given)})`;
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.chromium.call("Runtime.evaluate", options, this.session);
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
    return this.chromium.call("Page.reload", {}, this.session);
  }

  close() {
    return this.chromium.call("Target.closeTarget", { targetId: this.target });
  }
}
