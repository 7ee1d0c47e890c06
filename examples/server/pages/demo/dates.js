/** Times and days as text. */

/** Language of the page's texts, so that dates have the same. */
const { lang } = document.documentElement;
const clock = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(lang, { weekday: "long", day: "numeric", month: "long" });
const both = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });

/** @param {string} date */
export const timeOf = (date) => clock.format(new Date(date));
/** @param {string} date */
export const dayOf = (date) => (new Date(date).toDateString() === new Date().toDateString() ? "Today" : calendar.format(new Date(date)));
/** @param {string} date */
export const dateOf = (date) => both.format(new Date(date));
