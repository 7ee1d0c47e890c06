// The API reference: Swagger UI, and a button that signs in a new account which is in a couple.

const STORED_TOKEN = 'couple-docs-token';
const MAIL_TIMEOUT_MS = 15_000;
const MAIL_POLL_MS = 200;
const button = document.getElementById('sign-in');
const said = document.getElementById('said');

const ui = window.SwaggerUIBundle({
  url: '/v1/openapi.json',
  dom_id: '#reference',
  deepLinking: true,
  tryItOutEnabled: true,
  // Otherwise Swagger UI sends the document to a validator on the internet.
  validatorUrl: null,
  onComplete: () => {
    const token = sessionStorage.getItem(STORED_TOKEN);
    if (token) authorize(token);
  },
});

/** Sends `token` with each request that needs a session. */
function authorize(token) {
  ui.preauthorizeApiKey('session', token);
}

async function call(method, path, token, body) {
  const response = await fetch(path, {
    method,
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? answer.title);
  return answer;
}

/** Waits for the code that the server mails to a new address. */
async function mailedCode(email) {
  for (let waited = 0; waited < MAIL_TIMEOUT_MS; waited += MAIL_POLL_MS) {
    const response = await fetch('/dev/mail/messages');
    if (!response.ok) throw new Error('the mailbox cannot be read');
    const mail = (await response.json()).find(({ to, code }) => to === email && code);
    if (mail) return mail.code;
    await new Promise((resolve) => setTimeout(resolve, MAIL_POLL_MS));
  }
  throw new Error(`no mail to ${email} arrived`);
}

/** Creates an account and returns the token of its session. */
async function signUp(name) {
  const email = `${name.toLowerCase()}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}@example.org`;
  await call('POST', '/v1/accounts', null, { email, display_name: name });
  const code = await mailedCode(email);
  const { session } = await call('POST', '/v1/accounts/verify', null, { email, code });
  return session.token;
}

button.addEventListener('click', async () => {
  button.disabled = true;
  said.textContent = 'Signing up two accounts …';
  try {
    const [ana, ben] = await Promise.all([signUp('Ana'), signUp('Ben')]);
    const { code } = await call('POST', '/v1/invites', ana, {});
    await call('POST', '/v1/invites/accept', ben, { code });
    sessionStorage.setItem(STORED_TOKEN, ana);
    authorize(ana);
    said.textContent = 'Signed in as Ana. Every operation below now sends her token.';
  } catch (error) {
    said.textContent = `Not signed in: ${error.message}`;
  }
  button.disabled = false;
});

const info = await fetch('/dev/info').then((response) => response.json());
if (!info.mailbox) {
  button.hidden = true;
  said.textContent = 'This server sends mail over SMTP: sign up below and enter the mailed code.';
}
