//! Changes as sentences.

use couple_core::{
    Change, IdempotencyChange,
    account::{AccountChange, SeenToken},
    date::DateChange,
    device::DeviceChange,
    job::JobChange,
    media::{ExpectedMedia, MediaChange},
    notification::NotificationChange,
    pairing::PairingChange,
    timeline::TimelineChange,
    upload::UploadChange,
};

use super::{
    names::{Words, member},
    rows::{ToRows, rows_in_words},
};

/// Change as the beginning of a sentence.
pub(super) fn change_in_words(change: &Change) -> String {
    match change {
        Change::Account(change) => account(change),
        Change::Pairing(change) => pairing(change),
        Change::Timeline(change) => timeline(change),
        Change::Media(change) => media(change),
        Change::Upload(change) => upload(change),
        Change::Device(change) => device(change),
        Change::Notification(change) => notification(change),
        Change::Date(change) => date(change),
        Change::Job(change) => job(change),
        Change::Idempotency(change) => match change {
            IdempotencyChange::Record(record) => format!("record the {}", row(record)),
            IdempotencyChange::Purge { before, cap } => purge("outcomes", &before.words(), *cap),
        },
        Change::Host(_) => "run statements of a host that no store knows".to_owned(),
    }
}

fn row(value: &impl ToRows) -> String {
    rows_in_words(&value.to_rows())
}

fn purge(rows: &str, before: &str, cap: u32) -> String {
    format!("purge up to {cap} {rows} that expired before {before}")
}

fn seen(seen: &SeenToken) -> String {
    format!("seen with {} and the used form {}", seen.tries.words(), seen.used_form.words())
}

fn expected(of: &ExpectedMedia) -> String {
    format!("{} in {}, seen with {} uses", of.id.words(), of.space.words(), of.uses)
}

fn except(id: &Option<impl Words>) -> String {
    id.as_ref().map_or_else(String::new, |id| format!(" except {}", id.words()))
}

fn account(change: &AccountChange) -> String {
    match change {
        AccountChange::Insert(account) => format!("add the {}", row(account)),
        AccountChange::Update(account) => format!("update the {}", row(account)),
        AccountChange::Erase { id, version } => {
            format!("erase the account {} of version {version}", id.words())
        }
        AccountChange::InsertToken(token) => format!("add the {}", row(token)),
        AccountChange::RedeemToken { id, seen: state, at } => {
            format!("redeem {} {} at {}", id.words(), seen(state), at.words())
        }
        AccountChange::RequireToken { id, seen: state } => format!("require {} {}", id.words(), seen(state)),
        AccountChange::RedeemForm { id, seen: state, form, account } => {
            format!("redeem the {} of {} {} for {}", form.words(), id.words(), seen(state), account.words())
        }
        AccountChange::CountTries { kind, email, network, at } => format!(
            "count a wrong code for tokens `{}` of {} from {} at {}",
            kind.words(),
            email.words(),
            network.words(),
            at.words()
        ),
        AccountChange::EndTokens { kind, email, except: kept, at } => {
            format!("end tokens `{}` of {}{} at {}", kind.words(), email.words(), except(kept), at.words())
        }
        AccountChange::EndTokensOf { account, kind, except: kept, at } => {
            format!("end tokens `{}` of {}{} at {}", kind.words(), account.words(), except(kept), at.words())
        }
        AccountChange::CountTally { id, below, at, expires_at } => {
            format!("count {} below {below} at {}, until {}", id.words(), at.words(), expires_at.words())
        }
        AccountChange::RequireTally { id, below, at } => {
            format!("require {} below {below} at {}", id.words(), at.words())
        }
        AccountChange::PutTally { id, tally, .. } => format!("set {} to {}", id.words(), tally.words()),
        AccountChange::PurgeTallies { before, cap } => purge("tallies", &before.words(), *cap),
        AccountChange::InsertSession { session, version } => {
            format!("add the {} for version {version} of the account", row(session))
        }
        AccountChange::TouchSession { account, id, seen_at } => {
            format!("{} uses {} at {}", account.words(), id.words(), seen_at.words())
        }
        AccountChange::SetWidgetToken { account, id, token, most } => {
            let (account, id) = (account.words(), id.words());
            format!("set the widget token of {id} of {account} to {}, with a limit of {most}", token.words())
        }
        AccountChange::EndSession { account, id } => format!("end {} of {}", id.words(), account.words()),
        AccountChange::EndSessions { account, except: kept } => {
            format!("end all sessions of {}{}", account.words(), except(kept))
        }
        AccountChange::PurgeTokens { before, cap } => purge("tokens", &before.words(), *cap),
        AccountChange::PurgeSessions { before, idle, cap } => {
            format!("{} or were last used before {}", purge("sessions", &before.words(), *cap), idle.words())
        }
    }
}

