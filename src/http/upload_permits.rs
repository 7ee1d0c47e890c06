//! Limits concurrent uploads, fairly between accounts.

use std::time::Duration;

use couple_core::AccountId;
use couple_media::fair_permits::{Denied, FairLimits, FairPermit, FairPermits};

use super::{ApiResult, HttpOptions, Problem};

/// Maximum number of uploads of one account that wait for a permit.
pub(super) const WAITING_PER_ACCOUNT: usize = 54;
/// Maximum number of uploads that wait for a permit in total.
const MAX_QUEUED_UPLOADS: usize = 1024;

/// Permits of uploads. Half of them are for accounts that hold none.
#[derive(Debug)]
pub(super) struct UploadPermits {
    permits: FairPermits<AccountId>,
    deadline: Duration,
}

impl UploadPermits {
    pub(super) fn new(options: &HttpOptions) -> Self {
        let permits = FairPermits::new(FairLimits {
            total: options.max_concurrent_uploads,
            per_key: options.max_concurrent_uploads_per_account,
            reserved: options.max_concurrent_uploads / 2,
            waiting: MAX_QUEUED_UPLOADS,
            waiting_per_key: WAITING_PER_ACCOUNT,
        });
        Self { permits, deadline: options.max_upload_wait }
    }

    /// Waits for a permit of an account.
    pub(super) async fn take(&self, account: AccountId) -> ApiResult<FairPermit<AccountId>> {
        self.permits.acquire(account, Some(self.deadline)).await.map_err(|denied| {
            let code = match denied {
                Denied::OwnLimit => "too_many_uploads",
                Denied::Full => "uploads_busy",
            };
            Problem::new(code).retry_within_reason(self.permits.expected_wait(&account))
        })
    }
}
