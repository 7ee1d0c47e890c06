//! Key ring in a file.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use couple_core::{Entropy, Error, ErrorKind, Keyring};

use crate::private_file;

/// File that holds the key ring, beside the store but not in it.
///
/// Back it up with the store: without it mailed codes, mailed links and open invites become invalid.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Names the file at `path`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] when it cannot be read, is not 32 bytes long, or (on Unix) is accessible
    /// to users other than its owner and group: a reader of the key can forge mailed links.
    pub fn read(&self) -> Result<Option<Keyring>, Error> {
        if self.path.metadata().is_ok_and(|file| private_file::is_open_to_others(&file)) {
            return Err(self.invalid_file("is accessible to every user of this machine: run chmod 600 on it"));
        }
        match fs::read(&self.path) {
            Ok(bytes) => match <[u8; 32]>::try_from(bytes) {
                Ok(key) => Ok(Some(Keyring::new(key))),
                Err(_) => Err(self.invalid_file("is not a key file: restore it from a backup")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.invalid_file("cannot be read").source(error)),
        }
    }

    /// Reads the file. If it does not exist, creates it with its folder, accessible to its owner only.
    ///
    /// Concurrent processes that create it all get the same key.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read), and [`ErrorKind::Misconfigured`] when the file cannot be written.
    pub fn open(&self, entropy: &dyn Entropy) -> Result<Keyring, Error> {
        if let Some(keys) = self.read()? {
            return Ok(keys);
        }
        let (mut key, mut random) = ([0; 32], [0; 8]);
        entropy.fill(&mut key);
        entropy.fill(&mut random);
        let made = self.make(&key, u64::from_be_bytes(random));
        made.map_err(|error| self.invalid_file("cannot be written").source(error))?;
        self.read()?.ok_or_else(|| self.invalid_file("was removed while it was opened"))
    }

    /// Opens the key file of a store, and creates it only for a new store: an existing store can be used only with its first key.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open), and [`ErrorKind::Misconfigured`] when the file of an existing store is missing.
    pub fn open_for(&self, is_new_store: bool, entropy: &dyn Entropy) -> Result<Keyring, Error> {
        match self.read()? {
            Some(keys) => Ok(keys),
            None if is_new_store => self.open(entropy),
            None => Err(self.invalid_file(
                "is missing, and the database has accounts that go with a key: name that file, or restore it from a backup",
            )),
        }
    }

    /// Writes the key to a temporary file and links it to the path, unless the path exists by then.
    fn make(&self, key: &[u8], random: u64) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(folder)?;
        }
        let partial = self.path.with_extension(format!("{random:016x}.partial"));
        let mut options = private_file::options();
        options.create_new(true);
        let mut file = options.open(&partial)?;
        let linked = file.write_all(key).and_then(|()| file.sync_all()).and_then(|()| {
            match fs::hard_link(&partial, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                // Some file systems have no hard links: create the file in place. A crash while writing
                // leaves a partial file.
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

    fn invalid_file(&self, why: &str) -> Error {
        Error::new(ErrorKind::Misconfigured, "key file").context(format!("{} {why}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use couple_core::OsEntropy;

    use super::*;

    #[test]
    fn key_file_is_created_with_its_folder_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::new(folder.path().join("data/new/couple.key"));
        assert!(file.read().unwrap().is_none());
        let derived = |keys: &Keyring| keys.derive("test", &[b"1"]);
        // An existing store was created with another key.
        let missing = file.open_for(false, &OsEntropy).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Misconfigured);
        assert!(missing.to_string().contains("is missing"), "{missing}");
        let made = derived(&file.open_for(true, &OsEntropy).unwrap());
        assert_eq!(derived(&file.open_for(false, &OsEntropy).unwrap()).as_bytes(), made.as_bytes());
        assert_eq!(made.as_bytes(), derived(&file.open(&OsEntropy).unwrap()).as_bytes());
    }

    #[test]
    fn concurrent_creators_read_one_key() {
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

    #[cfg(unix)]
    #[test]
    fn key_file_that_every_user_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("couple.key");
        let file = KeyFile::new(&path);
        file.open(&OsEntropy).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for (mode, is_accepted) in
            [(0o644, false), (0o604, false), (0o602, false), (0o400, true), (0o440, true)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = file.read();
            assert_eq!(read.is_ok(), is_accepted, "{mode:o}");
            if let Err(error) = read {
                assert_eq!(error.kind(), ErrorKind::Misconfigured);
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
    }
}
