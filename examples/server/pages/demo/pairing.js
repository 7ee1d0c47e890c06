/** Two users become a couple: inviting by code, link, QR code or address, and accepting. */

import "./signed-in.js";
import { dateOf } from "./dates.js";
import { field, fill, form, h, icon } from "./dom.js";
import { initial } from "./pictures.js";
import { explain } from "./texts.js";

/** Milliseconds between two requests for the invites of the user: while an own one is open, and otherwise. */
const POLL_WHILE_INVITING = 1_000;
const POLL = 4_000;

/**
 * @param {import("./phone.js").Phone} phone
 * @returns {import("./phone.js").Screen}
 */
export function pairingScreen(phone) {
  const { client } = phone;
  const { pairing } = client;
  /** @type {string} */
  let shownInvites = "";
  /** Whether the user has an open invite. */
  let inviting = false;
  let closed = false;
  /** @type {any} */
  let timer = 0;
  const sent = h("div", { class: "stack" });
  const received = h("div", { class: "stack" });
  const offer = h("div");

  const message = field("Message (optional)", { name: "message", maxlength: 200, dir: "auto" });
  const email = field("Only for this address (optional)", {
    name: "email",
    type: "email",
    dir: "ltr",
    hint: "The invite is then also mailed there.",
  });
  const invite = form(
    [message, email],
    [
      h("details", {}, h("summary", {}, "Add a message or an address"), message.element, email.element),
      h("button", { class: "primary wide" }, "Invite"),
    ],
    async (values) => {
      const body = Object.fromEntries(Object.entries(values).filter(([, value]) => value));
      await pairing.invite(body);
      message.input.value = email.input.value = "";
      await load();
    },
  );

  const code = field("Code or link of an invite", { name: "code", required: true, dir: "ltr", autocomplete: "off" });
  const join = form([code], [code.element, h("button", { class: "wide" }, "Show the invite")], async ({ code }) => preview(refOf(code)));

  /** @param {any} ref */
  async function preview(ref) {
    const found = await pairing.preview(ref);
    const problem = h("p", { class: "problem", role: "alert" });
    const run = (/** @type {(ref: any) => Promise<any>} */ act) => async () => {
      problem.textContent = "";
      try {
        await act.call(pairing, ref);
        sheet.close();
        await load();
      } catch (error) {
        problem.textContent = explain(error);
      }
    };
    const picture = found.from.avatar
      ? h("img", { class: "avatar big", src: found.from.avatar, alt: "" })
      : h("span", { class: "avatar big", "aria-hidden": "true" }, initial(found.from.display_name));
    const sheet = phone.sheet(
      "Invite",
      [
        h(
          "div",
          { class: "center stack" },
          picture,
          h("p", { class: "big-text" }, sentence(found.from.display_name, "invites you")),
          found.message && h("blockquote", { dir: "auto" }, found.message),
        ),
        problem,
        h(
          "div",
          { class: "row" },
          h("button", { type: "button", onclick: run(pairing.decline) }, "Decline"),
          h("button", { type: "button", class: "primary", onclick: run(pairing.accept) }, "Accept"),
        ),
      ],
      { class: "low" },
    );
  }

  const open = async (/** @type {any} */ ref) => {
    try {
      await preview(ref);
    } catch (error) {
      void phone.report(error);
    }
  };

  /** @param {any} one */
  function sentInvite(one) {
    const copy = (/** @type {string} */ text, /** @type {string} */ what) => async () => {
      try {
        await navigator.clipboard.writeText(text);
        phone.notify(`${what} copied.`, { seconds: 3 });
      } catch {
        phone.notify("The browser does not allow to copy. Select the text instead.");
      }
    };
    const withdraw = async () => {
      try {
        await pairing.withdraw(one.id);
        await load();
      } catch (error) {
        void phone.report(error);
      }
    };
    const square = h("div", { class: "qr" });
    void import("./qr.js").then(({ qrCode }) => square.append(qrCode(one.link, "QR code of the link")));
    return h(
      "article",
      { class: "card invite" },
      h("p", { class: "small muted" }, one.email ? `Invite for ${one.email}` : "Your invite: tell the code, or show the QR code"),
      h("p", { class: "invite-code", dir: "ltr" }, one.code),
      square,
      h(
        "div",
        { class: "row" },
        h("button", { type: "button", onclick: copy(one.code, "Code") }, icon("copy"), "Code"),
        h("button", { type: "button", onclick: copy(one.link, "Link") }, icon("copy"), "Link"),
      ),
      one.message && h("blockquote", { dir: "auto" }, one.message),
      h("p", { class: "small muted" }, `Valid until ${dateOf(one.expires_at)}`),
      h("button", { type: "button", class: "plain danger", onclick: withdraw }, "Withdraw"),
    );
  }

  async function load() {
    const invites = await pairing.invites();
    const text = JSON.stringify(invites);
    if (closed || text === shownInvites) return;
    shownInvites = text;
    // All own invites end when one of them is accepted.
    if (inviting && invites.sent.length === 0) void client.refresh().catch(() => {});
    inviting = invites.sent.length > 0;
    schedule();
    const focused = sent.contains(document.activeElement) || received.contains(document.activeElement);
    fill(sent, invites.sent.map(sentInvite));
    fill(received, [
      invites.received.map((/** @type {any} */ one) =>
        h(
          "article",
          { class: "card row between" },
          h("p", {}, sentence(one.from.display_name, "invites you")),
          h("button", { type: "button", class: "primary", onclick: () => open({ id: one.id }) }, "Show"),
        ),
      ),
    ]);
    if (focused) heading.focus();
    phone.openInvite = invites.sent.find((/** @type {any} */ { email }) => !email || email === phone.other?.me?.email) ?? null;
    phone.changed();
  }

  /** The other phone of this page has an invite: as if its QR code were scanned. */
  function showOffer() {
    const { other } = phone;
    const invite = other?.openInvite;
    fill(offer, [
      invite &&
        h(
          "div",
          { class: "card row between" },
          h("p", {}, sentence(other?.userName ?? "The other phone", "shows an invite")),
          h("button", { type: "button", onclick: () => open({ token: invite.link }) }, "Scan it"),
        ),
    ]);
  }

  const heading = h("h2", { tabindex: "-1" }, "Find each other");
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "hero" }, heading, h("p", { class: "muted" }, "Two people make a couple: one invites, the other accepts.")),
    received,
    offer,
    h("div", { class: "stack" }, sent, invite),
    h("div", { class: "stack" }, h("h3", {}, "Have you been invited?"), join),
    h(
      "button",
      { type: "button", class: "plain", onclick: () => void import("./settings.js").then(({ openSettings }) => openSettings(phone)) },
      "Profile, sessions, sign out",
    ),
  );

  phone.other?.addEventListener("change", showOffer);
  showOffer();
  const poll = async () => {
    // On a narrow page the other phone may accept while this one is hidden.
    if ((phone.onScreen || inviting) && document.visibilityState === "visible") await load().catch(() => {});
    schedule();
  };
  function schedule() {
    clearTimeout(timer);
    if (!closed) timer = setTimeout(poll, inviting ? POLL_WHILE_INVITING : POLL);
  }
  void poll();
  const close = () => {
    closed = true;
    clearTimeout(timer);
    phone.other?.removeEventListener("change", showOffer);
    phone.openInvite = null;
  };
  return { element, close };
}

/**
 * A code, or a link or its token, as a user types or pastes it.
 * @param {string} text
 */
function refOf(text) {
  return /[#_/]/.test(text) ? { token: text } : { code: text };
}

/**
 * A sentence about a user: its direction is that of its own words, whatever the name and the page.
 * @param {string} name
 * @param {string} text
 */
const sentence = (name, text) => h("bdi", {}, h("bdi", {}, name), ` ${text}`);
