/** The page: two phones side by side, one on a narrow screen; `?phone=1` shows one alone. */

import { h } from "./dom.js";
import { Phone } from "./phone.js";

const alone = Number(new URLSearchParams(location.search).get("phone"));
const numbers = alone === 1 || alone === 2 ? [alone] : [1, 2];
const phones = numbers.map((number) => new Phone(number));
const [first, second] = phones;
if (second) [first.other, second.other] = [second, first];

const stage = /** @type {HTMLElement} */ (document.querySelector("#stage"));
const picker = /** @type {HTMLElement} */ (document.querySelector("#picker"));
const outdated = /** @type {HTMLElement} */ (document.querySelector("#outdated"));
/** One phone at a time. */
const narrow = matchMedia("(max-width: 47.99rem)");
/** Room for the inspectors beside the phones. */
const wide = matchMedia("(min-width: 76rem)");
let chosen = numbers[0];

const FAILED = "A part of this page failed.";
const UPGRADED = "The server has a newer version of this page.";
const DOWN = "The server does not answer.";
/** Milliseconds until a server that did not answer is asked again: the first delay, which doubles, and the longest one. */
const RETRY_DELAYS = { first: 1_000, longest: 15_000 };
/** Why the page has to be loaded again. An outage of the server is no reason: it ends by itself. */
let fault = "";
let isWatching = false;
/** Phones with their controls and inspector. */
const equipped = new Set();
const reasonText = h("p");
outdated.append(reasonText, h("button", { type: "button", class: "primary", onclick: () => location.reload() }, "Reload"));

for (const phone of phones) {
  const title = h("h2", { class: "station-title" }, nameOf(phone));
  const head = h(
    "div",
    { class: "station-head" },
    title,
    h("a", { class: "small", href: `?phone=${phone.number}`, target: "_blank" }, "Alone in a tab"),
  );
  const station = h(
    "section",
    { class: "station", "data-phone": phone.number, "aria-label": `Phone ${phone.number}` },
    head,
    // Empty until the client is loaded.
    h("div", { class: "controls" }),
    phone.element,
  );
  stage.append(station);
  void equip(phone);
  const pick = h("button", { type: "button", onclick: () => choose(phone.number) }, nameOf(phone));
  picker.append(pick);
  phone.addEventListener("change", () => {
    title.textContent = pick.textContent = nameOf(phone);
    if (alone) document.title = `${nameOf(phone)} – couple`;
  });
}
document.documentElement.classList.toggle("alone", phones.length === 1);
addEventListener("unhandledrejection", ({ reason }) => {
  if (!isLoadError(reason)) fault ||= FAILED;
  void findReason();
});
narrow.addEventListener("change", () => choose(chosen));
choose(chosen);

/**
 * Adds controls and inspector to a phone.
 * @param {Phone} phone
 */
async function equip(phone) {
  const client = await phone.started;
  const { inspector, networkControls } = await import("./inspector.js");
  if (equipped.has(phone)) return;
  equipped.add(phone);
  const station = /** @type {HTMLElement} */ (phone.element.parentElement);
  const details = inspector(client, phone.number);
  details.open = wide.matches;
  wide.addEventListener("change", () => (details.open = wide.matches));
  station.querySelector(".controls")?.replaceWith(networkControls(client, phone.number));
  station.append(details);
}

/**
 * Whether a file or a response did not arrive. Browsers have a text for it, not a type.
 * @param {unknown} error
 */
function isLoadError(error) {
  const texts = /^(failed to fetch|error loading|networkerror|importing a module|load failed|cannot load)/i;
  return error instanceof TypeError && texts.test(error.message);
}

/**
 * Shows why a part of the page is missing, and waits for the end of an outage: one loop for all parts. After an upgrade of the server,
 * files of the former version are no longer at their addresses.
 */
async function findReason() {
  if (isWatching) return;
  isWatching = true;
  let wasDown = false;
  for (let delay = RETRY_DELAYS.first; ; delay = Math.min(2 * delay, RETRY_DELAYS.longest)) {
    const answer = await fetch(import.meta.url, { method: "HEAD", cache: "no-store" }).catch(() => null);
    if (answer?.status === 404) fault = UPGRADED;
    if (answer?.ok || answer?.status === 404) break;
    wasDown = true;
    showReason(DOWN);
    // With jitter, so that the pages of all users do not come back together.
    await new Promise((resolve) => setTimeout(resolve, delay * (0.5 + Math.random() / 2)));
  }
  isWatching = false;
  if (!wasDown) fault ||= FAILED;
  showReason(fault);
  if (!wasDown || fault === UPGRADED) return;
  for (const phone of phones) {
    phone.retry();
    void equip(phone);
  }
}

/** @param {string} text empty: nothing is wrong */
function showReason(text) {
  // The elements stay, so that the button keeps the focus and screen readers do not repeat the text.
  if (reasonText.textContent !== text) reasonText.textContent = text;
  outdated.hidden = !text;
}

/** @param {Phone} phone */
function nameOf(phone) {
  return phone.userName ? `${phone.userName}’s phone` : `Phone ${phone.number}`;
}

/** @param {number} number phone that is shown on a narrow screen */
function choose(number) {
  chosen = number;
  document.documentElement.dataset.chosen = String(number);
  phones.forEach((phone, at) => {
    phone.setOnScreen(!narrow.matches || phone.number === number);
    picker.children[at].setAttribute("aria-pressed", String(phone.number === number));
  });
}
