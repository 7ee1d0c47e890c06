/** One phone: a client of its own with its own storage, and the screen that fits its state. */

import { fill, h, iconButton, uniqueId } from "./dom.js";
import { signInScreen } from "./sign-in.js";
import { storedValue } from "./storage.js";

/** @typedef {{ element: HTMLElement, close?: () => void, shown?: () => void }} Screen */

/** Screens by route. Those that a new user does not see first are loaded when they are needed. */
const SCREENS = {
  loading: async () => (await import("./loading.js")).loadingScreen,
  "sign-in": async () => signInScreen,
  pairing: async () => (await import("./pairing.js")).pairingScreen,
  chat: async () => (await import("./chat.js")).chatScreen,
};

/** Resolves after the first paint, when the second frame begins, or soon in a tab in the background, which is not painted. */
const firstPaint = new Promise((resolve) => {
  requestAnimationFrame(() => requestAnimationFrame(resolve));
  setTimeout(resolve, 500);
});

/** Loads the client with all its files, not one level of imports after another. */
async function loadClient() {
  const later = document.querySelector("template#later");
  if (later instanceof HTMLTemplateElement) document.head.append(later.content);
  return import("../client/browser.js");
}

export class Phone extends EventTarget {
  /** Undefined until it is loaded, which is before the user is signed in. @type {import("../client/index.js").Client} */
  client = /** @type {any} */ (undefined);
  /** @type {any} account of the user, with avatar */
  me = null;
  /** Address of the user whose session was ended by the server. */
  returning = "";
  /** Code and link of an open invite, which the other phone of the page can use. */
  /** @type {any} */
  openInvite = null;
  /** Whether the pad of the thumb kiss is open. */
  thumbPad = false;
  /** @type {Phone | null} the other phone of the page */
  other = null;
  /** Whether the user can see this phone. */
  onScreen = true;

  #screen = h("div", { class: "screen" });
  #notices = h("div", { class: "notices" });
  #mails = h("div", { class: "mails" });
  /** For screen readers. */
  #speaker = h("p", { class: "hidden-text", role: "status" });
  /** @type {Screen | null} */
  #current = null;
  #route = "";
  /** Whether the screen of the route could not be loaded. */
  #isMissing = false;
  #ready = false;
  /** Whether the focus was last in this phone: what had it can be gone. */
  #isActive = false;
  /** @type {Map<string, string>} addresses of own photos that the server does not show yet, by `client_id` */
  #previews = new Map();
  /** @type {{ element: HTMLElement, close: () => void }[]} sheets above the screen, the topmost last */
  #sheets = [];

