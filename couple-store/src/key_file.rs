//! The key ring as a file.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use couple_core::{Entropy, Error, ErrorKind, Keyring};

/// A key ring that is kept in a file of its own, beside a store but not in it. Back it up with the store: without it
/// mailed codes and links and waiting invites end.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The file at `path`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    /// Reads it; none if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] when it cannot be read or is not 32 bytes long.
    pub fn read(&self) -> Result<Option<Keyring>, Error> {
        match fs::read(&self.path) {
            Ok(bytes) => match <[u8; 32]>::try_from(bytes) {
                Ok(key) => Ok(Some(Keyring::new(key))),
                Err(_) => Err(self.wrong("is not a key file: restore it from a backup")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.wrong("cannot be read").source(error)),
        }
    }

    /// Reads it, or makes it and its folder, for its owner only. Of several that make it at once all have the same.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when it cannot be written.
    pub fn open(&self, entropy: &dyn Entropy) -> Result<Keyring, Error> {
        if let Some(keys) = self.read()? {
            return Ok(keys);
        }
        let (mut key, mut random) = ([0; 32], [0; 8]);
        entropy.fill(&mut key);
        entropy.fill(&mut random);
        let made = self.make(&key, u64::from_be_bytes(random));
        made.map_err(|error| self.wrong("cannot be written").source(error))?;
        self.read()?.ok_or_else(|| self.wrong("is gone again"))
    }

    /// Written beside its place, and linked into it unless one is there meanwhile.
    fn make(&self, key: &[u8], random: u64) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(folder)?;
        }
        let partial = self.path.with_extension(format!("{random:016x}.partial"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&partial)?;
        let linked = file.write_all(key).and_then(|()| file.sync_all()).and_then(|()| {
            match fs::hard_link(&partial, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                // Some file systems have no links: the first one wins there as well, if it is not killed meanwhile.
                Err(_) => match options.open(&self.path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    opened => opened.and_then(|mut file| file.write_all(key).and_then(|()| file.sync_all())),
                },
                Ok(()) => Ok(()),
            }
        });
        fs::remove_file(partial)?;
        linked
    }

    fn wrong(&self, why: &str) -> Error {
        Error::new(ErrorKind::Misconfigured, "key file").context(format!("{} {why}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use couple_core::OsEntropy;

    use super::*;

    #[test]
    fn it_is_made_with_its_folder_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("data/new/couple.key"));
        assert!(file.read().unwrap().is_none());
        let derived = |keys: &Keyring| keys.derive("test", &[b"1"]);
        let made = derived(&file.open(&OsEntropy).unwrap());
        assert_eq!(made.as_bytes(), derived(&file.open(&OsEntropy).unwrap()).as_bytes());
    }

    #[test]
    fn whoever_makes_it_at_once_has_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("couple.key"));
        let all = std::sync::Barrier::new(8);
        let open = || {
            all.wait();
            file.open(&OsEntropy).unwrap().derive("test", &[b"1"]).as_bytes().to_vec()
        };
        let keys: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(keys.len(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