fn pairing(change: &PairingChange) -> String {
    match change {
        PairingChange::InsertInvite { invite, limit } => format!(
            "{} invites {} by {} with the {} and the {} from {} to {}, with a limit of {limit}",
            invite.inviter.words(),
            invite.target.as_ref().map_or_else(|| "anyone".to_owned(), Words::words),
            invite.id.words(),
            invite.code.words(),
            invite.link.words(),
            invite.created_at.words(),
            invite.expires_at.words(),
        ),
        PairingChange::CloseInvite { id, to } => format!("close {} as {}", id.words(), to.words()),
        PairingChange::WithdrawInvitesOf { inviter } => {
            format!("withdraw all invites of {}", inviter.words())
        }
        PairingChange::Pair(couple) => {
            let [first, second] = couple.members;
            format!("pair {} and {} as {}", first.words(), second.words(), couple.id.words())
        }
        PairingChange::ExpectUnpaired { account } => format!("expect that {} is unpaired", account.words()),
        PairingChange::Describe { id, title, anniversary } => {
            let field = |name: &str, value: Option<String>| value.map(|value| format!("{name} to {value}"));
            let title = field("title", title.as_ref().map(Words::words));
            let fields =
                title.into_iter().chain(field("anniversary", anniversary.as_ref().map(Words::words)));
            let fields: Vec<_> = fields.collect();
            let fields = if fields.is_empty() { "no field".to_owned() } else { fields.join(", ") };
            format!("describe {}: {fields}", id.words())
        }
        PairingChange::Restore { id, side, wanted, read } => format!(
            "{} {} to restore the timeline before {}, seen with the wishes {}",
            member(*id, *side),
            if *wanted { "wants" } else { "does not want" },
            id.words(),
            read.words()
        ),
        PairingChange::End { id, at, .. } => format!("end {} at {}", id.words(), at.words()),
        PairingChange::Block(block) => {
            format!("{} blocks {} at {}", block.blocker.words(), block.blocked.words(), block.at.words())
        }
        PairingChange::Unblock { blocker, blocked } => {
            format!("{} unblocks {}", blocker.words(), blocked.words())
        }
        PairingChange::Forget { account, cap } => {
            format!("forget up to {cap} invites and blocks of {}", account.words())
        }
        PairingChange::SetErasure { person, due, before } => {
            format!("set the erasure of {} to {}, seen as {}", person.words(), due.words(), before.words())
        }
        PairingChange::FinishErasure { person, due } => {
            format!("finish the erasure of {}, seen as {}", person.words(), due.words())
        }
        PairingChange::Anonymize { couple, side, with } => {
            format!("replace {} in {} by {}", member(*couple, *side), couple.words(), with.words())
        }
        PairingChange::PurgeInvites { before, cap } => purge("invites", &before.words(), *cap),
    }
}

fn timeline(change: &TimelineChange) -> String {
    match change {
        TimelineChange::Append { couple, entry } => format!(
            "{} appends {} entry {} to {}{} at {}",
            entry.author.map_or_else(|| "the system".to_owned(), |side| member(*couple, side)),
            if entry.kind == "text" { "a text".to_owned() } else { format!("a {}", entry.kind) },
            entry.client_id.as_ref().map_or_else(|| "without a client id".to_owned(), Words::words),
            couple.words(),
            entry.target.map_or_else(String::new, |target| format!(" about seq {target}")),
            entry.at.words(),
        ),
        TimelineChange::Edit { couple, seq, author, body, at } => format!(
            "{} edits entry {seq} of {} to {} at {}",
            member(*couple, *author),
            couple.words(),
            body.words(),
            at.words()
        ),
        TimelineChange::Delete { couple, seq, author, at } => {
            format!(
                "{} deletes entry {seq} of {} at {}",
                member(*couple, *author),
                couple.words(),
                at.words()
            )
        }
        TimelineChange::React { couple, seq, side, emoji } => format!(
            "{} reacts to entry {seq} of {} with {}",
            member(*couple, *side),
            couple.words(),
            emoji.words()
        ),
        TimelineChange::MarkRead { couple, side, seq } => {
            format!("{} reads {} up to seq {seq}", member(*couple, *side), couple.words())
        }
        TimelineChange::Erase { couple, author, at, after, cap } => format!(
            "erase {cap} entries after seq {after} of {} by {} at {}",
            couple.words(),
            member(*couple, *author),
            at.words()
        ),
    }
}