  /** @param {number} number */
  constructor(number) {
    super();
    this.number = number;
    const key = `couple-demo-${number}`;
    /** Whether a session was stored when the page was last open. Read without waiting, unlike the session itself. */
    this.wasSignedIn = storedValue("localStorage", key);
    /** Mail that a form of the sign-in screen waits for. */
    this.pendingMail = storedValue("localStorage", `${key}-mail`);
    /** Text in the composer of this tab. */
    this.draft = storedValue("sessionStorage", `${key}-draft`);
    this.element = h("div", { class: "phone" }, this.#mails, this.#screen, this.#notices, this.#speaker);
    this.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" || event.defaultPrevented || this.#sheets.length === 0) return;
      event.preventDefault();
      this.#sheets.at(-1)?.close();
    });
    document.addEventListener("focusin", ({ target }) => (this.#isActive = this.element.contains(/** @type {Node} */ (target))));
    /** Client, once it is loaded: for a new user after the sign-up form, which does not need it yet, is painted. */
    this.started = (this.wasSignedIn.read() ? loadClient() : firstPaint.then(loadClient)).then(({ createClient }) => this.#start(createClient));
    this.route();
  }

  /** @param {typeof import("../client/browser.js").createClient} createClient */
  #start(createClient) {
    const client = createClient({ baseUrl: "/", name: `couple-demo-${this.number}` });
    this.client = client;
    client.on("session", ({ session, reason }) => {
      this.#remember();
      this.returning = reason === "expired" ? (this.me?.email ?? "") : "";
      if (reason === "expired") this.notify("This session was ended. Sign in again to go on: what waits here is kept.");
      if (!session) this.#forget();
      if (!session && reason !== "expired") this.draft.write(null);
      else if (reason === "signed_in") this.loadProfile();
      this.route();
    });
    let partner = "";
    client.on("couple", () => {
      if (client.couple) this.openInvite = null;
      else if (client.couple === null && partner) {
        this.draft.write(null);
        this.notify(`You and ${partner} are no longer a couple.`);
      }
      partner = client.couple?.partner.display_name ?? "";
      this.route();
      this.changed();
    });
    client.on("refused", ({ item, error }) => {
      const text = item.body?.text;
      this.notify(`Not sent: ${error.message}.${text ? ` “${text}”` : ""}`);
    });
    client.on("error", (error) => this.notify(`${error.message} (${error.code})`));
    client.on("status", () => this.route());
    client.connect();
    client.ready.then(
      () => {
        this.#ready = true;
        this.#remember();
        if (client.session) this.loadProfile();
        this.route();
      },
      (error) => this.notify(`${error.message} (${error.code})`),
    );
    this.route();
    return client;
  }

  #remember() {
    this.wasSignedIn.write(this.client.session ? true : null);
  }

  /** Tells the page that name, invite or session changed. */
  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Name of the user, once known. */
  get userName() {
    return this.client?.couple?.me.display_name ?? this.me?.display_name ?? null;
  }

  loadProfile() {
    const ask = async () => {
      this.me = await this.client.account.me();
      this.route();
      this.changed();
    };
    ask().catch(() => {});
  }

