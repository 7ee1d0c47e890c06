/** Signing up and in. */

import { field, form, h } from "./dom.js";

/**
 * Mail with a code or a link that a form waits for. `known` is the newest mail before it.
 * @typedef {{ purpose: keyof typeof MAIL_LIFETIMES, email: string, known: { id: string } | undefined }} PendingMail
 */

const NAMES = ["Ana", "Ben"];
/** Milliseconds in which a code or link of the server works, by purpose. As long, its form is shown again after a reload. */
const MAIL_LIFETIMES = { verify: 24 * 3_600_000, signIn: 10 * 60_000, setPassword: 3_600_000 };

/**
 * @param {import("./phone.js").Phone} phone
 * @returns {import("./phone.js").Screen}
 */
export function signInScreen(phone) {
  /** Client, which is loaded while the user fills in the form. */
  const { started } = phone;
  /** The content of a mail is not kept: it has the code. */
  const newestMail = async (/** @type {string} */ email) => {
    const mail = await (await import("./mailbox.js")).newestMail(email);
    return mail && { id: mail.id };
  };
  const element = h("div", { class: "page sign-in" });
  let endMail = () => {};

  /**
   * @param {string} title
   * @param {string | HTMLElement} text
   * @param {any[]} children
   */
  function show(title, text, children) {
    const focused = element.contains(document.activeElement);
    const heading = h("h2", { tabindex: "-1" }, title);
    element.replaceChildren(h("div", { class: "hero" }, heading, h("p", { class: "muted" }, text)), ...children.flat());
    if (focused) (element.querySelector("[autofocus]") ?? heading).focus();
  }

  /**
   * @param {string} text
   * @param {() => void} onclick
   */
  const link = (text, onclick) => h("button", { type: "button", class: "plain", onclick }, text);
  const submit = (/** @type {string} */ text) => h("button", { class: "primary wide" }, text);

  /** @param {PendingMail} mail */
  function remember(mail) {
    phone.pendingMail.write({ mail, until: Date.now() + MAIL_LIFETIMES[mail.purpose] });
  }

  function forget() {
    endMail();
    phone.pendingMail.write(null);
  }

  /** @param {PendingMail} mail */
  function expect(mail) {
    remember(mail);
    showPending(mail);
  }

  /** @param {PendingMail} mail */
  function showPending(mail) {
    if (mail.purpose === "setPassword") newPassword(mail);
    else code(mail);
  }

  function start() {
    forget();
    const suggestion = NAMES[phone.number - 1] ?? "";
    // Another address each time, so that the demo can be played again.
    const address = `${suggestion.toLowerCase()}-${Math.random().toString(36).slice(2, 6)}@example.org`;
    const name = field("Your name", { name: "display_name", value: suggestion, autocomplete: "off", required: true, dir: "auto" });
    const email = field("E-mail address", {
      name: "email",
      type: "email",
      value: address,
      autocomplete: "off",
      required: true,
      dir: "ltr",
    });
    const send = async (/** @type {any} */ values) => {
      const known = await newestMail(values.email);
      await (await started).account.signUp(values);
      expect({ purpose: "verify", email: values.email, known });
    };
    show("Hello", "An account needs a name and an address. A code is mailed to it.", [
      form([name, email], [name.element, email.element, submit("Create account")], send),
      link("I have an account", signIn),
    ]);
  }

  function signIn() {
    forget();
    const email = field("E-mail address", {
      name: "email",
      type: "email",
      value: phone.returning,
      autocomplete: "username",
      required: true,
      dir: "ltr",
      autofocus: true,
    });
    const password = field("Password", {
      name: "password",
      type: "password",
      autocomplete: "current-password",
      hint: "Leave it empty to get a code by mail.",
    });
    const send = async (/** @type {any} */ values) => {
      if (values.password) return (await started).account.signIn(values);
      const known = await newestMail(values.email);
      await (await started).account.requestCode(values.email);
      expect({ purpose: "signIn", email: values.email, known });
    };
    show("Welcome back", "Sign in with your password, or with a code by mail.", [
      form([email, password], [email.element, password.element, submit("Sign in")], send),
      link("Forgot the password", () => forgot(email.input.value)),
      link("I am new here", start),
    ]);
  }

  /** @param {string} address */
  function forgot(address) {
    const email = field("E-mail address", { name: "email", type: "email", value: address, required: true, dir: "ltr", autofocus: true });
    const send = async (/** @type {any} */ values) => {
      const known = await newestMail(values.email);
      await (await started).account.forgotPassword(values.email);
      expect({ purpose: "setPassword", email: values.email, known });
    };
    show("New password", "A link to set a new password is mailed to you.", [
      form([email], [email.element, submit("Mail the link")], send),
      link("Back", signIn),
    ]);
  }

  /** @param {PendingMail} mail */
  function newPassword({ email, known }) {
    const token = field("Link from the mail", { name: "token", required: true, dir: "ltr", autofocus: true });
    const password = field("New password", {
      name: "new_password",
      type: "password",
      autocomplete: "new-password",
      required: true,
      hint: "At least 15 characters.",
    });
    const send = async (/** @type {any} */ values) => {
      await (await started).account.setPassword(values);
      phone.notify("The password was changed.");
      signIn();
    };
    show("New password", h("bdi", {}, "If ", h("bdi", { class: "address" }, email), " has an account, a mail is on its way."), [
      form([token, password], [token.element, password.element, submit("Set the password")], send),
      link("Back", signIn),
    ]);
    endMail = phone.watchMail(email, known, ({ link }) =>
      link ? { label: "Use link", act: () => void (token.input.value = link) } : null,
    );
  }

  /** @param {PendingMail} pending */
  function code(pending) {
    const { email, purpose, known } = pending;
    const isNew = purpose === "verify";
    const input = field("Code", {
      name: "code",
      inputmode: "numeric",
      autocomplete: "one-time-code",
      required: true,
      autofocus: true,
      dir: "ltr",
      maxlength: 12,
      class: "code",
    });
    const password = field("Password (optional)", {
      name: "password",
      type: "password",
      autocomplete: "new-password",
      hint: "At least 15 characters. Without one, you sign in by mailed code.",
    });
    const send = async (/** @type {any} */ { code, password: chosen }) => {
      if (!isNew) await (await started).account.signIn({ email, code });
      else await (await started).account.verify({ email, code, ...(chosen && { password: chosen }) });
    };
    const element = form(
      isNew ? [input, password] : [input],
      [input.element, isNew && password.element, submit(isNew ? "Confirm" : "Sign in")],
      send,
    );
    const again = async () => {
      try {
        const { account } = await started;
        await (isNew ? account.resend(email) : account.requestCode(email));
        remember(pending);
        phone.notify("Another code is on its way.");
      } catch (error) {
        void phone.report(error);
      }
    };
    show("Enter the code", h("bdi", {}, "Six digits were mailed to ", h("bdi", { class: "address" }, email), "."), [
      element,
      link("Mail another code", again),
      link("Back", isNew ? start : signIn),
    ]);
    endMail = phone.watchMail(email, known, (mail) => {
      if (!mail.code) return null;
      const act = () => {
        input.input.value = mail.code;
        element.requestSubmit();
      };
      return { label: "Use code", act };
    });
  }

  const kept = phone.pendingMail.read();
  if (kept?.until > Date.now()) showPending(kept.mail);
  else if (phone.returning) signIn();
  else start();
  // Closed once the user is signed in.
  return { element, close: forget };
}
