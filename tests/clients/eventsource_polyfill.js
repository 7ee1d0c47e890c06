// npm `event-source-polyfill`: comes back by itself, with its cursor in the query's `lastEventId`.
const { EventSourcePolyfill } = require("event-source-polyfill");
const [base, token] = process.argv.slice(2);

const headers = { authorization: `Bearer ${token}` };
const source = new EventSourcePolyfill(`${base}/v1/couple/live?after=0&_=1`, { headers });
source.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "entry") console.log(frame.entry.seq, frame.entry.body.text);
};
// An error after which it does not come back is the test's failure: it waits for entries in vain.
source.onerror = ({ status }) => {
  if (source.readyState === EventSourcePolyfill.CLOSED) console.error(`closed for good: ${status}`);
};
