/** Thumb kiss: both users press about the same place at the same time. */

import { celebrate } from "./chat.js";
import { h } from "./dom.js";
import { explain } from "./texts.js";

/** Milliseconds between two signals of a press. Two presses meet within 1.5 s. */
const REPEAT = 800;
/** A short press is held for this time, in milliseconds, so that one user with one mouse can press on both phones. */
const HELD = 8_000;

/** @param {import("./phone.js").Phone} phone */
export function openThumbPad(phone) {
  const { client } = phone;
  const hint = h("p", { class: "pad-hint" }, "Press anywhere. If your partner presses the same place, you kiss.");
  const mine = h("span", { class: "print mine", hidden: true });
  const theirs = h("span", { class: "print theirs", hidden: true });
  const pad = h("button", { type: "button", class: "pad" }, hint, mine, theirs);
  /** @type {any} */
  let timer = 0;
  /** @type {any} */
  let hide = 0;

  /** @param {HTMLElement} print @param {{ x: number, y: number }} place */
  function show(print, { x, y }) {
    // The same place on both screens, whatever the direction of text.
    print.style.left = `${x * 100}%`;
    print.style.top = `${y * 100}%`;
    print.hidden = false;
  }

  /** @param {number} x @param {number} y */
  function press(x, y) {
    clearInterval(timer);
    const place = { x: Math.min(1, Math.max(0, x)), y: Math.min(1, Math.max(0, y)) };
    show(mine, place);
    const until = Date.now() + HELD;
    const send = () => {
      if (Date.now() > until) release();
      else client.signal("thumb", place).catch((error) => (hint.textContent = explain(error)));
    };
    timer = setInterval(send, REPEAT);
    send();
  }

  function release() {
    clearInterval(timer);
    mine.hidden = true;
  }

  pad.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const { left, top, width, height } = pad.getBoundingClientRect();
    // A key has no place: the middle of the pad.
    if (event.detail === 0) press(0.5, 0.5);
    else press((event.clientX - left) / width, (event.clientY - top) / height);
  });
  const end = client.on("signal", ({ kind, from, body }) => {
    if (kind === "thumb" && from === "partner") {
      show(theirs, /** @type {any} */ (body));
      hint.textContent = "Your partner presses here. Press the same place.";
      clearTimeout(hide);
      hide = setTimeout(() => (theirs.hidden = true), 1_500);
    }
    if (kind === "thumb_kiss") {
      release();
      theirs.hidden = true;
      hint.textContent = "A kiss!";
      phone.say("A kiss!");
      celebrate(phone.element, "💋");
    }
  });
  phone.thumbPad = true;
  phone.sheet("Thumb kiss", [pad], {
    class: "pad-sheet",
    closed: () => {
      phone.thumbPad = false;
      end();
      release();
      clearTimeout(hide);
    },
  });
}
