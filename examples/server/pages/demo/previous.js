/** The earlier timeline of the same two users, once both have restored it. Read only. */

import { dateOf } from "./dates.js";
import { h } from "./dom.js";
import { explain } from "./texts.js";

/** @param {import("./phone.js").Phone} phone */
export function openPrevious(phone) {
  const list = h("ol", { class: "stack" });
  const more = h("button", { type: "button", class: "plain", onclick: () => read() }, "Earlier");
  const problem = h("p", { class: "problem", role: "alert" });
  const partner = phone.client.couple?.partner.display_name ?? "Partner";
  /** @type {number | undefined} */
  let before;
  phone.sheet("Messages from before", [more, list, problem]);

  async function read() {
    problem.textContent = "";
    try {
      const { entries, next } = await phone.client.pairing.previous({ limit: 50, ...(before && { before }) });
      before = next ?? undefined;
      more.hidden = next === null;
      const own = entries.filter(
        ({ author, kind, deleted_at }) => author !== "system" && !deleted_at && ["text", "photo", "hug"].includes(kind),
      );
      list.prepend(...own.map(line));
    } catch (error) {
      problem.textContent = explain(error);
    }
  }

  /** @param {any} entry */
  function line({ author, kind, body, created_at }) {
    const text = { text: body?.text, photo: "📷", hug: "🤗" }[/** @type {"text" | "photo" | "hug"} */ (kind)];
    return h(
      "li",
      {},
      h("p", { class: "small muted" }, h("bdi", {}, author === "me" ? "You" : partner), ` · ${dateOf(created_at)}`),
      h("p", { dir: "auto" }, text),
    );
  }

  void read();
}
