// The platform's fetch, whose body is read as a stream: used by React Native and by workers without EventSource.
const [base, token] = process.argv.slice(2);
let cursor = "0";

async function follow() {
  const headers = { accept: "text/event-stream", authorization: `Bearer ${token}` };
  const answer = await fetch(`${base}/v1/couple/live?after=${cursor}`, { headers });
  let text = "";
  for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
    const events = (text + part).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      const frame = data ? JSON.parse(data.slice(6)) : {};
      if (frame.type === "entry") console.log(frame.entry.seq, frame.entry.body.text);
      if (frame.cursor) cursor = frame.cursor;
    }
  }
}

(async () => {
  for (;;) {
    await follow().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
})();
