/** The conversation of a couple. */

import "./signed-in.js";
import { dayOf } from "./dates.js";
import { fill, h, iconButton } from "./dom.js";
import { messageView } from "./message.js";
import { avatar } from "./pictures.js";
import { describeStatus } from "./texts.js";

/** Milliseconds between two `typing` signals, and for which one is shown. */
const TYPING_EVERY = 2_500;
const TYPING_SHOWN = 4_000;
/** Milliseconds between the arrival of an entry and the read receipt. */
const READ_DELAY = 150;
/** Distance from the end, in pixels, within which the log follows new entries. */
const NEAR_END = 80;

/**
 * @param {import("./phone.js").Phone} phone
 * @returns {import("./phone.js").Screen}
 */
export function chatScreen(phone) {
  const { client } = phone;
  const { timeline } = client;
  /** @type {(() => void)[]} */
  const undo = [];
  const listen = (/** @type {any} */ type, /** @type {(value: any) => void} */ listener) => undo.push(client.on(type, listener));

  // Head: the partner.

  const face = h("span");
  const name = h("bdi");
  const presence = h("p", { class: "presence small" });
  const settings = () => void import("./settings.js").then(({ openSettings }) => openSettings(phone));
  const head = h(
    "header",
    { class: "chat-head" },
    face,
    h("div", { class: "grow" }, h("h2", { tabindex: "-1" }, name), presence),
    iconButton("more", "Settings", { onclick: settings }),
  );
  let typingUntil = 0;
  let shownFace = "";

  function showPartner() {
    const partner = client.couple?.partner;
    if (!partner) return;
    name.textContent = partner.display_name ?? "Deleted account";
    // Without a connection, the presence of the partner is not known.
    const isLive = client.status.state === "live";
    const state = !isLive ? "unknown" : Date.now() < typingUntil ? "typing" : (partner.presence ?? "away");
    presence.dataset.state = state;
    presence.textContent = isLive ? (state === "typing" ? "typing …" : state) : "";
    const facts = `${partner.display_name} ${partner.avatar?.id}`;
    if (facts !== shownFace) fill(face, [avatar(client, partner.avatar, partner.display_name)]);
    shownFace = facts;
    const { title } = client.couple ?? {};
    caption.textContent = title ?? "";
  }

  // The own connection.

  const connection = h("p", { class: "connection small", role: "status" });

  function showConnection() {
    const { status } = client;
    const offline = status.state === "offline" ? "You are offline: messages wait on this phone" : describeStatus({ ...status, retryAt: null });
    connection.dataset.state = status.state;
    connection.textContent = status.state === "live" ? "" : offline;
  }

  // The log.

  const caption = h("p", { class: "caption", dir: "auto" });
  const older = h("button", { type: "button", class: "plain small", hidden: true, onclick: loadOlder }, "Earlier messages");
  const previous = h("div", { class: "center" });
  const list = h("ol", { class: "messages", "aria-label": "Messages", onkeydown: moveFocus });
  const log = h("div", { class: "log", onscroll: scrolled, tabindex: "-1" }, previous, older, caption, list);
  const toEnd = iconButton("down", "Newest messages", { class: "to-end", hidden: true, onclick: () => scrollToEnd() });
  /** @type {Map<string, { view: any, signature: any[], element: HTMLElement }>} */
  const shown = new Map();
  /** @type {Map<string, any>} failed uploads, by the key of their entry */
  const failed = new Map();

  /** Entries, and photos that are still uploaded. */
  function rows() {
    /** @type {{ key: string, entry: any, upload: any }[]} */
    const rows = timeline.entries.map((entry) => ({ key: entry.key, entry, upload: null }));
    const known = new Set(rows.map(({ key }) => key));
    for (const upload of [...client.media.uploads, ...failed.values()]) {
      const key = `me:${upload.entry?.client_id}`;
      if (upload.entry && !known.has(key)) rows.push({ key, entry: null, upload });
    }
    return rows;
  }

  function render() {
    const follow = isNearEnd();
    const { partnerRead } = timeline;
    const partnerName = client.couple?.partner.display_name ?? "";
    const left = new Set(shown.keys());
    let day = "";
    let place = list.firstElementChild;
    const put = (/** @type {Element} */ element) => {
      if (element === place) place = place.nextElementSibling;
      else list.insertBefore(element, place);
    };
    for (const { key, entry, upload } of rows()) {
      const isRead = entry?.seq != null && entry.author === "me" && entry.seq <= partnerRead;
      const newDay = entry ? dayOf(entry.created_at) : day;
      const signature = [entry, upload, isRead, newDay === day ? "" : newDay, partnerName];
      const known = shown.get(key);
      left.delete(key);
      if (known && known.signature.every((value, at) => value === signature[at])) {
        day = newDay;
        put(known.element);
        continue;
      }
      const view = known?.view ?? messageView(phone, { edit: startEdit, dismiss: dismissUpload });
      view.update({ entry, upload, isRead, day: newDay === day ? null : newDay });
      day = newDay;
      shown.set(key, { view, signature, element: view.element });
      put(view.element);
    }
    for (const key of left) {
      shown.get(key)?.view.close();
      shown.get(key)?.element.remove();
      shown.delete(key);
    }
    for (const menu of menus()) menu.tabIndex = -1;
    const last = menus().at(-1);
    if (last) last.tabIndex = 0;
    older.hidden = !timeline.hasOlder;
    if (follow) scrollToEnd();
    showToEnd();
    markRead();
  }

  /** @returns {HTMLElement[]} */
  const menus = () => [...list.querySelectorAll(".message-menu")];

  /** Arrow keys move between the menus of messages; only one of them is reached by the tab key. */
  function moveFocus(/** @type {KeyboardEvent} */ event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const all = menus();
    const at = all.indexOf(/** @type {any} */ (document.activeElement));
    const next = all[at + (step ?? 0)];
    if (!step || at < 0 || !next) return;
    event.preventDefault();
    all[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  function isNearEnd() {
    return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
  }

  function scrollToEnd() {
    log.scrollTop = log.scrollHeight;
  }

  function showToEnd() {
    toEnd.hidden = isNearEnd();
  }

  function scrolled() {
    showToEnd();
    markRead();
  }

  /** @type {any} */
  let reading = 0;

  /** Once for all entries of a moment. */
  function markRead() {
    if (reading) return;
    reading = setTimeout(() => {
      reading = 0;
      if (!phone.onScreen || document.visibilityState !== "visible" || timeline.unread === 0 || !isNearEnd()) return;
      timeline.markRead().catch(() => {});
    }, READ_DELAY);
  }

  async function loadOlder() {
    const before = log.scrollHeight - log.scrollTop;
    try {
      await timeline.loadOlder();
      render();
      log.scrollTop = log.scrollHeight - before;
    } catch (error) {
      void phone.report(error);
    }
  }

  // The composer.

  let lastTyping = 0;
  /** @type {string | null} key of the message that is edited */
  let editing = null;
  const owner = `${client.couple?.id} ${client.session?.account_id}`;
  const stored = phone.draft.read();
  /** Text that is not sent yet: it outlives the edit of a message, and both outlive a reload. */
  const draft = stored?.owner === owner ? stored : { owner, text: "", edit: null };
  const text = h("textarea", {
    rows: "1",
    "aria-label": "Message",
    placeholder: "Message",
    dir: "auto",
    oninput: typed,
    onkeydown: keyed,
    onpaste: pasted,
  });
  const send = iconButton("send", "Send", { type: "submit", class: "primary send" });
  const editBar = h(
    "div",
    { class: "edit-bar", hidden: true },
    h("span", { class: "grow" }, "Editing"),
    iconButton("close", "Stop editing", { onclick: stopEdit }),
  );
  const pictures = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, onchange: chosen });
  const more = h(
    "div",
    { class: "composer-more" },
    iconButton("photo", "Send photos", { onclick: () => pictures.click() }),
    iconButton("camera", "Take a photo", {
      onclick: () => void import("./camera.js").then(({ openCamera }) => openCamera(phone, sendPhoto)),
    }),
    iconButton("heart", "Send a hug", { onclick: () => act(timeline.append("hug", {})) }),
    iconButton("thumb", "Thumb kiss", { onclick: openThumb }),
  );
  const composer = h(
    "form",
    { class: "composer", onsubmit: submit },
    editBar,
    more,
    h("div", { class: "composer-line" }, text, send),
    pictures,
  );

  async function act(/** @type {Promise<unknown>} */ promise) {
    try {
      await promise;
      scrollToEnd();
    } catch (error) {
      void phone.report(error);
    }
  }

  function fit() {
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, 140)}px`;
  }

  function keepDraft() {
    if (!editing) draft.text = text.value;
    draft.edit = editing && { key: editing, text: text.value };
    phone.draft.write(draft.text || editing ? draft : null);
  }

  function typed() {
    fit();
    keepDraft();
    const now = Date.now();
    if (editing || !text.value.trim() || now - lastTyping < TYPING_EVERY || client.status.state !== "live") return;
    lastTyping = now;
    client.signal("typing").catch(() => {});
  }

  function keyed(/** @type {KeyboardEvent} */ event) {
    if (event.key === "Escape" && editing) {
      event.preventDefault();
      stopEdit();
    }
    // Enter confirms a word of an input method editor.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    composer.requestSubmit();
  }

  function submit(/** @type {Event} */ event) {
    event.preventDefault();
    const body = { text: text.value.trim() };
    if (!body.text) return;
    if (editing) void act(timeline.edit(editing, body));
    else void act(timeline.append("text", body));
    lastTyping = 0;
    if (editing) stopEdit();
    else text.value = "";
    keepDraft();
    fit();
    text.focus();
  }

  function startEdit(/** @type {any} */ entry) {
    showEdit(entry.key, entry.body.text);
    keepDraft();
    fit();
    text.focus();
  }

  /** @param {string} key @param {string} value */
  function showEdit(key, value) {
    editing = key;
    text.value = value;
    editBar.hidden = false;
    more.hidden = true;
  }

  function stopEdit() {
    editing = null;
    text.value = draft.text;
    editBar.hidden = true;
    more.hidden = false;
    keepDraft();
    fit();
    text.focus();
  }

  // Photos.

  function chosen() {
    for (const file of pictures.files) void sendPhoto(file);
    pictures.value = "";
  }

  function pasted(/** @type {ClipboardEvent} */ event) {
    const files = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
    if (files.length > 0) event.preventDefault();
    for (const file of files) void sendPhoto(file);
  }

  async function sendPhoto(/** @type {File} */ file) {
    try {
      const { entry } = await client.media.upload(file, { purpose: "photo", entry: { body: { name: file.name } } });
      if (entry) phone.keepPreview(entry.client_id, file);
      render();
      scrollToEnd();
    } catch (error) {
      void phone.report(error);
    }
  }

  function dismissUpload(/** @type {any} */ upload) {
    if (upload.state === "failed") failed.delete(upload.id);
    else client.media.cancel(upload.id).catch((error) => phone.report(error));
    render();
  }

  function openThumb() {
    void import("./thumb.js").then(({ openThumbPad }) => openThumbPad(phone));
  }

  // An earlier timeline with the same partner.

  let shownPrevious = "";

  function showPrevious() {
    const state = client.couple?.previous ?? null;
    const facts = JSON.stringify(state);
    if (facts === shownPrevious) return;
    shownPrevious = facts;
    const set = (/** @type {boolean} */ wanted) => () => act(client.pairing.restore(wanted));
    const texts = state?.wanted
      ? "You want your earlier messages back. Your partner has to agree."
      : "You were a couple before. Do you want your earlier messages back?";
    fill(previous, [
      state?.restored &&
        h(
          "button",
          {
            type: "button",
            class: "plain small",
            onclick: () => void import("./previous.js").then(({ openPrevious }) => openPrevious(phone)),
          },
          "Messages from before",
        ),
      state &&
        !state.restored &&
        h(
          "div",
          { class: "card stack center" },
          h("p", {}, texts),
          h("button", { type: "button", onclick: set(!state.wanted) }, state.wanted ? "Keep them away" : "Restore them"),
        ),
    ]);
  }

  // Events.

  listen("timeline", render);
  listen("status", () => {
    showPartner();
    showConnection();
  });
  listen("couple", () => {
    showPartner();
    showPrevious();
    render();
  });
  listen("upload", (upload) => {
    if (upload.state === "failed" && upload.entry) failed.set(upload.id, upload);
    render();
  });
  listen("entry", (entry) => {
    if (entry.author !== "partner") return;
    typingUntil = 0;
    showPartner();
    if (entry.kind === "text") phone.say(`${name.textContent}: ${entry.body?.text}`);
    if (entry.kind === "photo") phone.say(`${name.textContent} sent a photo`);
    if (entry.kind === "hug") {
      phone.say(`${name.textContent} hugs you`);
      celebrate(phone.element, "🤗");
    }
  });
  listen("signal", ({ kind, from }) => {
    if (kind === "typing") {
      typingUntil = Date.now() + TYPING_SHOWN;
      showPartner();
      setTimeout(showPartner, TYPING_SHOWN + 50);
    }
    if (kind === "thumb" && from === "partner" && !phone.thumbPad && !thumbNotice) {
      const close = phone.notify(`${name.textContent} holds a thumb on the screen`, { action: "Meet it", act: openThumb, seconds: 6 });
      thumbNotice = setTimeout(() => {
        thumbNotice = 0;
        close();
      }, 6_000);
    }
  });
  /** @type {any} */
  let thumbNotice = 0;
  document.addEventListener("visibilitychange", markRead);
  undo.push(() => document.removeEventListener("visibilitychange", markRead));

  const element = h("div", { class: "chat" }, head, h("div", { class: "log-frame" }, log, connection, toEnd), composer);
  const resized = new ResizeObserver(() => {
    if (atEnd) scrollToEnd();
  });
  let atEnd = true;
  log.addEventListener("scroll", () => (atEnd = isNearEnd()));
  resized.observe(log);
  resized.observe(list);
  showPartner();
  showConnection();
  showPrevious();
  render();
  text.value = draft.text;
  if (timeline.entries.some(({ key, deleted_at }) => key === draft.edit?.key && !deleted_at)) showEdit(draft.edit.key, draft.edit.text);

  const close = () => {
    clearTimeout(reading);
    resized.disconnect();
    for (const end of undo) end();
    for (const { view } of shown.values()) view.close();
  };
  const appear = () => {
    scrollToEnd();
    fit();
    markRead();
  };
  return { element, close, shown: appear };
}

/**
 * Lets some emoji rise over a phone.
 * @param {HTMLElement} phone
 * @param {string} emoji
 */
export function celebrate(phone, emoji) {
  const shower = h(
    "div",
    { class: "shower", "aria-hidden": "true" },
    Array.from({ length: 9 }, () => h("span", {}, emoji)),
  );
  [...shower.children].forEach((span, at) => {
    /** @type {HTMLElement} */ (span).style.left = `${8 + at * 10}%`;
    /** @type {HTMLElement} */ (span).style.animationDelay = `${((at * 5) % 9) * 60}ms`;
  });
  phone.append(shower);
  setTimeout(() => shower.remove(), 2_600);
}