  #forget() {
    this.me = null;
    this.openInvite = null;
    this.say("");
    for (const sheet of [...this.#sheets].reverse()) sheet.close();
    this.changed();
  }

  /** Shows the screen that fits the state. */
  route() {
    const { session, couple } = this.client ?? {};
    let route = "loading";
    // A new user sees the form before the storage is read, which takes longer than everything before.
    if (!session && (this.#ready || !this.wasSignedIn.read())) route = "sign-in";
    else if (couple) route = `chat ${couple.id}`;
    else if (couple === null) route = "pairing";
    if (route !== this.#route) void this.#open(route);
    else if (route === "loading") this.#current?.shown?.();
  }

  /** Loads the screen again whose files did not arrive. Not done at each change of the state: the server may be down. */
  retry() {
    if (this.#isMissing) void this.#open(this.#route);
  }

  /** @param {string} route name of the screen, and for a conversation the id of the couple */
  async #open(route) {
    this.#route = route;
    this.#isMissing = false;
    const load = SCREENS[/** @type {keyof typeof SCREENS} */ (route.split(" ")[0])];
    const make = await load().catch((error) => {
      this.#isMissing ||= route === this.#route;
      throw error;
    });
    if (route !== this.#route) return;
    const { activeElement } = document;
    const hadFocus = this.#isActive && (activeElement === document.body || this.element.contains(activeElement));
    this.#current?.close?.();
    for (const sheet of [...this.#sheets].reverse()) sheet.close();
    this.#current = make(this);
    fill(this.#screen, [this.#current.element]);
    this.#current.shown?.();
    if (hadFocus) this.#focusFirst(this.#screen);
  }

  /** @param {HTMLElement} container */
  #focusFirst(container) {
    const first = container.querySelector("[autofocus]") ?? container.querySelector("h2, h3");
    if (!(first instanceof HTMLElement)) return;
    if (/^H/.test(first.tagName)) first.tabIndex = -1;
    first.focus({ preventScroll: true });
  }

  /** The phone became visible or hidden on a narrow page. */
  setOnScreen(/** @type {boolean} */ onScreen) {
    this.onScreen = onScreen;
    if (onScreen) this.#current?.shown?.();
  }

  /**
   * Shows a dialog above the screen.
   * @param {string} title
   * @param {any[]} children
   * @param {{ class?: string, closed?: () => void }} [options]
   * @returns {{ element: HTMLElement, close: () => void }}
   */
  sheet(title, children, { class: kind = "", closed } = {}) {
    const id = uniqueId();
    const before = document.activeElement;
    const close = () => {
      if (!this.#sheets.includes(sheet)) return;
      this.#sheets = this.#sheets.filter((other) => other !== sheet);
      element.remove();
      this.#setInert();
      closed?.();
      if (before instanceof HTMLElement && before.isConnected && this.element.contains(before)) before.focus({ preventScroll: true });
    };
    const head = h(
      "header",
      { class: "sheet-head" },
      h("h2", { id, tabindex: "-1" }, title),
      iconButton("close", "Close", { onclick: () => close() }),
    );
    const element = h(
      "div",
      { class: `sheet ${kind}`, role: "dialog", "aria-labelledby": id },
      head,
      h("div", { class: "sheet-body" }, children),
    );
    const backdrop = (/** @type {Event} */ event) => event.target === element && close();
    element.addEventListener("click", backdrop);
    const sheet = { element, close };
    this.#sheets.push(sheet);
    this.element.append(element);
    this.#setInert();
    this.#focusFirst(element);
    return sheet;
  }

  /** Only the topmost sheet can be used. */
  #setInert() {
    const top = this.#sheets.at(-1)?.element;
    this.#screen.inert = top !== undefined;
    for (const { element } of this.#sheets) element.inert = element !== top;
  }

  /**
   * Shows a short message for some seconds.
   * @param {string} text
   * @param {{ action?: string, act?: () => void, seconds?: number }} [options]
   */
  notify(text, { action, act, seconds = 8 } = {}) {
    const close = () => notice.remove();
    const run = () => {
      close();
      act?.();
    };
    const button = action && h("button", { type: "button", class: "plain", onclick: run }, action);
    const notice = h(
      "div",
      { class: "notice", role: "status" },
      h("p", { dir: "auto" }, text),
      button,
      iconButton("close", "Dismiss", { onclick: close }),
    );
    this.#notices.append(notice);
    setTimeout(close, seconds * 1000);
    return close;
  }

  /**
   * Tells the user why something failed.
   * @param {any} error
   */
  async report(error) {
    const { explain } = await import("./texts.js");
    this.notify(explain(error));
  }

  /**
   * Shows an own photo from this device until the server has it.
   * @param {string} clientId
   * @param {Blob} file
   */
  keepPreview(clientId, file) {
    if (!this.#previews.has(clientId)) this.#previews.set(clientId, URL.createObjectURL(file));
  }

  /** @param {string} clientId */
  preview(clientId) {
    return this.#previews.get(clientId);
  }

  /** @param {string} clientId */
  dropPreview(clientId) {
    const address = this.#previews.get(clientId);
    if (address) URL.revokeObjectURL(address);
    this.#previews.delete(clientId);
  }

  /**
   * Says something to users of screen readers.
   * @param {string} text
   */
  say(text) {
    this.#speaker.textContent = text;
  }

  /**
   * Shows mails to an address as notices, with a button that uses them.
   * @param {string} email
   * @param {{ id: string } | undefined} known newest mail before the one that is expected
   * @param {(mail: import("./mailbox.js").Mail) => ({ label: string, act: () => void } | null)} offer what a mail is good for; null: nothing
   * @returns {() => void} ends it
   */
  watchMail(email, known, offer) {
    /** @type {HTMLElement | null} */
    let shown = null;
    const watching = import("./mailbox.js").then(({ mailNotice, watchMail }) =>
      watchMail(email, known, (mail) => {
        const use = offer(mail);
        if (use) this.#mails.replaceChildren((shown = mailNotice(mail, use)));
      }),
    );
    return () => {
      void watching.then((end) => end());
      shown?.remove();
    };
  }
}
