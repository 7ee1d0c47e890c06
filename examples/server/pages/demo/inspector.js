/** What happens on the wire of a phone, and switches that disturb it. */

import { fill, h, uniqueId } from "./dom.js";
import { TRANSPORTS, describeStatus } from "./texts.js";

/** Frames that are kept and shown. */
const FRAMES = 60;
const SHORT = { websocket: "ws", sse: "sse", poll: "poll" };

/**
 * Status of the connection, and switches.
 * @param {import("../client/index.js").Client} client
 * @param {number} number of the phone
 */
export function networkControls(client, number) {
  const text = h("span", {});
  const status = h("p", { class: "status", role: "status" }, text);
  const offline = h(
    "button",
    { type: "button", "aria-pressed": "false", onclick: () => client.setOnline(!client.status.online) },
    "Go offline",
  );
  const kill = h("button", { type: "button", onclick: () => client.kill() }, "Kill connection");
  const id = uniqueId();
  const transport = h(
    "select",
    { id, onchange: () => client.setTransport(transport.value || null) },
    [["", "Automatic"], ...Object.entries(TRANSPORTS)].map(([value, text]) => h("option", { value }, text)),
  );
  const element = h(
    "div",
    { class: "controls", role: "group", "aria-label": `Network of phone ${number}` },
    status,
    offline,
    kill,
    h("label", { for: id, class: "hidden-text" }, "Transport"),
    transport,
  );
  /** @type {any} */
  let timer = 0;

  function show() {
    const { status } = client;
    element.dataset.state = status.state;
    const waiting = client.timeline.queue.length;
    text.textContent = describeStatus(status) + (waiting > 0 ? ` · ${waiting} to send` : "");
    offline.setAttribute("aria-pressed", String(!status.online));
    kill.disabled = status.transport === null;
    clearTimeout(timer);
    if (status.state === "waiting") timer = setTimeout(show, 500);
  }

  client.on("status", show);
  client.on("queue", show);
  show();
  return element;
}

/**
 * Frames, cursor and queue.
 * @param {import("../client/index.js").Client} client
 * @param {number} number of the phone
 */
export function inspector(client, number) {
  const frames = h("ol", { class: "frames" });
  const queue = h("ol", { class: "queue" });
  const cursor = h("dd");
  const position = h("dd");
  const session = h("dd");
  const tab = h("dd");
  const facts = h("dl", { class: "facts" }, [
    [h("dt", {}, "Cursor"), cursor],
    [h("dt", {}, "Read"), position],
    [h("dt", {}, "Session"), session],
    [h("dt", {}, "Tab"), tab],
  ]);
  const element = h(
    "details",
    { class: "inspector" },
    h("summary", {}, `Inspector of phone ${number}`),
    h("div", { class: "inspector-body", dir: "ltr" }, facts, h("h3", {}, "Queue"), queue, h("h3", {}, "Frames"), frames),
  );
  let isDue = false;
  /** @type {any[]} */
  let seen = [];
  /** Type of the newest frame that is shown. */
  let newest = "";

  function show() {
    isDue = false;
    if (!element.open) return;
    const { timeline, status } = client;
    cursor.textContent = client.cursor ?? "none";
    position.textContent = `me ${timeline.myRead}, partner ${timeline.partnerRead}`;
    session.textContent = client.session ? client.session.id.slice(0, 13) : "none";
    const leads = status.transport ? "holds the connection" : "no connection";
    tab.textContent = status.leader ? leads : "follows another tab";
    fill(queue, [
      timeline.queue.length === 0 && client.media.uploads.length === 0 && h("li", { class: "muted" }, "empty"),
      timeline.queue.map(({ type, kind, body, attempts, error }) =>
        h(
          "li",
          {},
          h("b", {}, kind ?? type),
          " ",
          h("bdi", {}, body?.text ?? ""),
          attempts > 0 && h("span", { class: "muted" }, ` · tries: ${attempts}${error ? `, ${error.code}` : ""}`),
        ),
      ),
      client.media.uploads.map(({ name, sent, size, state }) =>
        h("li", {}, h("b", {}, "upload"), " ", h("bdi", {}, name), h("span", { class: "muted" }, ` · ${sent} of ${size} bytes, ${state}`)),
      ),
    ]);
    for (const frame of seen.splice(0)) {
      const { type } = frame.frame;
      // Pings of an idle connection take one line, so that they do not replace the other frames.
      if (type === "ping" && newest === "ping") frames.firstElementChild?.remove();
      newest = type;
      frames.prepend(line(frame));
      if (frames.childElementCount > FRAMES) frames.lastElementChild?.remove();
    }
  }

  /** @param {any} event */
  function line({ direction, transport, frame, at }) {
    const what = frame.entry ? `${frame.entry.kind} #${frame.entry.seq}` : (frame.kind ?? frame.presence ?? frame.reason ?? "");
    const arrow = direction === "in" ? "←" : "→";
    return h(
      "li",
      {},
      h(
        "details",
        {},
        h(
          "summary",
          {},
          h("span", { class: "direction" }, arrow),
          h("span", { class: "hidden-text" }, direction === "in" ? "received " : "sent "),
          h("b", {}, frame.type),
          ` ${what}`,
          h(
            "span",
            { class: "muted" },
            ` ${new Date(at).toISOString().slice(14, 23)} ${SHORT[/** @type {keyof typeof SHORT} */ (transport)]}`,
          ),
        ),
        h("pre", {}, JSON.stringify(frame, null, 1)),
      ),
    );
  }

  /** At most once per frame of the screen. */
  function soon() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(show);
  }

  client.on("frame", (frame) => {
    seen = [...seen.slice(1 - FRAMES), frame];
    soon();
  });
  client.on("session", ({ session }) => {
    if (session) return;
    // Frames have messages of the user who signed out.
    seen = [];
    newest = "";
    fill(frames, []);
  });
  for (const type of ["status", "queue", "upload", "cursor", "read", "session", "timeline"]) client.on(/** @type {any} */ (type), soon);
  element.addEventListener("toggle", soon);
  return element;
}
