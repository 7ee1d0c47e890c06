/** A TCP proxy that cuts all its connections when asked, in the middle of anything. */

import { connect, createServer } from "node:net";

export class Proxy {
  /** @type {Set<import("node:net").Socket>} */
  #sockets = new Set();
  accepted = 0;
  cuts = 0;
  url = "";
  #server = createServer((client) => {
    this.accepted += 1;
    const server = connect(this.port, "127.0.0.1");
    for (const [from, to] of [[client, server], [server, client]]) {
      this.#sockets.add(from);
      from.on("data", (data) => void to.write(data));
      from.on("error", () => {});
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  });

  /** @param {number} port port of the server */
  constructor(port) {
    this.port = port;
  }

  /** @param {number} port */
  static async start(port) {
    const proxy = new Proxy(port);
    await new Promise((resolve) => proxy.#server.listen(0, "127.0.0.1", () => resolve(undefined)));
    const address = /** @type {import("node:net").AddressInfo} */ (proxy.#server.address());
    proxy.url = `http://127.0.0.1:${address.port}`;
    return proxy;
  }

  /** Resets all connections. */
  cut() {
    this.cuts += 1;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  stop() {
    this.cut();
    this.#server.close();
  }
}
