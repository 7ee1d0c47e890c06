//! Mails per second of processor time, rendered and handed to a local SMTP server in a process of its own.
//!
//! `cargo bench -p couple-notify --features smtp,sendmail --bench mail`; with `COUPLE_MAIL_PEER=FOLDER` also npm `nodemailer` with its pool, which
//! `npm install --prefix FOLDER nodemailer@10.6.0` installs. All send the same verification mail, 8 at a time; interleaved rounds, medians.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use couple_core::{
    EmailAddress, Locale, Secret, Timestamp,
    mail::{Lifetimes, Mail, Mailer, Message},
};
use couple_notify::mail::{FileMailer, Letterhead, SendmailMailer, SmtpMailer};
use mail_parser::MessageParser;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream},
    net::TcpListener,
    runtime::Runtime,
    task::JoinSet,
    time::Instant,
};

const ROUNDS: usize = 5;
/// Mails of a round.
const MAILS: usize = 10_000;
/// Mails of a round with a process for each mail.
const MAILS_BY_PROCESS: usize = 400;
/// Mails in progress.
const CONCURRENT: usize = 8;

/// Accepts every mail; prints its port.
async fn accept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        // A client may disconnect at any time.
        tokio::spawn(async move { converse(BufStream::new(stream)).await.unwrap_or_default() });
    }
}

async fn converse(mut stream: BufStream<tokio::net::TcpStream>) -> Option<()> {
    let (mut line, mut in_mail) = (Vec::new(), false);
    stream.write_all(b"220 sink\r\n").await.ok()?;
    loop {
        stream.flush().await.ok()?;
        line.clear();
        while stream.read_until(b'\n', &mut line).await.ok()? > 0 && in_mail && line != b".\r\n" {
            line.clear();
        }
        let reply: &[u8] = match line.get(..4)? {
            b"EHLO" => b"250-sink\r\n250 8BITMIME\r\n",
            b"DATA" => b"354 go ahead\r\n",
            b"QUIT" => b"221 bye\r\n",
            _ => b"250 fine\r\n",
        };
        in_mail = reply.starts_with(b"354");
        stream.write_all(reply).await.ok()?;
    }
}

/// What a program like `sendmail` does: sends the message of its standard input.
fn submit(port: u16, sender: &str, recipient: &str) {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    let mut until_replied = || {
        let mut line = String::new();
        while replies.read_line(&mut line).unwrap() > 0 && line.as_bytes().get(3) == Some(&b'-') {
            line.clear();
        }
        assert!(line.starts_with(['2', '3']), "{line}");
    };
    until_replied();
    let content = format!("{}\r\n.\r\n", text.replace('\n', "\r\n").replace("\r\n.", "\r\n.."));
    for command in [
        "EHLO localhost\r\n".to_owned(),
        format!("MAIL FROM:<{sender}>\r\n"),
        format!("RCPT TO:<{recipient}>\r\n"),
        "DATA\r\n".to_owned(),
        content,
        "QUIT\r\n".to_owned(),
    ] {
        stream.write_all(command.as_bytes()).unwrap();
        until_replied();
    }
}

fn mail(n: usize) -> Mail {
    let (code, link) =
        (Secret::new(format!("{n:06}")), Secret::new(format!("https://app.example/open/verify#{n:032x}")));
    let lifetimes = Lifetimes { code: Duration::from_mins(10), link: Duration::from_hours(24) };
    Mail {
        id: n.to_string(),
        to: EmailAddress::parse("email", "zoe@example.org").unwrap(),
        locale: Locale::matched("de"),
        at: Timestamp::from_micros(1_767_225_600_000_000),
        message: Message::ConfirmSignUp { code, link, lifetimes },
    }
}

/// Sends mails on one thread; returns mails per second, and per second of processor time.
fn send(mailer: &Arc<dyn Mailer>, mails: usize) -> [f64; 2] {
    let (begun, before) = (Instant::now(), processor_time());
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for task in 0..CONCURRENT {
            let mailer = mailer.clone();
            tasks.spawn(async move {
                for n in 0..mails / CONCURRENT {
                    mailer.send(&mail(task * mails + n)).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
    });
    let spent = processor_time() - before;
    [mails as f64 / begun.elapsed().as_secs_f64(), mails as f64 / spent]
}

/// Sends the same text by `nodemailer`; returns the same figures, as the program prints them.
fn peer(modules: &Path, folder: &Path, port: u16) -> [f64; 2] {
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mail/nodemailer.js"))
        .args([&port.to_string(), &MAILS.to_string(), &CONCURRENT.to_string()])
        .arg(folder)
        .env("NODE_PATH", modules.join("node_modules"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    figures.try_into().expect("two figures")
}

/// Processor seconds of this process and of the children that it has waited for (proc(5)), in hundredths.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(4).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes the parts of the mail for `nodemailer`.
fn write_parts(folder: &Path, letterhead: Letterhead) {
    let mailer = FileMailer::new(folder, letterhead).unwrap();
    runtime().block_on(mailer.send(&mail(0))).unwrap();
    let text = std::fs::read(folder.join("0.eml")).unwrap();
    let parsed = MessageParser::new().parse(&text).unwrap();
    for (name, part) in [
        ("subject", parsed.subject().unwrap().to_owned()),
        ("text", parsed.body_text(0).unwrap().into_owned()),
        ("html", parsed.body_html(0).unwrap().into_owned()),
    ] {
        std::fs::write(folder.join(name), part).unwrap();
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        [_, "--accept"] => return runtime().block_on(accept()),
        [_, "--submit", port, "-f", sender, "--", recipient] => {
            return submit(port.parse().unwrap(), sender, recipient);
        }
        _ => {}
    }
    let program = std::env::current_exe().unwrap();
    let mut server =
        Command::new(&program).arg("--accept").stdout(Stdio::piped()).spawn().map(Server).unwrap();
    let mut port = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
    let port: u16 = port.trim().parse().unwrap();
    let letterhead = || Letterhead::new("Two Hearts", "app@example.net").unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_parts(folder.path(), letterhead());
    let smtp = || -> Arc<dyn Mailer> {
        Arc::new(SmtpMailer::new(&format!("smtp://127.0.0.1:{port}?tls=none"), letterhead()).unwrap())
    };
    let process = || -> Arc<dyn Mailer> {
        let mailer = SendmailMailer::new(&program, letterhead()).with_max_processes(CONCURRENT);
        Arc::new(mailer.with_arguments(["--submit", &port.to_string()]))
    };
    let modules = std::env::var_os("COUPLE_MAIL_PEER").map(PathBuf::from);

    let mut figures: Vec<(&str, Vec<[f64; 2]>)> =
        ["couple, SMTP", "a process for each mail", "npm nodemailer, pool"]
            .map(|name| (name, Vec::new()))
            .into();
    // Each round connects again, because a connection belongs to the runtime that opened it.
    for _ in 0..ROUNDS {
        figures[0].1.push(send(&smtp(), MAILS));
        figures[1].1.push(send(&process(), MAILS_BY_PROCESS));
        if let Some(modules) = &modules {
            figures[2].1.push(peer(modules, folder.path(), port));
        }
    }
    println!("{:<24} {:>10} {:>26}", "sender", "mails/s", "per second of a processor");
    for (name, rounds) in figures.into_iter().filter(|(_, rounds)| !rounds.is_empty()) {
        let column = |n: usize| median(rounds.iter().map(|figures| figures[n]).collect());
        println!("{name:<24} {:>10.0} {:>26.0}", column(0), column(1));
    }
    if modules.is_none() {
        println!("npm nodemailer was left out: COUPLE_MAIL_PEER is not set");
    }
}
