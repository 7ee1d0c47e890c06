const page = document.querySelector('main').dataset.page, form = document.getElementById('form');
const said = document.getElementById('said'), button = form.querySelector('button');
const heading = document.querySelector('h1'), lead = document.getElementById('lead');
const token = location.hash.slice(1), password = document.getElementById('password');
// These pages show the token for the user to enter in the app; the others send it.
const shown = page === 'invite' || page === 'signin';
// Remove the token from the address bar, so that it does not stay in the history. An invite stays: it may be opened again.
if (page !== 'invite') history.replaceState(null, '', location.pathname);
if (!token) { lead.hidden = form.hidden = true; said.textContent = 'Open this page by the link that you were sent.'; }
if (shown) document.getElementById('token').textContent = token;
const base = location.pathname.replace(/\/open\/[a-z]+\/*$/, '');
const calls = {
  verify: () => ['POST', '/v1/accounts/verify', { token, ...(password.value && { password: password.value }) }],
  cancel: () => ['POST', '/v1/me/email/cancel', { token }],
  email: () => ['POST', '/v1/me/email/verify', { token }],
  password: () => ['PUT', '/v1/password', { token, new_password: password.value }],
};
// Heading and text that replace those of the page.
const done = {
  verify: ['Address confirmed', 'Go back to the app and sign in.'],
  cancel: ['Address kept', 'The change is cancelled: your account keeps this address. If you did not ask for the change, set a new password in the app and sign out your other devices.'],
  email: ['New address confirmed', 'Your account uses this address now.'],
  password: ['Password set', 'Sign in with your new password in the app.'],
};
const invalid = {
  cancel: 'This link was used or is too old, or the change was confirmed already. If your account has another address now and you did not ask for it, set a new password in the app.',
};
// Confirming signs in. This page keeps no session, so it ends the one that it got; if that fails, the session ends unused.
const afterwards = {
  verify: async ({ session }) => {
    const headers = { authorization: `Bearer ${session.token}` };
    await fetch(`${base}/v1/sessions/current`, { method: 'DELETE', headers }).catch(() => {});
  },
};
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  if (shown) {
    try {
      await navigator.clipboard.writeText(token);
      said.textContent = 'Copied.';
    } catch {
      getSelection().selectAllChildren(document.getElementById('token'));
      said.textContent = 'Selected: copy it with your keyboard or a long press.';
    }
    return;
  }
  button.disabled = true;
  const [method, path, body] = calls[page]();
  try {
    const answer = await fetch(base + path, {
      method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
    });
    if (answer.ok) {
      await afterwards[page]?.(await answer.json());
      [heading.textContent, said.textContent] = done[page];
      document.title = heading.textContent;
      lead.hidden = form.hidden = true;
      return;
    }
    const problem = await answer.json();
    const reason = problem.errors?.[0]?.code;
    said.textContent = problem.code === 'invalid_token' ? invalid[page] ?? 'This link was used or is too old. Ask for a new one in the app.'
      : reason === 'too_short' ? 'That password is too short.'
      : reason === 'too_common' ? 'That password is too easy to guess.'
      : problem.detail || problem.title;
  } catch { said.textContent = 'No answer. Check your connection and try again.'; }
  button.disabled = false;
});
