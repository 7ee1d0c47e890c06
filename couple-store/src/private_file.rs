//! Files that other users of the machine cannot read.

use std::fs;

/// Permissions of all users but the owner and the group.
#[cfg(unix)]
const OTHER_USERS_MODE: u32 = 0o007;

/// Options that create a file readable and writable by its owner only.
pub(crate) fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whether users other than the owner and the group can read or write the file.
///
/// False on systems other than Unix.
pub(crate) fn is_open_to_others(file: &fs::Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & OTHER_USERS_MODE != 0;
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

/// Removes the permissions of users other than the owner and the group from an existing file.
#[cfg(feature = "sqlite")]
pub(crate) fn close_to_others(path: &std::path::Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let file = path.metadata()?;
        if is_open_to_others(&file) {
            let mut permissions = file.permissions();
            permissions.set_mode(permissions.mode() & !OTHER_USERS_MODE);
            fs::set_permissions(path, permissions)?;
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
