/** The developer's mailbox at `/dev/mail`, so that a phone can show the mails of its user. Absent when the server sends real mail. */

import { h, icon, iconButton } from "./dom.js";

/** @typedef {{ id: string, to: string, subject: string, text: string, code?: string, link?: string }} Mail */

/** @type {Set<(mail: Mail) => void>} */
const listeners = new Set();
/** @type {EventSource | null} */
let source = null;

/**
 * @param {Mail} mail
 * @param {string} email
 */
const isTo = ({ to }, email) => (/<([^>]*)>/.exec(to)?.[1] ?? to).toLowerCase() === email.toLowerCase();

/**
 * @param {string} email
 * @returns {Promise<Mail | undefined>} newest mail to an address
 */
export async function newestMail(email) {
  try {
    const response = await fetch("/dev/mail/messages");
    /** @type {Mail[]} */
    const mails = response.ok ? await response.json() : [];
    return mails.find((mail) => isTo(mail, email));
  } catch {
    return undefined;
  }
}

/**
 * Calls `listener` for the newest mail to an address, and for each one that follows.
 * @param {string} email
 * @param {{ id: string } | undefined} known newest mail before the one that is expected
 * @param {(mail: Mail) => void} listener
 * @returns {() => void} ends it
 */
export function watchMail(email, known, listener) {
  const seen = new Set([known?.id]);
  const hear = (/** @type {Mail} */ mail) => {
    if (!isTo(mail, email) || seen.has(mail.id)) return;
    seen.add(mail.id);
    listener(mail);
  };
  listeners.add(hear);
  if (!source) {
    // Open only while a phone waits for a mail: browsers allow six connections to one server.
    source = new EventSource("/dev/mail/events");
    source.addEventListener("mail", ({ data }) => listeners.forEach((each) => each(JSON.parse(data))));
  }
  const ask = async () => {
    const newest = await newestMail(email);
    if (newest) hear(newest);
  };
  source.addEventListener("open", ask);
  if (source.readyState === EventSource.OPEN) void ask();
  const opened = source;
  return () => {
    opened.removeEventListener("open", ask);
    listeners.delete(hear);
    if (listeners.size > 0) return;
    source?.close();
    source = null;
  };
}

/**
 * Notice of a mail with a button that uses it.
 * @param {Mail} mail
 * @param {{ label: string, act: () => void }} use
 * @returns {HTMLElement}
 */
export function mailNotice(mail, use) {
  const close = () => notice.remove();
  const run = () => {
    close();
    use.act();
  };
  const texts = h(
    "div",
    {},
    h("p", { class: "small clip", dir: "auto" }, `Mail: ${mail.subject}`),
    mail.code && h("p", { class: "mail-code" }, mail.code),
  );
  const notice = h(
    "div",
    { class: "notice mail", role: "status" },
    icon("mail"),
    texts,
    h("button", { type: "button", class: "primary", onclick: run }, use.label),
    iconButton("close", "Dismiss", { onclick: close }),
  );
  return notice;
}
