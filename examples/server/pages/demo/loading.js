/** The screen of a signed-in user while the client reads its storage or waits for the server. */

import { h } from "./dom.js";
import { describeStatus } from "./texts.js";

/**
 * @param {import("./phone.js").Phone} phone
 * @returns {import("./phone.js").Screen}
 */
export function loadingScreen(phone) {
  const text = h("p", { class: "muted" });
  // A quick start shows nothing, so that the screen does not flicker.
  const element = h("div", { class: "loading" }, h("div", { class: "spinner" }), text);
  return { element, shown: () => void (text.textContent = `${phone.client ? describeStatus(phone.client.status) : "Starting"} …`) };
}
