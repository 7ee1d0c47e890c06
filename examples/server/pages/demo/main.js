/** The page: two phones side by side, one on a narrow screen; `?phone=1` shows one alone. */

import { fill, h } from "./dom.js";
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
/** Milliseconds until a server that did not answer is asked again. */
const RETRY_DELAY = 3_000;

for (const phone of phones) {
  const title = h("h2", { class: "station-title" }, nameOf(phone));
  const head = h(
    "div",
    { class: "station-head" },
    title,
    h("a", { class: "small", href: `?phone=${phone.number}`, target: "_blank" }, "Alone in a tab"),
  );
  // Empty until the client is loaded.
  const controls = h("div", { class: "controls" });
  const station = h(
    "section",
    { class: "station", "data-phone": phone.number, "aria-label": `Phone ${phone.number}` },
    head,
    controls,
    phone.element,
  );
  stage.append(station);
  void phone.started.then(async (client) => {
    const { inspector, networkControls } = await import("./inspector.js");
    const details = inspector(client, phone.number);
    details.open = wide.matches;
    wide.addEventListener("change", () => (details.open = wide.matches));
    controls.replaceWith(networkControls(client, phone.number));
    station.append(details);
  });
  const pick = h("button", { type: "button", onclick: () => choose(phone.number) }, nameOf(phone));
  picker.append(pick);
  phone.addEventListener("change", () => {
    title.textContent = pick.textContent = nameOf(phone);
    if (alone) document.title = `${nameOf(phone)} – couple`;
  });
}
document.documentElement.classList.toggle("alone", phones.length === 1);
addEventListener("unhandledrejection", () => void offerReload());
narrow.addEventListener("change", () => choose(chosen));
choose(chosen);

/**
 * Says why a part of the page is missing. After an upgrade of the server, files of the former version are no longer at their addresses.
 * @param {boolean} [wasDown] whether the server did not answer before
 */
async function offerReload(wasDown = false) {
  const answer = await fetch(import.meta.url, { method: "HEAD", cache: "no-store" }).catch(() => null);
  let reason = "A part of this page failed.";
  if (!answer) reason = "The server does not answer.";
  else if (!answer.ok) reason = "The server has a newer version of this page.";
  const reload = h("button", { type: "button", class: "primary", onclick: () => location.reload() }, "Reload");
  fill(outdated, [h("p", {}, reason), reload]);
  outdated.hidden = wasDown && answer?.ok === true;
  if (!answer) setTimeout(() => void offerReload(true), RETRY_DELAY);
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
