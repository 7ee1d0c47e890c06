// node nodemailer.js PORT MAILS CONNECTIONS FOLDER: sends mails by npm `nodemailer` with its pool, with the texts of the files subject, text and html;
// prints mails per second, and per second of processor time.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { createTransport } = require("nodemailer");

const [port, mails, connections] = process.argv.slice(2, 5).map(Number);
const read = (name) => fs.readFileSync(path.join(process.argv[5], name), "utf8");
const [subject, text, html] = ["subject", "text", "html"].map(read);
const transport = createTransport({
  host: "127.0.0.1",
  port,
  secure: false,
  ignoreTLS: true,
  pool: true,
  maxConnections: connections,
  maxMessages: Infinity,
});

async function main() {
  const [begun, before] = [process.hrtime.bigint(), process.cpuUsage()];
  await Promise.all(
    Array.from({ length: connections }, async (_, task) => {
      for (let n = 0; n < mails / connections; n += 1) {
        await transport.sendMail({
          from: "Two Hearts <app@example.net>",
          to: "zoe@example.org",
          messageId: `<${task}.${n}@example.net>`,
          headers: { "Auto-Submitted": "auto-generated" },
          subject,
          text,
          html,
        });
      }
    }),
  );
  const spent = process.cpuUsage(before);
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  console.log(mails / seconds, mails / ((spent.user + spent.system) / 1e6));
  process.exit(0);
}
main();
