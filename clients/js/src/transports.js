import { CoupleError, linkedAbort, queryOf } from "./util.js";

/** @import { Frame, TransportName, WebSocketClass } from "./types.js" */
/** @import { Http } from "./http.js" */

/** Time, in milliseconds, in which the first frame of a connection must arrive. */
const ESTABLISH_TIMEOUT = 10_000;
/** Time, in milliseconds, that a heartbeat may be late. */
const GRACE = 10_000;
/** Duration of a poll, in seconds. */
const POLL_WAIT = 25;
/** Maximum number of frames in the response to a poll: with so many, there can be more. */
const FULL_POLL = 200;

/**
 * @typedef {object} Connection One connection, from its opening to its end.
 * @property {Http} http
 * @property {WebSocketClass | undefined} WebSocket
 * @property {string} token
 * @property {() => string | undefined} cursor current cursor
 * @property {number} heartbeat seconds
 * @property {boolean} presence
 * @property {string} device
 * @property {AbortSignal} signal ends the connection
 * @property {(frame: Frame) => void} frame receives each frame, and throws to end the connection
 * @property {(send: ((text: string) => void) | null) => void} sender receives the function that sends, while there is one
 */

/**
 * Each transport runs a connection until it ends. It rejects with the reason, or resolves when the server ended it without one.
 * @type {Record<TransportName, (connection: Connection) => Promise<void>>}
 */
export const TRANSPORTS = { websocket: overWebSocket, sse: overEvents, poll: overPolls };

/**
 * @param {Connection} connection
 * @param {Record<string, string | number | undefined>} more
 */
function path({ cursor, presence }, more) {
  return `/v1/couple/live${queryOf({ after: cursor(), presence: presence ? undefined : "off", ...more })}`;
}

/**
 * Ends a connection on which nothing arrives. `alive` is called whenever something does.
 * @param {AbortSignal} signal
 * @param {number} period milliseconds between two arrivals, after the first one
 */
function watchdog(signal, period) {
  const linked = linkedAbort(signal);
  let silent = false;
  const expire = () => {
    silent = true;
    linked.controller.abort();
  };
  let timer = setTimeout(expire, ESTABLISH_TIMEOUT);
  return {
    signal: linked.signal,
    alive() {
      clearTimeout(timer);
      if (!linked.signal.aborted) timer = setTimeout(expire, period);
    },
    stop() {
      clearTimeout(timer);
      linked.controller.abort();
      linked.release();
    },
    /** @param {unknown} error */
    reason: (error) => (silent ? new CoupleError("network_error", { message: "nothing arrived in time" }) : error),
  };
}

/**
 * Frames as text messages. The token is a subprotocol, because a browser sends no header.
 * @param {Connection} connection
 */
function overWebSocket(connection) {
  const { WebSocket, http, token, heartbeat, signal } = connection;
  if (!WebSocket) return Promise.reject(new CoupleError("unsupported", { message: "no WebSocket on this platform" }));
  const url = http.url(path(connection, { heartbeat })).replace(/^http/, "ws");
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, ["couple", token]);
    const guard = watchdog(signal, heartbeat * 1000 + GRACE);
    /** @param {unknown} [error] */
    const end = (error) => {
      guard.signal.removeEventListener("abort", abort);
      guard.stop();
      connection.sender(null);
      socket.onmessage = socket.onclose = null;
      // Kept: npm `ws` reports an error when a socket is closed before it is open.
      socket.onerror = () => {};
      socket.close();
      if (error) reject(guard.reason(error));
      else resolve(undefined);
    };
    const abort = () => end(new CoupleError("aborted"));
    guard.signal.addEventListener("abort", abort);
    socket.onmessage = ({ data }) => {
      guard.alive();
      connection.sender((text) => socket.send(text));
      try {
        connection.frame(JSON.parse(data));
      } catch (error) {
        end(error);
      }
    };
    socket.onclose = ({ code }) => end(new CoupleError("network_error", { message: `the WebSocket was closed with ${code}` }));
    socket.onerror = () => {};
  });
}

/**
 * Server-sent events over `fetch`: unlike `EventSource`, it sends the token in a header and shows the status.
 * @param {Connection} connection
 */
async function overEvents(connection) {
  const { http, heartbeat, signal } = connection;
  const guard = watchdog(signal, heartbeat * 1000 + GRACE);
  try {
    const headers = { accept: "text/event-stream" };
    const response = await http.open("GET", path(connection, { heartbeat }), { headers, signal: guard.signal });
    const reader = response.body?.getReader?.();
    if (!reader) throw new CoupleError("unsupported", { message: "fetch does not stream on this platform" });
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      // The server writes each event as `data: JSON` beside other fields, and ends it with an empty line.
      const events = text.split(/\r?\n\r?\n/);
      text = events.pop() ?? "";
      for (const event of events) {
        guard.alive();
        // Not `.` and `$`: for them U+2028, which JSON may contain, ends a line.
        const data = Array.from(event.matchAll(/(?:^|\n)data:([^\r\n]*)/g), ([, line]) => line).join("\n");
        if (data) connection.frame(JSON.parse(data));
      }
    }
  } catch (error) {
    throw guard.reason(error);
  } finally {
    guard.stop();
  }
}

/**
 * Consecutive long polls.
 * @param {Connection} connection
 */
async function overPolls(connection) {
  const { http, device, signal, frame } = connection;
  // The first poll does not wait, so that it shows whether polls work.
  for (let wait = 0; ; wait = POLL_WAIT) {
    const timeout = wait * 1000 + GRACE;
    const { frames, cursor } = await http.json("GET", path(connection, { wait, device }), { signal, timeout });
    for (const one of frames) frame(one);
    // A poll has no frame that says that nothing is left.
    if (frames.length < FULL_POLL) frame({ type: "caught_up", cursor });
  }
}
