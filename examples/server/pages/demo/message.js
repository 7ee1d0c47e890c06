/** One entry of the log. */

import { timeOf } from "./dates.js";
import { fill, h, icon } from "./dom.js";
import { photoView } from "./pictures.js";
import { explain } from "./texts.js";

const REACTIONS = ["❤️", "😂", "😮", "😢", "👍", "🎉"];
/** Texts of one to three emoji are shown large. */
const ONLY_EMOJI = /^(?:\p{RGI_Emoji}\s?){1,3}$/v;

/**
 * @param {import("./phone.js").Phone} phone
 * @param {{ edit: (entry: any) => void, dismiss: (upload: any) => void }} actions
 */
export function messageView(phone, actions) {
  const { client } = phone;
  const { timeline } = client;
  const element = h("li");
  /** @type {ReturnType<typeof photoView> | null} */
  let photo = null;

  /** @param {{ entry: any, upload: any, isRead: boolean, day: string | null }} row */
  function update({ entry, upload, isRead, day }) {
    const hadFocus = element.contains(document.activeElement);
    const dayLine = day && h("p", { class: "day" }, day);
    if (entry && isSystem(entry)) {
      element.className = "system";
      fill(element, [dayLine, h("p", { dir: "auto" }, systemText(entry, client.couple))]);
      return;
    }
    const mine = entry ? entry.author === "me" : true;
    element.className = `message ${mine ? "mine" : "theirs"}`;
    fill(element, [
      dayLine,
      h("div", { class: "message-line" }, bubble(entry, upload), menuButton(entry, mine)),
      reactions(entry),
      meta(entry, upload, mine, isRead),
    ]);
    if (hadFocus) /** @type {HTMLElement | null} */ (element.querySelector(".message-menu"))?.focus();
  }

  /** @param {any} entry @param {any} upload */
  function bubble(entry, upload) {
    if (entry?.deleted_at) return h("div", { class: "bubble gone" }, "Message deleted");
    if (upload || entry.kind === "photo") {
      photo ??= photoView(phone);
      photo.update(entry, upload);
      return h("div", { class: "bubble photo" }, photo.element);
    }
    if (entry.kind === "hug")
      return h("div", { class: "bubble large", title: "Hug" }, h("span", { role: "img", "aria-label": "Hug" }, "🤗"));
    if (entry.kind !== "text") return h("div", { class: "bubble gone" }, `This app does not show “${entry.kind}”.`);
    const { text } = entry.body;
    return h("div", { class: `bubble ${ONLY_EMOJI.test(text) ? "large" : ""}` }, h("p", { dir: "auto" }, text));
  }

  /** @param {any} entry @param {boolean} mine */
  function menuButton(entry, mine) {
    if (!entry || entry.deleted_at) return null;
    const about = entry.kind === "text" ? entry.body.text.slice(0, 40) : entry.kind;
    return h(
      "button",
      {
        type: "button",
        class: "message-menu icon-button",
        "aria-label": `Actions for: ${about}`,
        "aria-haspopup": "dialog",
        onclick: () => openMenu(entry, mine),
      },
      icon("more"),
    );
  }

  /** @param {any} entry */
  function reactions(entry) {
    const { me, partner } = entry?.reactions ?? {};
    if (!entry || entry.deleted_at || (!me && !partner)) return null;
    const partnerName = client.couple?.partner.display_name ?? "Partner";
    return h(
      "div",
      { class: "reactions" },
      partner && h("span", { class: "reaction", role: "img", "aria-label": `${partnerName}: ${partner}` }, partner),
      me &&
        h(
          "button",
          {
            type: "button",
            class: "reaction",
            "aria-label": `Your reaction ${me}: remove it`,
            onclick: () => run(() => timeline.react(entry.key, null)),
          },
          me,
        ),
    );
  }

  /** @param {any} entry @param {any} upload @param {boolean} mine @param {boolean} isRead */
  function meta(entry, upload, mine, isRead) {
    if (upload) {
      const failed = upload.state === "failed";
      const state = failed
        ? `Not sent: ${explain({ code: upload.error?.code, message: "error" })}`
        : upload.state === "sending"
          ? `${percent(upload)} %`
          : "Waiting for the network";
      return h(
        "p",
        { class: "meta", "data-state": "waiting" },
        h("span", {}, state),
        h("button", { type: "button", class: "plain small", onclick: () => actions.dismiss(upload) }, failed ? "Remove" : "Cancel"),
      );
    }
    const state = entry.state === "waiting" ? "Waiting" : entry.changing ? "Changing" : isRead ? "Read" : "Sent";
    const parts = [
      h("time", { datetime: entry.created_at, dir: "auto" }, timeOf(entry.created_at)),
      entry.edited_at && !entry.deleted_at && h("span", {}, "edited"),
      mine && h("span", { class: "state" }, state),
    ];
    return h("p", { class: "meta", "data-state": state.toLowerCase() }, parts);
  }

  async function run(/** @type {() => Promise<unknown>} */ act) {
    try {
      await act();
    } catch (error) {
      void phone.report(error);
    }
  }

  /** @param {any} entry @param {boolean} mine */
  function openMenu(entry, mine) {
    const close = (/** @type {() => void} */ act) => () => {
      sheet.close();
      act();
    };
    const react = (/** @type {string} */ emoji) => {
      const isMine = entry.reactions?.me === emoji;
      return h(
        "button",
        {
          type: "button",
          class: "emoji",
          "aria-pressed": String(isMine),
          "aria-label": `React with ${emoji}`,
          onclick: close(() => run(() => timeline.react(entry.key, isMine ? null : emoji))),
        },
        emoji,
      );
    };
    const copy = () => run(() => navigator.clipboard.writeText(entry.body.text));
    const sheet = phone.sheet(
      "Message",
      [
        h("div", { class: "row emojis" }, REACTIONS.map(react)),
        h(
          "div",
          { class: "menu" },
          entry.kind === "text" && h("button", { type: "button", class: "plain", onclick: close(copy) }, icon("copy"), "Copy"),
          mine &&
            entry.kind === "text" &&
            h("button", { type: "button", class: "plain", onclick: close(() => actions.edit(entry)) }, icon("edit"), "Edit"),
          mine &&
            h(
              "button",
              { type: "button", class: "plain danger", onclick: close(() => run(() => timeline.delete(entry.key))) },
              icon("bin"),
              "Delete",
            ),
        ),
      ],
      { class: "low" },
    );
  }

  return { element, update, close: () => photo?.close() };
}

/** @param {any} upload */
const percent = ({ sent, size }) => (size > 0 ? Math.floor((sent / size) * 100) : 0);

/** @param {any} entry */
function isSystem({ kind }) {
  return ["paired", "restored", "profile_changed", "couple_changed"].includes(kind);
}

/** @param {any} entry @param {any} couple */
function systemText({ kind, author }, couple) {
  const who = author === "me" ? "You" : (couple?.partner.display_name ?? "Your partner");
  switch (kind) {
    case "paired":
      return "You are a couple now";
    case "restored":
      return "Your earlier messages are back";
    case "profile_changed":
      return `${who} changed the profile`;
    default:
      return `${who} changed the title or the anniversary`;
  }
}
