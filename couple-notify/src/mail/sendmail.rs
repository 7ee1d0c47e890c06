//! Mail through a local program with the command line of `sendmail`.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind,
    mail::{Mail, Mailer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, Command},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use super::{
    Letterhead,
    circuit_breaker::{CircuitBreaker, Outage},
    render::RenderedMail,
};

/// Maximum bytes of the messages of the program that are kept for the error.
const MAX_MESSAGE_BYTES: u64 = 2_048;
/// Maximum time to wait for the messages of a program that has ended: a process that it left behind may hold the pipe open.
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(200);
/// Time after which a mail is tried again if the program cannot be used.
const MIN_DEFERRAL: Duration = Duration::from_millis(100);

/// What an exit code of `sysexits.h` means for a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The recipient or the message is refused: `EX_DATAERR`, `EX_NOUSER`, `EX_NOHOST`.
    Final,
    /// The command line, the rights or the configuration of the program are wrong: `EX_USAGE`, `EX_NOPERM`, `EX_CONFIG`.
    Misconfigured,
    /// Everything else, a signal as well.
    Temporary,
}

fn verdict(status: ExitStatus) -> Verdict {
    match status.code() {
        Some(0) => Verdict::Accepted,
        Some(65 | 67 | 68) => Verdict::Final,
        Some(64 | 77 | 78) => Verdict::Misconfigured,
        _ => Verdict::Temporary,
    }
}

/// Mailer that runs `sendmail`, or a program with the same command line (Postfix, Exim, `OpenSMTPD`, msmtp, nullmailer), for each mail.
///
/// The command is `PROGRAM -i -f SENDER -- RECIPIENT`, without a shell; the message is its standard input. The exit code decides, as in
/// `sysexits.h`:
///
/// | exit code | error | the job |
/// |---|---|---|
/// | 65, 67, 68 | [`ErrorKind::Rejected`] | is dead, with the program's messages |
/// | 64, 77, 78, or the program cannot be started | [`ErrorKind::Unavailable`] with a [`deferral`](Error::deferral), logged at `error` | waits for an operator, without using up attempts |
/// | another one, or a signal | [`ErrorKind::Unavailable`] | is retried after a back-off |
/// | none in time | [`ErrorKind::TimedOut`] | is retried after a back-off |
///
/// [`SmtpMailer`](super::SmtpMailer) needs no process for each mail, and learns from the relay whether it accepts the recipient.
#[derive(Debug, Clone)]
pub struct SendmailMailer {
    program: PathBuf,
    arguments: Vec<OsString>,
    letterhead: Letterhead,
    timeout: Duration,
    processes: Arc<Semaphore>,
    breaker: Arc<CircuitBreaker>,
}

impl SendmailMailer {
    /// Creates a mailer that runs `program`, for example `/usr/sbin/sendmail`: at most 4 processes, each for a minute at most.
    pub fn new(program: impl Into<PathBuf>, letterhead: Letterhead) -> Self {
        Self {
            program: program.into(),
            arguments: vec!["-i".into()],
            letterhead,
            timeout: Duration::from_mins(1),
            processes: Arc::new(Semaphore::new(4)),
            breaker: Arc::default(),
        }
    }

    /// Sets the arguments before `-f SENDER -- RECIPIENT`. Default: `-i`, so that a line with a dot does not end the message.
    #[must_use]
    pub fn with_arguments(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        self
    }

    /// Sets the maximum number of processes of this mailer and its later clones. 0 counts as 1.
    #[must_use]
    pub fn with_max_processes(mut self, processes: usize) -> Self {
        self.processes = Arc::new(Semaphore::new(processes.clamp(1, Semaphore::MAX_PERMITS)));
        self
    }

    /// Sets the time after which a process is killed.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn spawn(&self, mail: &RenderedMail) -> io::Result<Child> {
        let sender = mail.envelope.from().map_or("", AsRef::as_ref);
        let mut command = Command::new(&self.program);
        // After `--` an address that begins with a hyphen is not an option.
        command.args(&self.arguments).args(["-f", sender, "--"]);
        command.args(mail.envelope.to().iter().map(AsRef::<OsStr>::as_ref));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()
    }
}

/// Writes the message to the process and waits for its end.
async fn finish(child: &mut Child, mail: &RenderedMail) -> io::Result<ExitStatus> {
    if let Some(mut input) = child.stdin.take() {
        // Programs on this machine expect the line ends of this machine.
        let text = mail.text.replace("\r\n", "\n");
        // A program that ends early does not read it; its exit code tells why.
        let _ = input.write_all(text.as_bytes()).await;
    }
    child.wait().await
}

/// Keeps the beginning of the messages of a process, and discards the rest so that it does not wait for a full pipe.
async fn read_messages(errors: ChildStderr) -> String {
    let mut text = Vec::new();
    let mut limited = errors.take(MAX_MESSAGE_BYTES);
    if limited.read_to_end(&mut text).await.is_ok() {
        let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[async_trait]
impl Mailer for SendmailMailer {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        let mail = self.letterhead.render(mail)?;
        let failed = |kind, context: String| Error::new(kind, "send mail").context(context);
        let permit = self.breaker.permit().await.map_err(|delay| {
            let context = "the mail waits until the program that sends mail can be used".to_owned();
            failed(ErrorKind::Unavailable, context).deferred(delay.max(MIN_DEFERRAL))
        })?;
        let program = self.program.display();
        let outage = |error: Error, permit: super::circuit_breaker::Permit<'_>| {
            let (delay, is_new) = permit.failed(Outage::Permanent);
            if is_new {
                tracing::error!(%error, ?delay, "the program that sends mail cannot be used until this is corrected: mails wait");
            }
            error.deferred(delay.max(MIN_DEFERRAL))
        };
        let Ok(_process) = self.processes.acquire().await else {
            return Err(failed(ErrorKind::Internal, "the semaphore is closed".to_owned()));
        };
        let mut child = match self.spawn(&mail) {
            Ok(child) => child,
            Err(error) => {
                let context = format!("cannot run {program}: check the path and the rights");
                return Err(outage(failed(ErrorKind::Unavailable, context).source(error), permit));
            }
        };
        let messages: Option<JoinHandle<String>> =
            child.stderr.take().map(|errors| tokio::spawn(read_messages(errors)));
        let status = match timeout(self.timeout, finish(&mut child, &mail)).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                permit.refused();
                return Err(failed(ErrorKind::Unavailable, format!("{program} failed")).source(error));
            }
            // Dropping the child kills it.
            Err(_) => {
                permit.refused();
                return Err(failed(
                    ErrorKind::TimedOut,
                    format!("{program} did not end in {:?}", self.timeout),
                ));
            }
        };
        let verdict = verdict(status);
        if verdict == Verdict::Accepted {
            permit.worked();
            return Ok(());
        }
        let mut context = format!("{program} ended with {status}");
        if let Some(mut messages) = messages {
            match timeout(MESSAGE_TIMEOUT, &mut messages).await {
                Ok(Ok(text)) if !text.is_empty() => {
                    let _ = write!(context, ": {text}");
                }
                Ok(_) => {}
                Err(_) => messages.abort(),
            }
        }
        match verdict {
            Verdict::Final => {
                permit.worked();
                Err(failed(ErrorKind::Rejected, context))
            }
            Verdict::Misconfigured => Err(outage(failed(ErrorKind::Unavailable, context), permit)),
            Verdict::Temporary | Verdict::Accepted => {
                permit.refused();
                Err(failed(ErrorKind::Unavailable, context))
            }
        }
    }
}
