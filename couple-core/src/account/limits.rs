//! Rate limits of accounts.
//!
//! A host may change each default through [`AccountPolicy::with_limits`](super::AccountPolicy::with_limits).

use std::time::Duration;

use crate::limits::Rule;

/// Rate limits of requests that send one kind of mail.
///
/// A request takes a token from each bucket. The two limits per address count all clients. They do not refuse
/// a client network from which the address signed in recently, so that strangers cannot use up the owner's
/// mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailLimits {
    /// Requests of one client network for any address.
    ///
    /// Wide, because the NAT of a mobile operator is one network.
    pub per_client: Rule,
    /// Requests of one client network for one address. Strict.
    pub per_client_and_address: Rule,
    /// Requests of all clients for one address.
    pub per_address: Rule,
    /// Requests of all clients for one address per day.
    pub per_address_and_day: Rule,
}

/// Rate limits of attempts with a password or a mailed code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessLimits {
    /// Attempts of one client network for any address.
    pub per_client: Rule,
    /// Attempts of one client network for one address.
    pub per_client_and_address: Rule,
}

/// Rate limits of sign-up, sign-in, password recovery and changes of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountLimits {
    /// Mails that confirm a sign-up, first and repeated ones.
    pub sign_up_mail: MailLimits,
    /// Mails with a code and a link for signing in.
    pub sign_in_mail: MailLimits,
    /// Mails with a link for setting a password.
    pub password_mail: MailLimits,
    /// Mails that confirm a change of address, counted for the new address.
    pub email_mail: MailLimits,
    /// Attempts with a password.
    pub password: GuessLimits,
    /// Password attempts for one address from networks from which the address did not sign in recently.
    pub password_per_address: Rule,
    /// Attempts of a signed-in account to repeat its password.
    pub password_per_account: Rule,
    /// Attempts with a mailed code.
    ///
    /// [`AccountPolicy::with_code_tries`](super::AccountPolicy::with_code_tries) also limits wrong codes.
    pub code: GuessLimits,
    /// Attempts of one client network with a mailed link.
    ///
    /// A link has 192 bits and needs no limit per address.
    pub link_per_client: Rule,
}

const fn rule(name: &'static str, burst: u32, period: Duration) -> Rule {
    Rule { name, burst, period }
}

const fn mail(names: [&'static str; 4]) -> MailLimits {
    MailLimits {
        per_client: rule(names[0], 300, Duration::from_mins(30)),
        per_client_and_address: rule(names[1], 5, Duration::from_mins(30)),
        per_address: rule(names[2], 10, Duration::from_hours(1)),
        per_address_and_day: rule(names[3], 30, Duration::from_hours(24)),
    }
}

impl Default for AccountLimits {
    fn default() -> Self {
        let quarter = Duration::from_mins(15);
        Self {
            sign_up_mail: mail([
                "sign_up_mail_per_client",
                "sign_up_mail_per_client_and_address",
                "sign_up_mail_per_address",
                "sign_up_mail_per_address_and_day",
            ]),
            sign_in_mail: mail([
                "sign_in_mail_per_client",
                "sign_in_mail_per_client_and_address",
                "sign_in_mail_per_address",
                "sign_in_mail_per_address_and_day",
            ]),
            password_mail: mail([
                "password_mail_per_client",
                "password_mail_per_client_and_address",
                "password_mail_per_address",
                "password_mail_per_address_and_day",
            ]),
            email_mail: mail([
                "email_mail_per_client",
                "email_mail_per_client_and_address",
                "email_mail_per_address",
                "email_mail_per_address_and_day",
            ]),
            password: GuessLimits {
                per_client: rule("password_per_client", 120, quarter),
                per_client_and_address: rule("password_per_client_and_address", 10, quarter),
            },
            password_per_address: rule("password_per_address", 30, Duration::from_hours(1)),
            password_per_account: rule("password_per_account", 10, quarter),
            code: GuessLimits {
                per_client: rule("mailed_code_per_client", 120, quarter),
                per_client_and_address: rule("mailed_code_per_client_and_address", 10, quarter),
            },
            link_per_client: rule("link_per_client", 120, quarter),
        }
    }
}
