/** Building elements. Texts become text nodes: nothing here parses HTML. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `onclick` and the like are listeners; `undefined`, `null` and `false` are left out
 * @param {...any} children nodes, texts or arrays of them; `null` and `false` are left out
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  const element = /** @type {any} */ (document.createElement(tag));
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  fill(element, children);
  return element;
}

/**
 * Replaces the children of an element.
 * @param {Element} element
 * @param {any[]} children
 */
export function fill(element, children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Paths of a grid of 24 × 24. */
const PATHS = {
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  camera: "M4 8h4l2-3h4l2 3h4v11H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  down: "M12 5v14M6 13l6 6 6-6",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
  heart: "M12 20s-8-4.8-8-10.5A4.5 4.5 0 0 1 12 7a4.5 4.5 0 0 1 8 2.5C20 15.2 12 20 12 20z",
  mail: "M3 6h18v12H3zM3 7l9 7 9-7",
  more: "M12 5.5v.01M12 12v.01M12 18.5v.01",
  photo: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9v.01",
  send: "M4 12l16-8-6 16-3-6z",
  thumb:
    "M12 4a7 7 0 0 1 7 7v3M5 14v-3a7 7 0 0 1 3-5.7M8.500 18v-7a3.500 3.500 0 0 1 7 0v4M12 11v6a6 6 0 0 0 .8 3M15.500 18.500l.3 1M5.500 17.500l-.2.500",
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(namespace, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/**
 * A round button that shows an icon only.
 * @param {keyof typeof PATHS} name
 * @param {string} label
 * @param {Record<string, any>} [attributes]
 */
export function iconButton(name, label, attributes = {}) {
  const { class: more = "", ...others } = attributes;
  return h("button", { type: "button", class: `icon-button ${more}`, "aria-label": label, title: label, ...others }, icon(name));
}

let ids = 0;

/** @returns {string} an id that no other element of the page has */
export const uniqueId = () => `id-${++ids}`;

/**
 * A labelled input.
 * @param {string} label
 * @param {Record<string, any> & { name: string, hint?: string, tag?: string }} attributes of the input
 */
export function field(label, { hint, tag = "input", ...attributes }) {
  const id = uniqueId();
  const input = h(tag, { id, "aria-describedby": `${id}-note`, ...attributes });
  const note = h("p", { id: `${id}-note`, class: "note small" }, hint);
  const element = h("div", { class: "field" }, h("label", { for: id }, label), input, note);
  /** @param {string | null} error */
  const complain = (error) => {
    note.textContent = error ?? hint ?? "";
    element.classList.toggle("wrong", error !== null);
    if (error === null) input.removeAttribute("aria-invalid");
    else input.setAttribute("aria-invalid", "true");
  };
  return { element, input, complain, name: attributes.name };
}

/**
 * A form whose fields show what the server refuses.
 * @param {ReturnType<typeof field>[]} fields
 * @param {any[]} children
 * @param {(values: Record<string, string>) => Promise<unknown>} submit
 */
export function form(fields, children, submit) {
  const problem = h("p", { class: "problem", role: "alert" });
  const element = h("form", { novalidate: true, onsubmit: send }, children, problem);
  async function send(/** @type {Event} */ event) {
    event.preventDefault();
    if (element.getAttribute("aria-busy") === "true") return;
    problem.textContent = "";
    for (const { complain } of fields) complain(null);
    const missing = fields.find(({ input }) => input.required && !input.value.trim());
    if (missing) {
      missing.complain("Fill this in.");
      missing.input.focus();
      return;
    }
    element.setAttribute("aria-busy", "true");
    try {
      await submit(Object.fromEntries(fields.map(({ name, input }) => [name, input.value.trim()])));
    } catch (caught) {
      const error = /** @type {any} */ (caught);
      // No refusal of the server or the client: a module is missing, or the page has a fault.
      if (!error.code) throw error;
      const { explain } = await import("./texts.js");
      const refused = error.errors?.[0]?.field;
      const wrong = fields.find(({ name }) => name === refused);
      if (wrong) {
        wrong.complain(explain(error));
        wrong.input.focus();
      } else {
        problem.textContent = explain(error);
      }
    } finally {
      element.setAttribute("aria-busy", "false");
    }
  }
  return element;
}
