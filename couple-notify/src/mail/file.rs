//! Mails as files, for development.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind,
    mail::{Mail, Mailer},
};
use tokio::{fs, io::AsyncWriteExt as _};

use super::Letterhead;

/// Mailer that writes each mail to `ID.eml` in a folder. A repeated mail replaces its file.
#[derive(Debug, Clone)]
pub struct FileMailer {
    folder: PathBuf,
    letterhead: Letterhead,
}

impl FileMailer {
    /// Creates a mailer that writes to `folder`, which is created if necessary.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if the folder cannot be created or written to.
    pub fn new(folder: impl AsRef<Path>, letterhead: Letterhead) -> Result<Self, Error> {
        let folder = folder.as_ref().to_owned();
        let probe = folder.join(".probe");
        make(&folder)
            .and_then(|()| std::fs::write(&probe, ""))
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|source| {
            Error::new(ErrorKind::Misconfigured, "mail folder")
                .context(format!("cannot write to {}", folder.display()))
                .source(source)
        })?;
        Ok(Self { folder, letterhead })
    }
}

/// Creates a folder that only its owner can read: mails contain codes.
fn make(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Options that create a file that only its owner can read, since mails contain codes.
fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    options.mode(0o600);
    options
}

#[async_trait]
impl Mailer for FileMailer {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        let fail = |source: std::io::Error| {
            let kind = match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, "write mail").source(source)
        };
        let text = self.letterhead.render(mail)?.text;
        // Written under another name first, so that a reader of the folder sees complete mails only.
        let partial = self.folder.join(format!(".{}.partial", mail.id));
        let mut file = private().open(&partial).await.map_err(fail)?;
        file.write_all(text.as_bytes()).await.map_err(fail)?;
        file.sync_all().await.map_err(fail)?;
        fs::rename(&partial, self.folder.join(format!("{}.eml", mail.id))).await.map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use couple_core::{EmailAddress, Timestamp, mail::Message};

    use super::*;

    #[tokio::test]
    async fn repeated_mail_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let mailer = FileMailer::new(folder.path().join("mail"), Letterhead::default()).unwrap();
        let mail = Mail {
            id: "7".to_owned(),
            to: EmailAddress::parse("email", "ana@example.org").unwrap(),
            locale: None,
            at: Timestamp::default(),
            message: Message::PasswordChanged,
        };
        mailer.send(&mail).await.unwrap();
        mailer.send(&mail).await.unwrap();
        let names: Vec<_> =
            std::fs::read_dir(folder.path().join("mail")).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names, ["7.eml"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn mail_in_an_existing_folder_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mailer = FileMailer::new(folder.path(), Letterhead::default()).unwrap();
        let mail = Mail {
            id: "8".to_owned(),
            to: EmailAddress::parse("email", "ana@example.org").unwrap(),
            locale: None,
            at: Timestamp::default(),
            message: Message::PasswordChanged,
        };
        mailer.send(&mail).await.unwrap();
        let mode = std::fs::metadata(folder.path().join("8.eml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    }
}
