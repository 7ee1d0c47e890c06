/** Choosing the visible square of an avatar. */

import { h } from "./dom.js";
import { explain } from "./texts.js";

/** Pixels of the page by which an arrow key moves the picture. */
const STEP = 12;

/**
 * @param {import("./phone.js").Phone} phone
 * @param {File} file
 * @param {(crop: string) => Promise<unknown>} use crop as `x,y,width,height` in pixels of the picture
 */
export function cropAvatar(phone, file, use) {
  const address = URL.createObjectURL(file);
  const image = h("img", { alt: "", draggable: "false" });
  const zoom = h("input", { type: "range", min: "1", max: "4", step: "0.01", value: "1", "aria-label": "Zoom" });
  const frame = h(
    "div",
    { class: "crop", tabindex: "0", role: "group", "aria-label": "Visible part: move it with the arrow keys or by dragging" },
    image,
    h("span", { class: "crop-ring" }),
  );
  const problem = h("p", { class: "problem", role: "alert" });
  const accept = h("button", { type: "button", class: "primary", disabled: true, onclick: finish }, "Use picture");
  const sheet = phone.sheet(
    "Visible part",
    [
      frame,
      h("label", { class: "row" }, "Zoom", zoom),
      problem,
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => sheet.close() }, "Cancel"), accept),
    ],
    {
      closed: () => URL.revokeObjectURL(address),
    },
  );
  /** Centre of the visible square, in pixels of the picture. */
  let [x, y] = [0, 0];

  /** Side of the visible square, in pixels of the picture. */
  const side = () => Math.min(image.naturalWidth, image.naturalHeight) / Number(zoom.value);
  /** Pixels of the picture for each pixel of the page. */
  const scale = () => side() / frame.clientWidth;

  function draw() {
    const half = side() / 2;
    x = Math.min(image.naturalWidth - half, Math.max(half, x));
    y = Math.min(image.naturalHeight - half, Math.max(half, y));
    image.style.width = `${image.naturalWidth / scale()}px`;
    image.style.transform = `translate(${-(x - half) / scale()}px, ${-(y - half) / scale()}px)`;
  }

  /** @param {number} right @param {number} down */
  function move(right, down) {
    x -= right * scale();
    y -= down * scale();
    draw();
  }

  image.addEventListener("load", () => {
    [x, y] = [image.naturalWidth / 2, image.naturalHeight / 2];
    accept.disabled = false;
    draw();
  });
  image.addEventListener("error", () => (problem.textContent = "This browser cannot show the picture. Choose another."));
  image.src = address;
  zoom.addEventListener("input", draw);
  /** @type {{ clientX: number, clientY: number } | null} last place of the pointer that drags */
  let dragged = null;
  frame.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    frame.setPointerCapture(event.pointerId);
    dragged = event;
  });
  frame.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!dragged) return;
    move(event.clientX - dragged.clientX, event.clientY - dragged.clientY);
    dragged = event;
  });
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (dragged = null));
  frame.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
    event.preventDefault();
    zoom.value = String(Number(zoom.value) - event.deltaY / 400);
    draw();
  });
  frame.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(step[0], step[1]);
  });

  async function finish() {
    accept.disabled = true;
    problem.textContent = "";
    const size = Math.floor(side());
    try {
      await use([Math.round(x - side() / 2), Math.round(y - side() / 2), size, size].map((value) => Math.max(0, value)).join(","));
      sheet.close();
    } catch (error) {
      problem.textContent = explain(error);
      accept.disabled = false;
    }
  }
}
