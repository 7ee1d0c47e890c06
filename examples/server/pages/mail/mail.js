// The mailbox page: lists mails and the push log, follows new ones, copies codes.

/**
 * @typedef {object} Mail
 * @property {string} id
 * @property {string} to
 * @property {string} subject
 * @property {string | null} date
 * @property {string} text
 * @property {string} [html]
 * @property {{name: string, value: string}[]} headers
 * @property {string} [code]
 * @property {string} [link]
 */

/**
 * @typedef {object} Push
 * @property {number} id
 * @property {string} at
 * @property {string} to
 * @property {string} kind
 * @property {string} result
 * @property {string} [service]
 * @property {Record<string, unknown>} [message]
 */

/** Maximum reports in the push log. */
const MAX_REPORTS = 200;
const RECONNECT_MS = 2000;
const element = (id) => document.getElementById(id);
const [list, filter, said, connection] = ['mails', 'filter', 'said', 'connection'].map(element);
/** Articles by the id of their mail. */
const shown = new Map();

filter.value = new URLSearchParams(location.search).get('to') ?? '';
filter.addEventListener('input', applyFilter);

function applyFilter() {
  const wanted = filter.value.trim().toLowerCase();
  let visible = 0;
  for (const article of list.children) {
    article.hidden = !article.dataset.to.includes(wanted);
    if (!article.hidden) visible += 1;
  }
  element('empty').hidden = visible > 0;
}

/**
 * Copies a code, or selects it if the browser refuses to copy.
 * @param {string} code
 * @param {HTMLElement} button shows the code
 */
async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code);
    button.firstChild.textContent = 'Copied ';
    said.textContent = `Copied ${code}`;
  } catch {
    getSelection().selectAllChildren(button.querySelector('code'));
    button.firstChild.textContent = 'Selected, copy it with the keyboard: ';
  }
}

/**
 * Shows the HTML of a mail in a frame as wide as a phone, in light or dark colours, or its text.
 * @param {Mail} mail
 * @param {HTMLElement} article
 */
function showOnPhone(mail, article) {
  const frame = article.querySelector('.phone iframe');
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const show = (as) => {
    frame.hidden = as === 'text';
    article.querySelector('pre').hidden = as !== 'text';
    // A frame is loaded when it is near the visible part of the page.
    if (as !== 'text') frame.src = `messages/${encodeURIComponent(mail.id)}/html?colours=${as}`;
  };
  frame.loading = 'lazy';
  for (const input of article.querySelectorAll('.phone input')) {
    input.name = `as-${mail.id}`;
    input.checked = input.value === (dark ? 'dark' : 'light');
    input.addEventListener('change', () => show(input.value));
    if (input.checked) show(input.value);
  }
}

/** @param {Mail} mail */
function render(mail) {
  const article = element('mail').content.cloneNode(true).querySelector('article');
  const find = (selector) => article.querySelector(selector);
  article.dataset.to = mail.to.toLowerCase();
  find('h2').textContent = mail.subject;
  find('.to').textContent = mail.to;
  const time = find('time');
  time.dateTime = mail.date ?? '';
  time.textContent = mail.date ? new Date(mail.date).toLocaleString(document.documentElement.lang) : 'unknown';
  const button = find('.copy');
  button.hidden = !mail.code;
  button.querySelector('code').textContent = mail.code ?? '';
  button.addEventListener('click', () => copy(mail.code, button));
  const link = find('.open');
  link.hidden = !mail.link;
  if (mail.link) link.href = mail.link;
  const text = find('pre');
  text.textContent = mail.text;
  if (mail.html) showOnPhone(mail, article);
  else find('.phone').remove();
  const rows = mail.headers.map(({ name, value }) => {
    const row = document.createElement('tr');
    const [head, cell] = ['th', 'td'].map((tag) => row.appendChild(document.createElement(tag)));
    head.scope = 'row';
    head.textContent = name;
    cell.textContent = value;
    return row;
  });
  find('tbody').append(...rows);
  return article;
}

/**
 * Shows a mail above the older ones.
 * @param {Mail} mail
 */
function add(mail) {
  const article = render(mail);
  shown.get(mail.id)?.remove();
  shown.set(mail.id, article);
  list.prepend(article);
  return article;
}

/** Number of the newest report that is shown. */
let reported = 0;

/**
 * Shows a report of the push log above the older ones.
 * @param {Push} push
 */
function addPush(push) {
  if (push.id <= reported) return;
  reported = push.id;
  const item = element('push').content.cloneNode(true).querySelector('li');
  const time = item.querySelector('time');
  time.dateTime = push.at;
  time.textContent = new Date(push.at).toLocaleTimeString(document.documentElement.lang);
  item.querySelector('.kind').textContent = push.kind;
  item.querySelector('.to').textContent = push.to;
  item.querySelector('.result').textContent = push.service ? `${push.service}: ${push.result}` : push.result;
  const message = item.querySelector('pre');
  if (push.message) message.textContent = JSON.stringify(push.message, null, 2);
  else message.remove();
  const pushes = element('pushes');
  pushes.prepend(item);
  if (pushes.children.length > MAX_REPORTS) pushes.lastElementChild.remove();
  element('push-count').textContent = `(${pushes.children.length})`;
}

async function loadPushes() {
  const response = await fetch('pushes');
  if (!response.ok) throw new Error(await response.text());
  /** @type {Push[]} */
  const pushes = await response.json();
  // A server that was started again counts from 1.
  if ((pushes[0]?.id ?? 0) < reported) {
    reported = 0;
    element('pushes').replaceChildren();
  }
  for (const push of pushes.reverse()) addPush(push);
}

async function load() {
  const response = await fetch('messages');
  if (!response.ok) throw new Error(await response.text());
  /** @type {Mail[]} */
  const mails = await response.json();
  for (const mail of mails.reverse()) {
    if (!shown.has(mail.id)) add(mail);
  }
  applyFilter();
}

function follow() {
  const events = new EventSource('events');
  events.addEventListener('open', () => {
    connection.textContent = 'New mails appear here.';
    Promise.all([load(), loadPushes()]).catch((error) => { connection.textContent = error.message; });
  });
  events.addEventListener('mail', (event) => {
    const mail = JSON.parse(event.data);
    add(mail).classList.add('new');
    applyFilter();
    said.textContent = `New mail to ${mail.to}: ${mail.subject}`;
  });
  events.addEventListener('push', (event) => addPush(JSON.parse(event.data)));
  events.addEventListener('error', () => {
    connection.textContent = 'The server does not answer; trying again.';
    // The browser connects again by itself, unless the server has refused the request.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, RECONNECT_MS);
  });
}

follow();
