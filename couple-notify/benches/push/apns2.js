// node apns2.js PORT MESSAGES CONCURRENT: sends messages by npm `apns2`; prints messages per second, and per second of processor time.
"use strict";
const fs = require("node:fs");
const { ApnsClient, Notification } = require("apns2");
const { Pool } = require(require.resolve("undici", { paths: [require.resolve("apns2")] }));

const [port, messages, concurrent] = process.argv.slice(2).map(Number);
const client = new ApnsClient({
  team: "TEAM123456",
  keyId: "KEY1234567",
  signingKey: fs.readFileSync(process.env.SIGNING_KEY),
  defaultTopic: "org.example.couple",
});
// The client's own pool connects to port 443 only: the same options, another server.
client.client = new Pool(`https://localhost:${port}`, {
  connections: 32,
  pipelining: 1,
  allowH2: true,
  maxConcurrentStreams: 100,
  connect: { ca: fs.readFileSync(process.env.CERTIFICATE) },
});
const token = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

async function main() {
  const [begun, before] = [process.hrtime.bigint(), process.cpuUsage()];
  await Promise.all(
    Array.from({ length: concurrent }, async () => {
      for (let n = 0; n < messages / concurrent; n += 1) {
        await client.send(
          new Notification(token, {
            alert: { title: "Zoë", body: "You have a new message" },
            badge: 3,
            sound: "default",
            collapseId: "couple",
          }),
        );
      }
    }),
  );
  const spent = process.cpuUsage(before);
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  console.log(messages / seconds, messages / ((spent.user + spent.system) / 1e6));
  process.exit(0);
}
main();