fn media(change: &MediaChange) -> String {
    match change {
        MediaChange::Insert { media, most } => {
            let quota =
                if *most == i64::MAX { "no quota".to_owned() } else { format!("a quota of {most} bytes") };
            format!(
                "add {} with {} and {} bytes to {}, with {quota}",
                media.id.words(),
                media.digest.words(),
                media.source.as_ref().map_or(0, |source| source.bytes),
                media.space.words()
            )
        }
        MediaChange::Finish { of, width, height, animated, alpha, placeholder: _, source, renditions } => {
            format!(
                "make ready {} (width {width}, height {height}, animated {animated}, alpha {alpha}, source {}, renditions: {})",
                expected(of),
                source.words(),
                row(renditions)
            )
        }
        MediaChange::Reject { of, reason } => format!("reject {} as {}", expected(of), reason.words()),
        MediaChange::Use { couple, id, owner, ready } => format!(
            "use {} of {} in {}, seen as {}",
            id.words(),
            owner.words(),
            couple.words(),
            if *ready { "ready" } else { "processing" }
        ),
        MediaChange::Release(of) => format!("release {}", expected(of)),
        MediaChange::Delete(of) => format!("delete {}", expected(of)),
        MediaChange::AddRendition { space, id, rendition } => {
            format!("add to {} in {} the {}", id.words(), space.words(), row(rendition))
        }
        MediaChange::Touch { space, id, name, format, at } => format!(
            "request rendition {name}.{} of {} in {} at {}",
            format.words(),
            id.words(),
            space.words(),
            at.words()
        ),
        MediaChange::Forget { space, id, blobs } => {
            format!("forget of {} in {} the blobs {}", id.words(), space.words(), blobs.words())
        }
        MediaChange::SetAvatar { account, media, before } => {
            format!("set the avatar of {} to {}, seen as {}", account.words(), media.words(), before.words())
        }
        MediaChange::Close { account } => format!("close the space of {}", account.words()),
    }
}

fn upload(change: &UploadChange) -> String {
    let of = |owner: &couple_core::AccountId, id: &couple_core::UploadId| {
        format!("{} of {}", id.words(), owner.words())
    };
    match change {
        UploadChange::Insert { upload, most } => {
            format!("add one of at most {most} uploads: {}", row(upload))
        }
        UploadChange::Claim { owner, id, offset, writer, length } => format!(
            "writer {writer} claims {} at offset {offset} with the length {}",
            of(owner, id),
            length.words()
        ),
        UploadChange::Append { owner, id, writer, offset, bytes, parts: _, most } => format!(
            "writer {writer} appends {bytes} bytes at offset {offset} to {}, with a limit of {most} bytes",
            of(owner, id)
        ),
        UploadChange::TakeOver { owner, id, offset } => {
            format!("take over the parts of {} at offset {offset}", of(owner, id))
        }
        UploadChange::Finish { owner, id, media } => format!("finish {} as {}", of(owner, id), media.words()),
        UploadChange::ExpireOf { owner, at } => {
            format!("let all uploads of {} expire at {}", owner.words(), at.words())
        }
        UploadChange::Remove { owner, id } => format!("remove {}", of(owner, id)),
    }
}

fn device(change: &DeviceChange) -> String {
    match change {
        DeviceChange::Put { device, most } => {
            format!("register one of at most {most} devices: {}", row(device))
        }
        DeviceChange::Remove { account, id } => format!("remove {} of {}", id.words(), account.words()),
        DeviceChange::RemoveOf { account } => format!("remove all devices of {}", account.words()),
        DeviceChange::Retire { destination, not_after } => {
            format!("retire {} unless registered after {}", destination.words(), not_after.words())
        }
    }
}

fn notification(change: &NotificationChange) -> String {
    match change {
        NotificationChange::Put(preferences) => format!("set the {}", row(preferences)),
        NotificationChange::Remove { person } => format!("remove the preferences of {}", person.words()),
    }
}

fn date(change: &DateChange) -> String {
    match change {
        DateChange::Put { date, most } => format!("set one of at most {most} dates: {}", row(date)),
        DateChange::Remove { couple, id, version } => {
            format!("remove {} of {} with version {version}", id.words(), couple.words())
        }
    }
}

fn job(change: &JobChange) -> String {
    match change {
        JobChange::Enqueue(job) => format!(
            "enqueue {} with the key {} in the queue {}, due at {}",
            job.id.words(),
            job.dedupe_key.words(),
            job.queue.words(),
            job.due_at.words()
        ),
        JobChange::Claim { queue, now, lease_until, claim, limit } => format!(
            "claim {claim} takes up to {limit} jobs of the queue {} at {} until {}",
            queue.words(),
            now.words(),
            lease_until.words()
        ),
        JobChange::ClaimAbandoned { queue, now, lease_until, claim } => format!(
            "claim {claim} takes an abandoned job of the queue {} at {} until {}",
            queue.words(),
            now.words(),
            lease_until.words()
        ),
        JobChange::Renew { id, claim, lease_until } => {
            format!("renew claim {claim} of {} until {}", id.words(), lease_until.words())
        }
        JobChange::Finish { id, claim } => format!("finish {} under claim {claim}", id.words()),
        JobChange::Retry { id, claim, due_at } => {
            format!("retry {} under claim {claim} at {}", id.words(), due_at.words())
        }
        JobChange::Defer { id, claim, due_at } => {
            format!("defer {} under claim {claim} to {}", id.words(), due_at.words())
        }
        JobChange::Bury { id, claim, error, at } => {
            format!(
                "bury {} under claim {claim} with the error {} at {}",
                id.words(),
                error.words(),
                at.words()
            )
        }
        JobChange::Replay { id, at, expires_at } => {
            format!("replay the dead {} at {}, until {}", id.words(), at.words(), expires_at.words())
        }
        JobChange::PurgeDead { before, cap } => {
            format!("purge up to {cap} jobs that died before {}", before.words())
        }
    }
}
